"""The front with axes to choose: all trials and finished models with everything known of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from stillhouse.report.axes import Axis, Chooser, Point, Series, chooser
from stillhouse.report.drawing import COMPETITOR, REFERENCE, STUDENT, Json
from stillhouse.report.figures import Figures
from stillhouse.report.front_traces import (
    COMPETITORS,
    FRONT_LOOK,
    INSIDE,
    REFERENCE_LOOK,
    REFERENCES,
    STUDENTS,
    TEACHER_LOOK,
    TRIAL_LOOK,
    UNTRAINED,
    above_and_below,
    front_name,
    numbered_look,
)
from stillhouse.report.gather import Contents
from stillhouse.report.latency_limit import SPEEDUP, LatencyLimit, exact_limit, search_limit
from stillhouse.report.references import Reference
from stillhouse.report.trials import TrialRow, best_trials, trained

FRONT, FINISHED = "front", "finished"
"""Places of the page."""
JUDGED, ON_SEARCH, REPORTED = "judged", "quality_search", "quality"
"""Three qualities: of short trainings by another measure, on search-validation, and on dev."""
LATENCY = "latency_ms"
MILLION = 1e6


def choose_front(contents: Contents) -> dict[str, Chooser]:
    """The choosers of both figures of finished models, by their place."""
    searched = bool(trained(contents.trials))
    apart = searched and contents.judged_by_hidden
    finished = tuple(_finished_series(contents))
    shown = [*_trial_series(contents), *([] if apart else finished), *_reference_series(contents)]
    quality = _trial_quality(contents) if searched else REPORTED
    judged, exact = _axes(contents, search_limit(contents)), exact_limit(contents.limits)
    found = {
        FRONT: chooser(FRONT, judged, (LATENCY, quality), shown),
        FINISHED: chooser(FINISHED, _axes(contents, exact), (LATENCY, REPORTED), finished),
    }
    return {place: one for place, one in found.items() if one is not None}


def _trial_quality(contents: Contents) -> str:
    return JUDGED if contents.judged_by_hidden else ON_SEARCH


def _axes(contents: Contents, limit: LatencyLimit | None) -> list[Axis]:
    metric, asked = contents.metric, contents.limits
    parameters = _fewest_parameters(asked)
    return [
        Axis(name=JUDGED, label=f"{contents.trial_quality}, search-validation", unit="score"),
        Axis(name=ON_SEARCH, label=f"{metric}, search-validation", unit="score"),
        Axis(name=REPORTED, label=f"{metric}, {contents.report_set}", unit="score"),
        Axis(
            name=LATENCY,
            label="latency, ms",
            unit="ms",
            limits=() if limit is None else (limit.value_ms,),
            limit_note="" if limit is None else limit.told,
        ),
        Axis(
            name=SPEEDUP,
            label="speed-up, beside the teacher",
            unit="times",
            limits=_given(asked.get(SPEEDUP)),
        ),
        Axis(name="size_mb", label="size, MB", unit="MB", limits=_given(asked.get("size_mb"))),
        Axis(name="parameters", label="parameters", unit="count", limits=_given(parameters)),
        Axis(
            name="flops_fraction",
            label="FLOPs, share of the teacher’s",
            unit="fraction",
            limits=_given(asked.get("flops_fraction")),
        ),
        Axis(
            name="memory_mb",
            label="peak memory, MB",
            unit="MB",
            limits=_given(asked.get("memory_mb")),
        ),
        Axis(name="reward", label="reward", unit="score"),
        Axis(name="cost_s", label="cost of its training, s", unit="s"),
    ]


def _given(limit: float | None) -> tuple[float, ...]:
    return () if limit is None else (limit,)


def _fewest_parameters(asked: Mapping[str, float]) -> float | None:
    millions = asked.get("params_m")
    told = [asked.get("parameters"), None if millions is None else MILLION * millions]
    return min((limit for limit in told if limit is not None), default=None)


def _trial_series(contents: Contents) -> Iterator[Series]:
    """Trained trials, those of the front apart, and the others by what became of them."""
    quality, rows = _trial_quality(contents), trained(contents.trials)
    best = best_trials(contents.trials, contents.compared_by)
    numbers = {row.number for row in best}
    others = [row for row in rows if row.number not in numbers]
    yield _series("trials", [_of_trial(row, quality) for row in others], TRIAL_LOOK)
    named = front_name(contents.compared_by)
    yield _series(named, [_of_trial(row, quality) for row in best], FRONT_LOOK)
    for state, (name, symbol, color) in UNTRAINED.items():
        left = [row for row in contents.trials if row.state == state and row.repeat_of is None]
        marker: Mapping[str, Json] = {"color": color, "size": 8, "symbol": symbol}
        yield _series(name, [_of_trial(row, quality) for row in left], marker)


def _reference_series(contents: Contents) -> Iterator[Series]:
    quality = _trial_quality(contents)
    points = contents.references.points
    shown = [_of_reference(one, quality) for one in points]
    font: Mapping[str, Json] = {"color": REFERENCE, "size": 12}
    sides = above_and_below([one.latency_ms or 0.0 for one in points])
    yield _series(REFERENCES, shown, REFERENCE_LOOK, font=font, textposition=sides)


def _finished_series(contents: Contents) -> Iterator[Series]:
    students = [
        _of_model(
            f"<b>student {one.rank}</b>",
            one.figures,
            str(one.rank),
            cost_s=one.cost_s,
            speedup=one.speedup,
        )
        for one in contents.students
    ]
    rivals = [
        _of_model(
            f"<b>competitor c{one.number}</b> {escape(one.name)}",
            one.figures,
            f"c{one.number}",
            speedup=one.speedup,
        )
        for one in contents.competitors
    ]
    yield _series(STUDENTS, students, numbered_look(STUDENT, "circle"), font=INSIDE)
    yield _series(COMPETITORS, rivals, numbered_look(COMPETITOR, "square"), font=INSIDE)
    teacher = _of_model(f"<b>teacher</b> {escape(contents.teacher_name)}", contents.teacher)
    whole = {**teacher.values, "flops_fraction": 1.0, SPEEDUP: 1.0}
    known = any(value is not None for value in teacher.values.values())
    told = Point(head=teacher.head, values=whole, low=teacher.low, high=teacher.high)
    yield _series("teacher", [told] if known else [], TEACHER_LOOK)


def _series(
    name: str,
    points: Sequence[Point],
    marker: Mapping[str, Json],
    *,
    font: Mapping[str, Json] | None = None,
    textposition: str | Sequence[str] = "middle center",
) -> Series:
    look: dict[str, Json] = {"type": "scatter", "mode": "markers", "name": name, "marker": marker}
    if font is not None:
        look.update(mode="markers+text", textfont=font, textposition=textposition)
    return Series(look=look, points=tuple(points))


def _of_trial(row: TrialRow, quality: str) -> Point:
    lines = [f"<b>trial {row.number}</b> {escape(row.state)}", escape(row.architecture)]
    if row.reason:
        lines.append(escape(row.reason[:120]))
    return Point(
        head="<br>".join(lines),
        values={
            quality: row.quality,
            LATENCY: row.latency_ms,
            "size_mb": row.size_mb,
            "parameters": row.parameters,
            "flops_fraction": row.flops_fraction,
            "memory_mb": row.memory_mb,
            "reward": row.reward,
            "cost_s": row.cost_s,
        },
    )


def _of_reference(one: Reference, quality: str) -> Point:
    return Point(
        head=f"<b>{escape(one.name)}</b> hand-crafted<br>{escape(one.architecture)}",
        values={
            quality: one.quality,
            LATENCY: one.latency_ms,
            "size_mb": one.size_mb,
            "parameters": one.parameters,
            "flops_fraction": one.flops_fraction,
            SPEEDUP: one.speedup,
        },
        low={LATENCY: one.latency_low_ms},
        high={LATENCY: one.latency_high_ms},
        text=escape(one.name),
    )


def _of_model(
    head: str,
    figures: Figures,
    text: str = "",
    *,
    cost_s: float | None = None,
    speedup: float | None = None,
) -> Point:
    told = f"{head}<br>{escape(figures.architecture)}" if figures.architecture else head
    return Point(
        head=told,
        values={
            ON_SEARCH: figures.quality_search,
            REPORTED: figures.quality,
            LATENCY: figures.latency_ms,
            "size_mb": figures.size_mb,
            "parameters": figures.parameters,
            "flops_fraction": figures.flops_fraction,
            "memory_mb": figures.memory_mb,
            SPEEDUP: speedup,
            "cost_s": cost_s,
        },
        low={REPORTED: figures.quality_low, LATENCY: figures.latency_low_ms},
        high={REPORTED: figures.quality_high, LATENCY: figures.latency_high_ms},
        text=text,
    )
