"""The command that distils one given student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DATA,
    CorpusTextOption,
    DeviceOption,
    DevOption,
    FinetuneOption,
    LabelOption,
    MetricOption,
    RunOption,
    SeedOption,
    SetOption,
    SettingsArgument,
    TaskOption,
    TeacherOption,
    TextOption,
    UnlabelledOption,
)
from stillhouse.cli.screen import EXIT_OVER_LIMITS, narrator, resumable
from stillhouse.cli.search_options import LEARNING_ON_A_TASK, gather_settings, task_options
from stillhouse.errors import SettingsError

_READS_ON_A_TASK = (
    *LEARNING_ON_A_TASK,
    "student",
    "search.proxy_examples",
    "search.epochs",
    "search.candidate_seconds",
    "final.epochs",
)
"""Of the search, what judges a layer map on the task."""


@answers
def distill(
    settings_file: SettingsArgument = None,
    *,
    teacher: TeacherOption = None,
    student: Annotated[
        str | None,
        typer.Option(
            help="A shape (layers=3,hidden_size=384), a folder or a hub id.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    task: TaskOption = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="As for search; told beside what the student costs. Repeatable.",
            metavar="NAME=VALUE",
            autocompletion=completion.limits,
        ),
    ] = None,
    run: RunOption = Path("runs/distill"),
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    unlabelled: UnlabelledOption = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Instead of a task: text files, a .jsonl or .parquet file, or hf:OWNER/NAME.",
            autocompletion=completion.paths,
            rich_help_panel=DATA,
        ),
    ] = None,
    corpus_text: CorpusTextOption = None,
    layer_map: Annotated[
        str | None,
        typer.Option(
            help="Teacher layers of hidden states and attention: uniform, last, uniform_last, "
            "search, or one for each student layer, from 1, 0 for none: 0,2,5.",
            autocompletion=completion.values_of("distill.layer_map"),
        ),
    ] = None,
    initialisation: Annotated[
        str | None,
        typer.Option(
            help="First weights: slices of the teacher, extract (its neurons) or scratch.",
            autocompletion=completion.values_of("distill.initialisation"),
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training set or the corpus.")
    ] = None,
    device: DeviceOption = None,
    teacher_finetune: FinetuneOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
) -> Answer:
    """Distil one given student, without a search.

    It learns on a task, or without one on plain text.

    Writes the checkpoint RUN/students/1 and RUN/report.html; the same command again resumes it.

    Next: `stillhouse export RUN/students/1`; a student of plain text is fine-tuned first.

    Examples:
        A shape on a task
            stillhouse distill --teacher google-bert/bert-base-uncased
            --student layers=3,hidden_size=384 --task glue/sst2

        On plain text, for any task afterwards
            stillhouse distill --teacher my-teacher/ --student layers=3,hidden_size=384
            --corpus wiki.txt
    """
    of_task = {"task": task, "text": text, "label": label, "dev": dev, "metric": metric}
    of_task |= {"unlabelled": unlabelled, "teacher-finetune": teacher_finetune}
    if corpus is not None:
        _refuse_with_corpus(of_task)
    from stillhouse.cli.settings import read_layer_map  # noqa: PLC0415  loads torch

    settings = gather_settings(
        settings_file,
        task_options(task, text, label, dev, metric)
        | {
            "recipe": None if corpus is None else "general",
            "corpus.name": corpus,
            "corpus.text": corpus_text,
            "distill.layer_map": None if layer_map is None else read_layer_map(layer_map),
            "distill.initialisation": initialisation,
            "teacher.model": teacher,
            "teacher.finetune": teacher_finetune,
            "task.unlabelled": unlabelled,
            "student": student,
            "final.epochs": epochs,
            "seed": seed,
        },
        limits=limit or (),
        device=device,
        overrides=overrides or (),
        reads={"plain": _READS_ON_A_TASK},
    )
    distilled = settings.distill
    if layer_map is not None and not (distilled.hidden_weight or distilled.attention_weight):
        raise SettingsError(
            "--layer-map has no effect while distill.hidden_weight and distill.attention_weight "
            "are 0: weigh one of them, such as --set distill.hidden_weight=1"
        )
    from stillhouse.api import run_distill_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.cli.students import is_within_limits, show_finished  # noqa: PLC0415  loads scipy

    with resumable(run):
        finished = run_distill_job(settings, run, narrator())
    done = f"The student lies in {finished.path}"
    if "held_out_losses" in finished.metrics:
        done = f"Fine-tune it with: stillhouse finetune {finished.path} --task glue/mrpc"
    return Answer(
        told={"run": run, "path": finished.path, "metrics": finished.metrics},
        show=lambda: show_finished(finished),
        done=done,
        exit_code=0 if is_within_limits(finished) else EXIT_OVER_LIMITS,
    )


def _refuse_with_corpus(options: Mapping[str, str | None]) -> None:
    """Refuses options of a task beside a corpus.

    Raises:
        SettingsError: If one is given.
    """
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise SettingsError(
            f"{', '.join(given)} and --corpus exclude each other: give --corpus to distil an "
            "encoder on plain text, and fine-tune it on a task afterwards; or --task to distil on "
            "a task at once"
        )
