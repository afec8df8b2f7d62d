"""The command that trains a BiLSTM tagger of words with text without tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DATA,
    DevOption,
    MetricOption,
    RunOption,
    SeedOption,
    SetOption,
    SettingsArgument,
)
from stillhouse.cli.screen import narrator, print_line, print_table, resumable
from stillhouse.cli.search_options import gather_settings, task_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stillhouse.api import Student


@answers
def cross_view(
    settings_file: SettingsArgument = None,
    *,
    task: Annotated[
        str | None,
        typer.Option(
            help="Words with tags: conll:PATH, .conllu, a table, or hf:OWNER/NAME.",
            autocompletion=completion.paths,
            rich_help_panel=DATA,
        ),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="Text without tags: a sentence a line, its words parted by blanks, or a file in "
            "columns.",
            autocompletion=completion.paths,
            rich_help_panel=DATA,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint fine-tuned on the task, which tells the tags of that text; else the "
            "tagger does.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    labels_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of the training sentences whose tags are read; the others are text "
            "without tags."
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            help="Word vectors as GloVe and word2vec write them as text.",
            autocompletion=completion.paths,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="small (the default) or published.",
            autocompletion=completion.values_of("cross_view.size"),
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps, with tags and without them in turn.")
    ] = None,
    run: RunOption = Path("runs/cross-view"),
    text: Annotated[
        str | None,
        typer.Option(
            help="Column of words: its name, or number in CoNLL columns.", rich_help_panel=DATA
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Column of tags: its name, or number in CoNLL columns.", rich_help_panel=DATA
        ),
    ] = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
) -> Answer:
    """Train a BiLSTM tagger, also from text without tags (CVT).

    Writes the tagger RUN/model, which needs no transformers; the same command again resumes it.

    Next: the Python line that is printed, which tags words of yours.

    Examples:
        From a tenth of the tags, and text without any
            stillhouse cross-view --task conll:train.txt --dev conll:test.txt
            --unlabelled news.txt --labels-fraction 0.1 --run runs/tagger
    """
    settings = gather_settings(
        settings_file,
        task_options(task, text, label, dev, metric)
        | {
            "task.unlabelled": unlabelled,
            "teacher.model": teacher,
            "cross_view.targets": None if teacher is None else "teacher",
            "cross_view.labels_fraction": labels_fraction,
            "cross_view.vectors": vectors,
            "cross_view.size": size,
            "cross_view.steps": steps,
            "seed": seed,
        },
        overrides=overrides or (),
        reads=("task", "teacher.model", "cross_view", "seed", "distill.cache_gb", "device.watts"),
    )
    from stillhouse.api import run_cross_view_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_cross_view_job(settings, run, narrator())
    return Answer(
        told={"run": run, "path": result.path, "metrics": result.metrics},
        show=lambda: _show(result),
        done=f"Tag with: stillhouse.load_word_tagger('{result.path}').tag([['A', 'sentence']])",
    )


def _show(result: Student) -> None:
    told = result.metrics
    table = Table(title=f"{told['quality_count']} dev sentences of {told['task']}")
    for column in ("label", "precision", "recall", "F1", "n"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for row in told["labels"]:
        shares = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(row["label"] or "(no type)"), *shares, str(row["support"]))
    print_table(table)
    for line in _lines(told):
        print_line(line)


def _lines(told: Mapping[str, Any]) -> list[str]:
    low, high = told["quality_low"], told["quality_high"]
    others = "".join(
        f", {name} {value:.4f}" for name, value in told["scores"].items() if name != told["metric"]
    )
    cost = told["cost"]
    return [
        f"{told['metric']} {told['quality']:.4f} (95 % interval {low:.4f} to {high:.4f}){others}",
        f"{told['parameters']:,} parameters ({told['size_mb']:.1f} MB), "
        f"{told['labelled_sentences']:,} sentences with tags and "
        f"{told['unlabelled_sentences']:,} without; weights of step {told['best_step']:,} of "
        f"{told['steps']:,}",
        f"cost: {cost['seconds']:,.0f} s, {cost['energy_wh']:.2f} Wh, {cost['co2_g']:.2f} g "
        f"CO2 ({cost['how']})",
    ]
