"""The command that trains a fine-tuned model to have weights of few bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stillhouse.cli.progress import RichNarrator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rich.console import Console

    from stillhouse.api import Student


def quantise(
    model: Annotated[
        str, typer.Argument(help="Checkpoint folder or hub id, fine-tuned on the task.")
    ],
    settings_file: Annotated[
        Path | None, typer.Argument(help="YAML settings file; options given beside it win.")
    ] = None,
    *,
    bits: Annotated[
        int | None, typer.Option(help="Of each weight, 2 to 8; activations have 8.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Its task, as --task of search takes it.")
    ] = None,
    run: Annotated[
        Path, typer.Option("--run", help="Run directory; the same command again resumes it.")
    ] = Path("runs/quantise"),
    text: Annotated[str | None, typer.Option(help="Text column of a table, or two: a,b.")] = None,
    label: Annotated[
        str | None, typer.Option(help="Label column of a table; may hold lists.")
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(help="Table (or split of hf:) for reports; else a tenth is set aside."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Primary metric, such as f1_macro.")] = None,
    ranges: Annotated[
        str | None,
        typer.Option(
            help="First ranges: error (least squared error, the default), quantile or kl."
        ),
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training set.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any setting: path=value, such as quantise.batch_size=32. Repeatable."
        ),
    ] = None,
) -> None:
    """Train a fine-tuned checkpoint to have weights of 2 to 8 bits; it learns from itself.

    Example: stillhouse quantise runs/sst2/students/1 --task glue/sst2 --bits 4
    """
    from stillhouse.cli.app import (  # noqa: PLC0415  which has this command
        err,
        gather_settings,
        out,
        resumable,
    )

    settings = gather_settings(
        settings_file,
        {
            "quantise.model": model,
            "quantise.weight_bits": bits,
            "quantise.ranges": ranges,
            "quantise.epochs": epochs,
            "task.name": task,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
            "seed": seed,
        },
        overrides=overrides or (),
    )
    from stillhouse.api import run_quantise_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_quantise_job(settings, run, RichNarrator(err))
    _print_result(result, out)
    err.print(f"\nDone. The model lies in {result.path}", markup=False, soft_wrap=True)


def _print_result(result: Student, out: Console) -> None:
    told = result.metrics
    table = Table(title=f"{told['metric']} on {told['quality_count']} dev examples")
    for column in ("weights", "activations", told["metric"], "95 % interval", "MB"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    bits, few = f"{told['weight_bits']} bits", f"{told['activation_bits']} bits"
    size, whole = f"{told['size_mb']:.2f}", f"{told['float_size_mb']:.2f}"
    table.add_row("float32", "float32", *_quality(told, "float_"), whole)
    table.add_row(f"{bits}, untrained", few, *_quality(told, "post_training_"), size)
    table.add_row(f"{bits}, trained", few, *_quality(told, ""), size)
    out.print(table)
    lines = [f"{told['compression']:.1f} times smaller; weights of epoch {told['epoch']:g}"]
    loyalty = told["loyalty"]
    if loyalty["label"] is not None:
        lines.append(
            f"same answer as float32: {loyalty['label']:.4f} (95 % interval "
            f"{loyalty['label_low']:.4f} to {loyalty['label_high']:.4f}); probability loyalty "
            f"{loyalty['probability']:.4f}"
        )
    for line in lines:
        out.print(line, markup=False, highlight=False, soft_wrap=True)


def _quality(told: Mapping[str, Any], prefix: str) -> tuple[str, str]:
    low, high = told[f"{prefix}quality_low"], told[f"{prefix}quality_high"]
    return f"{told[f'{prefix}quality']:.4f}", f"{low:.4f} to {high:.4f}"
