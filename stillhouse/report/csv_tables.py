"""Tables of the page as CSV files, with raw figures, that a link holds and no server serves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias
from urllib.parse import quote

from stillhouse.report.chains import Selected
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Competitor, Contents, Student
from stillhouse.report.trials import TrialRow

Cell: TypeAlias = "str | float | bool | None"
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First letters of what a spreadsheet would compute, or run, rather than show."""
MARK = "\ufeff"
"""Byte-order mark, without which spreadsheets take a file of UTF-8 for an older encoding."""
WHOLE = ("parameters", "parameters_encoder", "quality_count")
"""Columns of counts, which are read as floats."""
FIGURE_COLUMNS = (
    "architecture",
    "metric",
    "quality",
    "quality_low",
    "quality_high",
    "quality_count",
    "quality_search",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_128_ms",
    "parameters",
    "parameters_encoder",
    "flops_fraction",
    "size_mb",
    "file_mb",
    "memory_mb",
    "latency_how",
    "device",
    "workload",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A table as a file; `link` holds all of it."""

    name: str
    rows: int
    link: str


def downloads(contents: Contents) -> dict[str, Download]:
    """The tables of a run by what they are of; those without a row are left out."""
    tables = {
        "trials": [_trial(row) for row in contents.trials],
        "students": [*_models(contents)],
    }
    return {
        what: Download(
            name=f"{contents.name}-{what}.csv", rows=len(rows), link=as_link(written(rows))
        )
        for what, rows in tables.items()
        if rows
    }


def as_link(text: str) -> str:
    """An address that holds a CSV file, with a byte-order mark."""
    return f"data:text/csv;charset=utf-8,{quote(MARK + text)}"


def written(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Rows as a CSV file (RFC 4180): columns that are empty throughout are left out.

    A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    named = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in named if any(row.get(name) not in (None, "") for row in rows)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Cell) -> str | float:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def _trial(row: TrialRow) -> dict[str, Cell]:
    return {field.name: _counted(field.name, getattr(row, field.name)) for field in fields(row)}


def _models(contents: Contents) -> Iterable[dict[str, Cell]]:
    """Students, competitors and the teacher; of chains, what is selected."""
    if contents.chains is not None:
        yield from map(_selected, contents.chains.selected)
    else:
        yield from map(_student, contents.students)
    yield from map(_competitor, contents.competitors)
    if contents.students or contents.chains is not None:
        yield {"model": "teacher", "name": contents.teacher_name, **_figures(contents.teacher)}


def _student(one: Student) -> dict[str, Cell]:
    return {
        "model": f"student {one.rank}",
        "name": "",
        "folder": one.folder,
        **_figures(one.figures),
        "teacher_quality": one.teacher_quality,
        "quality_fraction": one.quality_fraction,
        "teacher_latency_ms": one.teacher_latency_ms,
        "speedup": one.speedup,
        "within_limit": one.within_limit,
        "trial": one.trial,
        "cost_s": one.cost_s,
        "initialisation": one.initialisation,
    }


def _competitor(one: Competitor) -> dict[str, Cell]:
    return {
        "model": f"competitor c{one.number}",
        "name": one.name,
        "folder": one.folder,
        **_figures(one.figures),
        "quality_fraction": one.quality_fraction,
        "teacher_latency_ms": one.teacher_latency_ms,
        "speedup": one.speedup,
        "within_limit": one.within_limit,
    }


def _selected(one: Selected) -> dict[str, Cell]:
    return {
        "model": f"selected {one.number}",
        "name": "",
        "folder": f"selected/{one.number}",
        **_figures(one.figures),
        "flops_fraction": one.flops_fraction,
        "flops": one.flops,
        "speedup": one.speedup,
        "predicted_latency_ms": one.best.predicted_ms,
        "mlm_loss_nats": one.best.mlm_loss,
        "block_loss": one.best.block_loss,
    }


def _figures(figures: Figures) -> dict[str, Cell]:
    return {name: _counted(name, getattr(figures, name)) for name in FIGURE_COLUMNS}


def _counted(name: str, value: Cell) -> Cell:
    """A count without the `.0` of a float."""
    is_whole = name in WHOLE and isinstance(value, float) and value.is_integer()
    return int(value) if is_whole and isinstance(value, float) else value
