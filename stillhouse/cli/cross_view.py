"""The command that trains a BiLSTM tagger of words with text without tags."""

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


def cross_view(
    settings_file: Annotated[
        Path | None, typer.Argument(help="YAML settings file; options given beside it win.")
    ] = None,
    *,
    task: Annotated[
        str | None,
        typer.Option(help="Words with tags: conll:PATH, .conllu, a table, or hf:OWNER/NAME."),
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            help="Text without tags: a sentence a line, its words parted by blanks, or a file in "
            "columns."
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint fine-tuned on the task, which tells the tags of that text; else the "
            "tagger does."
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
        str | None, typer.Option(help="Word vectors as GloVe and word2vec write them as text.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="small (the default) or published.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps, with tags and without them in turn.")
    ] = None,
    run: Annotated[
        Path, typer.Option("--run", help="Run directory; the same command again resumes it.")
    ] = Path("runs/cross-view"),
    text: Annotated[
        str | None, typer.Option(help="Column of words: its name, or number in CoNLL columns.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of tags: its name, or number in CoNLL columns.")
    ] = None,
    dev: Annotated[
        str | None,
        typer.Option(help="File (or split of hf:) for reports; else a tenth is set aside."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Primary metric, such as entity_f1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any setting: path=value, such as cross_view.dropout=0.3. Repeatable."
        ),
    ] = None,
) -> None:
    """Train a BiLSTM tagger of words, from sentences with tags and from text without (CVT).

    Example: stillhouse cross-view --task conll:train.txt --dev conll:test.txt
    --unlabelled news.txt --labels-fraction 0.1 --run runs/tagger
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
            "task.name": task,
            "task.unlabelled": unlabelled,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
            "teacher.model": teacher,
            "cross_view.targets": None if teacher is None else "teacher",
            "cross_view.labels_fraction": labels_fraction,
            "cross_view.vectors": vectors,
            "cross_view.size": size,
            "cross_view.steps": steps,
            "seed": seed,
        },
        overrides=overrides or (),
    )
    from stillhouse.api import run_cross_view_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_cross_view_job(settings, run, RichNarrator(err))
    _print_result(result, out)
    err.print(
        f"\nDone. Tag with: stillhouse.load_word_tagger('{result.path}').tag([['A', 'sentence']])",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_result(result: Student, out: Console) -> None:
    told = result.metrics
    table = Table(title=f"{told['quality_count']} dev sentences of {told['task']}")
    for column in ("label", "precision", "recall", "F1", "n"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for row in told["labels"]:
        shares = (f"{row[name]:.4f}" for name in ("precision", "recall", "f1"))
        table.add_row(row["label"] or "(no type)", *shares, str(row["support"]))
    out.print(table)
    for line in _lines(told):
        out.print(line, markup=False, highlight=False, soft_wrap=True)


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
        f"training: {cost['seconds']:,.0f} s, {cost['energy_wh']:.2f} Wh, {cost['co2_g']:.2f} g "
        f"CO2 ({cost['how']})",
    ]
