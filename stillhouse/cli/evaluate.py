"""The command that scores a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table
from rich.text import Text

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DevOption,
    LabelOption,
    MetricOption,
    ModelArgument,
    SetOption,
    TaskOption,
    TextOption,
)
from stillhouse.cli.screen import print_line, print_table, quiet_libraries, stoppable
from stillhouse.cli.search_options import gather_settings, task_options
from stillhouse.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from stillhouse.evaluate.loyalty import Loyalty
    from stillhouse.recipe.evaluation import Evaluation

BASES = ("e", "2")


@answers
def evaluate(
    model: ModelArgument,
    *,
    task: TaskOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Fine-tuned teacher, to tell how loyal the model's answers are to it.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    loyalty_base: Annotated[
        str | None,
        typer.Option(
            help="Logarithm of the probability loyalty: e, as published, or 2; e if not given.",
            autocompletion=completion.one_of(*BASES),
        ),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    overrides: SetOption = None,
) -> Answer:
    """Score a checkpoint on the dev set of a task.

    Prints every metric of the task, the first with its 95 % interval; writes nothing.

    Examples:
        A student, and how often it answers as its teacher does
            stillhouse evaluate runs/sst2/students/1 --task glue/sst2 --teacher runs/sst2/teacher
    """
    if loyalty_base is not None and teacher is None:
        raise SettingsError("--loyalty-base is of the loyalty to a teacher: give one (--teacher)")
    if loyalty_base not in (None, *BASES):
        raise SettingsError(
            f"--loyalty-base is e or 2, but is {loyalty_base!r}{did_you_mean(loyalty_base, BASES)}"
        )
    settings = gather_settings(
        None,
        task_options(task, text, label, dev, metric),
        overrides=overrides or (),
        reads=("task",),
    )
    from stillhouse.api import evaluate as evaluate_model  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    base = cast(Any, loyalty_base or "e")
    with stoppable():
        result = evaluate_model(model, settings.task, teacher=teacher, base=base)
    told = {
        "model": model,
        "task": result.task,
        "scores": result.scores,
        "quality_low": result.low,
        "quality_high": result.high,
        "quality_count": result.count,
        "labels": result.labels,
        "loyalty": result.loyalty,
    }
    return Answer(told=told, show=lambda: _show(result))


def _show(result: Evaluation) -> None:
    """Prints scores, a table of labels where the task has tags, and loyalty where it was asked."""
    for position, (name, value) in enumerate(result.scores.items()):
        interval = (
            f"  (95 % interval {result.low:.4f} to {result.high:.4f})" if not position else ""
        )
        print_line(f"{name} {value:.4f}{interval}")
    print_line(f"{result.count} dev examples of {result.task}")
    if result.labels:
        table = Table(title="Labels")
        for column in ("label", "precision", "recall", "f1", "support"):
            table.add_column(column, justify="left" if column == "label" else "right")
        for row in result.labels:
            shares = [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]
            table.add_row(Text(row["label"]), *shares, str(row["support"]))
        print_table(table)
    if result.loyalty is not None:
        _show_loyalty(result.loyalty)


def _show_loyalty(agreement: Loyalty) -> None:
    if agreement.label is None:
        print_line(f"loyalty: none, {agreement.reason}")
        return
    logarithm = "natural logarithm" if agreement.base == "e" else "logarithm to base 2"
    for name, note in (("label", ""), ("probability", f", {logarithm}")):
        value, low, high = (getattr(agreement, f"{name}{end}") for end in ("", "_low", "_high"))
        print_line(f"{name} loyalty {value:.4f}  (95 % interval {low:.4f} to {high:.4f}{note})")
