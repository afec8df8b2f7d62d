"""The command that sets methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, answers
from stillhouse.cli.screen import print_line, print_table, stoppable

if TYPE_CHECKING:
    from stillhouse.report.comparison import Comparison

RIGHT = ("quality", "cost", "less the first, points", "candidates", "equal budget", "run")


@answers
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run directories, each perhaps with a name: kd-nas=runs/a. Runs of one name, or "
            "of the same settings but the seed, are one method.",
            autocompletion=completion.runs,
            metavar="RUN...",
        ),
    ],
    *,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            "--at",
            help="A limit to compare at: latency_ms=5, speedup=4, size_mb=40, flops_fraction=0.3, "
            "params_m=10 or memory_mb=300, or several together with commas between. Repeatable; "
            "without any, the runs' own.",
            metavar="NAME=VALUE",
            autocompletion=completion.limits,
        ),
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            help="The cost that quality is set against: latency_ms, size_mb, flops_fraction or "
            "params_m."
        ),
    ] = "latency_ms",
    page: Annotated[
        Path,
        typer.Option("--out", help="The page to write.", autocompletion=completion.folders),
    ] = Path("compare.html"),
) -> Answer:
    """Set methods side by side, at equal limits and equal budgets.

    Tells the quality of each method's best student within each limit, the difference to the first
    method with its uncertainty, hypervolumes at equal budgets, what each cost, and what is not
    equal between the runs.

    Writes one page, compare.html, without links to anywhere. The runs stay as they are.

    Examples:
        Two searches, at a latency and at a speed-up
            stillhouse compare runs/kd-nas runs/random --limit latency_ms=5 --limit speedup=4
        Three seeds of each of two methods, with names of your own
            stillhouse compare gp=runs/gp-0 gp=runs/gp-1 gp=runs/gp-2
            random=runs/random-0 random=runs/random-1 random=runs/random-2
        Fine-tuned models, which were not timed, by their size
            stillhouse compare runs/mrpc-a runs/mrpc-b --by size_mb --out mrpc.html
    """
    from stillhouse import api  # noqa: PLC0415  loads torch
    from stillhouse.cli.settings import read_budget  # noqa: PLC0415  loads torch

    with stoppable():
        comparison = api.compare_runs(
            runs, limits=[read_budget(text) for text in limit or ()], by=by, page=page
        )
    return Answer(
        told={"page": page, **comparison.to_dict()},
        show=lambda: _show(comparison),
        done=f"Open {page}",
    )


def _show(comparison: Comparison) -> None:
    from stillhouse.report.comparison_page import summary  # noqa: PLC0415  loads plotly

    for remark in comparison.remarks:
        print_line(f"not equal: {remark}")
    for table in (*_quality(comparison), _search(comparison)):
        print_table(table)
    print_line(summary(comparison))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right" if name in RIGHT else "left")
    return table


def _quality(comparison: Comparison) -> list[Table]:
    """A table for each limit."""
    from stillhouse.report.comparison_costs import cost_told  # noqa: PLC0415  loads torch
    from stillhouse.report.comparison_table import difference_told  # noqa: PLC0415  loads torch

    tables = []
    for line in comparison.lines:
        title = f"{comparison.metric} on {comparison.report_set} at {line.told}"
        table = _table(title, "method", "quality", "cost", "less the first, points", "verdict")
        for cell in line.cells:
            known = cell.quality is not None
            table.add_row(
                Text(cell.method),
                f"{cell.quality:.4f} ({cell.low:.3f} to {cell.high:.3f})" if known else "-",
                cost_told(comparison.scale.name, cell.cost),
                difference_told(cell.difference),
                Text(cell.verdict),
            )
        tables.append(table)
    return tables


def _search(comparison: Comparison) -> Table:
    """What the searches dominate, and what the runs cost."""
    from stillhouse.report.comparison_page import durations, spread  # noqa: PLC0415  loads plotly

    volumes = comparison.volumes
    budget = f", equal budget {volumes.candidates}" if volumes and volumes.candidates else ""
    table = _table(
        f"Hypervolume of the trials{budget}, and cost",
        "method",
        "hypervolume",
        "equal budget",
        "candidates",
        "run",
    )
    for place, one in enumerate(comparison.spent):
        volume = None if volumes is None else volumes.each[place]
        table.add_row(
            Text(one.method),
            "-" if volume is None else spread(volume.at_end),
            "-" if volume is None else spread(volume.at_candidates),
            spread(one.candidates, 0),
            durations(one.wall_s),
        )
    return table
