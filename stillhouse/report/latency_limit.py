"""Where a limit on the latency stands among the trials of a search.

A speed-up is judged for each trial against the teacher as timed in turn with it, so no latency
is its limit exactly: the nearest is what the search knew of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.report.gather import Contents
from stillhouse.report.objectives import LATENCY

SPEEDUP = "speedup"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyLimit:
    """A line in a figure; `told` stands beside it, plain text."""

    value_ms: float
    told: str


def exact_limit(limits: Mapping[str, float]) -> LatencyLimit | None:
    """The limit on the latency itself, which holds for every model and occasion."""
    asked_ms = limits.get(LATENCY)
    return None if asked_ms is None else LatencyLimit(value_ms=asked_ms, told=_told(asked_ms))


def search_limit(contents: Contents) -> LatencyLimit | None:
    """The nearer of the limit on the latency and that of a speed-up as of the search.

    None where neither is known, as where a search did not record what the teacher took in it.
    """
    exact, speedup = exact_limit(contents.limits), contents.limits.get(SPEEDUP)
    teacher_ms = _searched_teacher_ms(contents)
    if not speedup or not teacher_ms:
        return exact
    value_ms = teacher_ms / speedup
    if exact is not None and exact.value_ms <= value_ms:
        return exact
    return LatencyLimit(value_ms=value_ms, told=f"{_told(value_ms)} as of the search")


def limit_basis(contents: Contents) -> str:
    """What the line of a speed-up rests on, or why it has none; empty without such a limit."""
    speedup = contents.limits.get(SPEEDUP)
    if not speedup or not contents.trials:
        return ""
    teacher_ms = _searched_teacher_ms(contents)
    judged = "each trial was judged by the teacher’s latency as timed in turn with it"
    if not teacher_ms:
        return f"The limit of {speedup:g}× the teacher’s speed has no line: {judged}."
    return (
        f"The limit of {speedup:g}× the teacher’s speed is {teacher_ms / speedup:.3g} ms at the "
        f"teacher’s {teacher_ms:.3g} ms when the search first timed it; {judged}, and with the "
        "far end of its own interval, so a mark may lie on the other side of that."
    )


def _searched_teacher_ms(contents: Contents) -> float | None:
    known = contents.hypervolume
    return None if known is None else known.costs.get(LATENCY)


def _told(value_ms: float) -> str:
    return f"limit {value_ms:.3g} ms"
