"""The command that tells what a run will find on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

_MARKS = {"good": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]wrong[/]"}


def doctor(
    *,
    run: Annotated[Path, typer.Option("--run", help="Where runs will be kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data instead.")] = False,
) -> None:
    """Tell what a run will find here: versions, devices, disk, the hub, and what to do.

    It changes nothing, and ends with exit code 1 if something must be put right first.

    Example: stillhouse doctor --run /data/runs
    """
    from stillhouse.cli.app import EXIT_ERROR, out  # noqa: PLC0415  which has this command
    from stillhouse.run.health import examine  # noqa: PLC0415  loads torch

    findings = examine(run)
    if as_json:
        out.print_json(json.dumps([asdict(one) for one in findings]))
    else:
        table = Table(show_header=False, box=None, pad_edge=False)
        for one in findings:
            told = escape(one.told) + (f" [dim]({escape(one.advice)})[/]" if one.advice else "")
            table.add_row(_MARKS[one.state], one.name, told)
        out.print(table)
    if any(one.state == "bad" for one in findings):
        raise typer.Exit(EXIT_ERROR)
