"""The command that trains a fine-tuned model to have weights of few bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.options import (
    DevOption,
    LabelOption,
    MetricOption,
    ModelArgument,
    RunOption,
    SeedOption,
    SetOption,
    SettingsArgument,
    TaskOption,
    TextOption,
)
from stillhouse.cli.screen import narrator, print_line, print_table, resumable
from stillhouse.cli.search_options import gather_settings, task_options

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from stillhouse.api import Student


@answers
def quantise(
    model: ModelArgument,
    settings_file: SettingsArgument = None,
    *,
    bits: Annotated[
        int | None, typer.Option(help="Of each weight, 2 to 8; activations have 8.")
    ] = None,
    task: TaskOption = None,
    run: RunOption = Path("runs/quantise"),
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    ranges: Annotated[
        str | None,
        typer.Option(
            help="First ranges: error (least squared error, the default), quantile or kl.",
            autocompletion=completion.values_of("quantise.ranges"),
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training set.")] = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
) -> Answer:
    """Train a checkpoint to have weights of 2 to 8 bits.

    It is fine-tuned on the task already, and learns from itself in full precision.

    Writes the checkpoint RUN/model; the same command again resumes it.

    Next: `stillhouse export RUN/model`, which keeps the ranges of the training.

    Examples:
        A student of a search, in 4 bits
            stillhouse quantise runs/sst2/students/1 --task glue/sst2 --bits 4
    """
    settings = gather_settings(
        settings_file,
        task_options(task, text, label, dev, metric)
        | {
            "quantise.model": model,
            "quantise.weight_bits": bits,
            "quantise.ranges": ranges,
            "quantise.epochs": epochs,
            "seed": seed,
        },
        overrides=overrides or (),
        reads=(
            "task",
            "quantise",
            "seed",
            "distill.precision",
            "distill.dropout",
            "distill.cache_gb",
            "device.watts",
        ),
    )
    from stillhouse.api import run_quantise_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_quantise_job(settings, run, narrator())
    return Answer(
        told={"run": run, "path": result.path, "metrics": result.metrics},
        show=lambda: _show(result),
        done=f"The model lies in {result.path}",
    )


def _show(result: Student) -> None:
    told = result.metrics
    table = Table(title=f"{told['metric']} on {told['quality_count']} dev examples")
    for column in ("weights", "activations", told["metric"], "95 % interval", "MB"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    bits, few = f"{told['weight_bits']} bits", f"{told['activation_bits']} bits"
    size, whole = f"{told['size_mb']:.2f}", f"{told['float_size_mb']:.2f}"
    table.add_row("float32", "float32", *_quality(told, "float_"), whole)
    table.add_row(f"{bits}, untrained", few, *_quality(told, "post_training_"), size)
    table.add_row(f"{bits}, trained", few, *_quality(told, ""), size)
    print_table(table)
    lines = [f"{told['compression']:.1f} times smaller; weights of epoch {told['epoch']:g}"]
    loyalty = told["loyalty"]
    if loyalty["label"] is not None:
        lines.append(
            f"same answer as float32: {loyalty['label']:.4f} (95 % interval "
            f"{loyalty['label_low']:.4f} to {loyalty['label_high']:.4f}); probability loyalty "
            f"{loyalty['probability']:.4f}"
        )
    for line in lines:
        print_line(line)


def _quality(told: Mapping[str, Any], prefix: str) -> tuple[str, str]:
    low, high = told[f"{prefix}quality_low"], told[f"{prefix}quality_high"]
    return f"{told[f'{prefix}quality']:.4f}", f"{low:.4f} to {high:.4f}"
