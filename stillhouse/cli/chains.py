"""The commands that go on from a nas-bert run: choose for other limits, and pre-train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import RunArgument, SetOption
from stillhouse.cli.plain import plain_students
from stillhouse.cli.screen import narrator, print_line, resumable


@answers
def select(
    run: RunArgument,
    *,
    limit: Annotated[
        list[str],
        typer.Option(
            help="latency_ms=4,params_m=10: one budget. Repeatable.",
            metavar="NAME=VALUE",
            autocompletion=completion.limits,
        ),
    ],
) -> Answer | None:
    """Choose from a nas-bert run for other limits; takes seconds.

    RUN is that of `stillhouse search nas-bert`. Writes RUN/selected/1, 2 and on.

    Next: `stillhouse train RUN/selected/1`.

    Examples:
        A student of 12 MB at most
            stillhouse select runs/nb --limit size_mb=12

        One for each of two budgets
            stillhouse select runs/nb --limit latency_ms=4,params_m=10 --limit params_m=5
    """
    from stillhouse.api import run_select_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.cli.settings import read_budget  # noqa: PLC0415  loads torch
    from stillhouse.cli.students import show_selected  # noqa: PLC0415  loads scipy

    budgets = [read_budget(text) for text in limit]
    with resumable(run):
        result = run_select_job(run, budgets, narrator())
    if not result.students:  # a worker of a training in several processes
        return None
    return Answer(
        told={"run": result.path, "students": plain_students(result.students)},
        show=lambda: show_selected(result.students),
        done=f"Pre-train one with: stillhouse train {result.students[0].path}",
    )


@answers
def train(
    selected: Annotated[
        Path,
        typer.Argument(
            help="RUN/selected/N, as search and select print.",
            autocompletion=completion.folders,
            metavar="SELECTED",
        ),
    ],
    *,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="First weights: scratch (as published) or supernet.",
            autocompletion=completion.values_of("pretrain.start"),
        ),
    ] = None,
    overrides: SetOption = None,
) -> Answer | None:
    """Pre-train a student that nas-bert selected, with its teacher.

    Writes the checkpoint RUN/students/N; the same command again resumes it.

    Next: `stillhouse finetune RUN/students/N` with a task.

    Examples:
        The first selected student
            stillhouse train runs/nb/selected/1 --steps 20000
    """
    from stillhouse.api import run_train_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.run.settings_file import parse_override  # noqa: PLC0415  the settings load torch

    options = {
        "pretrain.steps": steps,
        "pretrain.batch_size": batch_size,
        "pretrain.learning_rate": learning_rate,
        "pretrain.start": start,
    }
    given = {path: value for path, value in options.items() if value is not None}
    given |= dict(parse_override(text) for text in overrides or ())
    with resumable(selected.parent.parent):
        student = run_train_job(selected, given, narrator())
    metrics = student.metrics
    if not metrics:  # a worker of a data-parallel training
        return None
    line = (
        f"masked words told right: {metrics['mlm_accuracy_fraction']:.1%} of "
        f"{metrics['mlm_count']:,} held-out tokens (teacher "
        f"{metrics['teacher_mlm_accuracy_fraction']:.1%})"
    )
    return Answer(
        told={"path": student.path, "metrics": metrics},
        show=lambda: print_line(line),
        done=f"Fine-tune it with: stillhouse finetune {student.path} --task glue/mrpc",
    )
