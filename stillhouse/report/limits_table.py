"""The table of limits: for every student a line for each, what was asked and what it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from stillhouse.report import wording
from stillhouse.report.fields import Fields
from stillhouse.report.gather import Contents
from stillhouse.report.limits import Limited, read_limited

EXACT = 0.0005
"""Of a limit: what is nearer to it than that is at it, in percent with one decimal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitLine:
    """A line in words; `is_met` is None where the value is not known, `how` is empty then."""

    student: str
    is_competitor: bool
    asked: str
    value: str
    interval: str
    how: str
    is_met: bool | None
    margin: str


def limit_lines(contents: Contents) -> list[LimitLine]:
    """The lines of all finished students, by their number; empty where none had a limit."""
    return [
        _line(student, one, is_competitor=is_competitor)
        for student, is_competitor, several in _of_students(contents)
        for one in several
    ]


def lines_of(student: str, metrics: Fields) -> list[LimitLine]:
    """The lines of one student.

    Args:
        student: What it is called.
        metrics: Content of its metrics.json, or of its selected.json.
    """
    return [_line(student, one, is_competitor=False) for one in read_limited(metrics)]


def _of_students(contents: Contents) -> Iterator[tuple[str, bool, tuple[Limited, ...]]]:
    """Students by name, whether they are competitors, and their limits."""
    if contents.chains is not None:
        for selected in contents.chains.selected:
            yield str(selected.number), False, selected.limited
        return
    searches = () if contents.family is None else contents.family.searches
    for search in searches:
        student = contents.chosen(search)
        own = () if student is None else student.limited
        is_of_search = {one.name: one.asked for one in own} == search.limits
        yield wording.whole(search.student), False, search.limited or (own if is_of_search else ())
    if not searches:
        for student in contents.students:
            yield str(student.rank), False, student.limited
    for rival in contents.competitors:
        yield f"c{rival.number}", True, rival.limited


def _line(student: str, one: Limited, *, is_competitor: bool) -> LimitLine:
    return LimitLine(
        student=student,
        is_competitor=is_competitor,
        asked=wording.limit(one.name, one.asked),
        value=_told(one.name, one.value),
        interval=_interval(one),
        how=one.how,
        is_met=None if one.over is None else one.over <= 0,
        margin=_margin(one),
    )


def _told(name: str, value: float | None) -> str:
    if value is None:
        return "not known"
    if name == "parameters":
        return wording.whole(value)
    told = {
        "latency_ms": wording.milliseconds,
        "speedup": wording.times_exactly,
        "size_mb": wording.megabytes,
        "memory_mb": wording.megabytes,
        "flops_fraction": wording.percent,
    }
    return told[name](value) if name in told else f"{value:.4g} M"


def _interval(one: Limited) -> str:
    if one.low is None or one.high is None or one.low == one.high:
        return ""
    return f"{_told(one.name, one.low)} to {_told(one.name, one.high)}"


def _margin(one: Limited) -> str:
    """By how much a limit is met or missed; of a latency, by the end of the interval."""
    if one.over is None:
        return ""
    if abs(one.over) < EXACT:
        return "met exactly" if one.over <= 0 else "missed by less than 0.1 %"
    return f"{'met' if one.over <= 0 else 'missed'} by {wording.percent(abs(one.over))}"
