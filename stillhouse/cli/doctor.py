"""The command that tells what a run will find on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.screen import EXIT_ERROR, out

if TYPE_CHECKING:
    from stillhouse.run.health import Finding

_MARKS = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]wrong[/]"}


@answers
def doctor(
    *,
    run: Annotated[
        Path,
        typer.Option("--run", help="Where runs will be kept.", autocompletion=completion.folders),
    ] = Path("runs"),
) -> Answer:
    """Check what a run will find here, and tell what to do.

    Versions, packages, devices, memory, disk, and whether the hub can be reached.

    It changes nothing, and ends with exit code 1 if something must be put right first.

    Examples:
        Before runs are kept on another disk
            stillhouse doctor --run /data/runs
    """
    from stillhouse.run.health import examine  # noqa: PLC0415  loads torch

    findings = examine(run)
    is_fit = all(one.state != "bad" for one in findings)
    return Answer(
        told={"is_fit": is_fit, "findings": findings},
        show=lambda: _show(findings),
        exit_code=0 if is_fit else EXIT_ERROR,
    )


def _show(findings: Sequence[Finding]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    for one in findings:
        told = escape(one.told) + (f" [dim]({escape(one.advice)})[/]" if one.advice else "")
        table.add_row(_MARKS[one.state], one.name, told)
    out.print(table)
