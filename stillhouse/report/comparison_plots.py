"""The figures of a comparison, as plain data that plotly.js draws: a colour for each method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from stillhouse.report.comparing import ComparedRun, Method, Model
from stillhouse.report.comparison import Comparison
from stillhouse.report.comparison_costs import CostScale, cost_head, cost_told
from stillhouse.report.comparison_volume import Course, Volume, trial_points
from stillhouse.report.drawing import (
    COMPETITOR,
    FRONT,
    LIMIT,
    PAPER,
    REFERENCE,
    STUDENT,
    TEACHER,
    Json,
    axis,
    layout,
    limit_line,
    points,
)

COLORS = (FRONT, STUDENT, REFERENCE, COMPETITOR, LIMIT)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot")
BAND = 0.15
"""Opacity of the range over seeds."""
UNITS = {"latency_ms": "ms", "size_mb": "MB", "flops_fraction": "of the teacher’s", "params_m": "M"}


def draw_comparison(comparison: Comparison) -> dict[str, Json]:
    """The figures that there are, by the id of their place on the page."""
    drawn = {
        "finished": _draw_finished(comparison),
        "fronts": _draw_fronts(comparison),
        "by-candidates": _draw_volumes(comparison, by_time=False),
        "by-seconds": _draw_volumes(comparison, by_time=True),
    }
    return {place: figure for place, figure in drawn.items() if figure is not None}


def color_of(place: int) -> str:
    """The colour of a method by its place in the comparison."""
    return COLORS[place % len(COLORS)]


def _marker(place: int, size: int) -> dict[str, Json]:
    symbol = SYMBOLS[place % len(SYMBOLS)]
    return {"color": color_of(place), "size": size, "symbol": symbol}


def _line(place: int) -> dict[str, Json]:
    dash = DASHES[place // len(COLORS) % len(DASHES)]
    return {"color": color_of(place), "width": 2, "dash": dash, "shape": "hv"}


def _cost_axis(scale: CostScale) -> dict[str, Json]:
    unit = UNITS[scale.name]
    title = axis(f"{cost_head(scale.name).partition(',')[0].lower()}, {unit} (less is better)")
    return {**title, "rangemode": "tozero"}


def _draw_finished(comparison: Comparison) -> dict[str, Json] | None:
    """Finished students of all methods, with both intervals, and the teachers."""
    scale, traces = comparison.scale, []
    for place, method in enumerate(comparison.methods):
        shown = [
            (run, model)
            for run in method.runs
            for model in run.models
            if model.figures.quality is not None and scale.of_model(model) is not None
        ]
        if shown:
            traces.append(_finished_trace(place, method, shown, scale))
    if not traces:
        return None
    traces += _teacher_trace(comparison)
    drawn = layout(_cost_axis(scale), axis(f"{escape(comparison.metric)}, {comparison.report_set}"))
    bounds = [line.limit[scale.name] for line in comparison.lines if scale.name in line.limit]
    if scale.name == "latency_ms" and scale.teacher_ms is not None:
        factors = [line.limit["speedup"] for line in comparison.lines if "speedup" in line.limit]
        bounds += [scale.teacher_ms / factor for factor in factors]
    drawn["shapes"] = [limit_line(bound) for bound in bounds]
    return {"data": traces, "layout": drawn}


def _finished_trace(
    place: int, method: Method, shown: Sequence[tuple[ComparedRun, Model]], scale: CostScale
) -> dict[str, Json]:
    outlined: Json = {"color": PAPER, "width": 1.5}
    marker = {**_marker(place, 13), "line": outlined}
    models = [model for _, model in shown]
    trace = points(
        escape(method.name),
        x=[scale.of_model(model) for model in models],
        y=[model.figures.quality for model in models],
        hover=[_model_hover(method, run, model, scale) for run, model in shown],
        marker=marker,
    )
    qualities = [
        (one.figures.quality, one.figures.quality_low, one.figures.quality_high) for one in models
    ]
    trace["error_y"] = _bars(qualities, color_of(place))
    if scale.name == "latency_ms":
        ends = [
            (
                scale.of_model(one),
                scale.timed(one, one.figures.latency_low_ms),
                scale.timed(one, one.figures.latency_high_ms),
            )
            for one in models
        ]
        trace["error_x"] = _bars(ends, color_of(place))
    return trace


def _bars(figures: Sequence[tuple[float | None, float | None, float | None]], color: str) -> Json:
    """Error bars from values and the ends of their intervals; none where an end is unknown."""

    def reach(value: float | None, end: float | None) -> float:
        return 0.0 if value is None or end is None else abs(end - value)

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(value, high) for value, _, high in figures],
        "arrayminus": [reach(value, low) for value, low, _ in figures],
        "color": color,
        "thickness": 1.5,
        "width": 3,
    }


def _teacher_trace(comparison: Comparison) -> list[dict[str, Json]]:
    """The teachers, at the costs that they have on the common scale."""
    scale = comparison.scale
    shown = [
        (run, run.teacher.figures.quality)
        for method in comparison.methods
        for run in method.runs
        if run.teacher is not None and run.teacher.figures.quality is not None
    ]
    if (
        not shown
        or scale.reference is None
        or (scale.name == "latency_ms" and scale.teacher_ms is None)
    ):
        return []
    return [
        points(
            "teacher" if len(shown) == 1 else "teachers",
            x=[scale.reference] * len(shown),
            y=[quality for _, quality in shown],
            hover=[f"<b>teacher</b> of {escape(str(run.path))}" for run, _ in shown],
            marker={"color": TEACHER, "size": 11, "symbol": "diamond-open"},
        )
    ]


def _model_hover(method: Method, run: ComparedRun, model: Model, scale: CostScale) -> str:
    figures = model.figures
    lines = [
        f"<b>{escape(method.name)}</b>, {escape(model.name)} of {escape(str(run.path))}",
        escape(figures.architecture),
        f"{figures.quality:.4f} on {figures.report_set}",
        cost_told(scale.name, scale.of_model(model)),
    ]
    return "<br>".join(line for line in lines if line)


def _draw_fronts(comparison: Comparison) -> dict[str, Json] | None:
    """The fronts of all searches over one another, on search-validation, a line for each run."""
    traces = [
        trace
        for place, method in enumerate(comparison.methods)
        for trace in _front_traces(place, method, comparison)
    ]
    if not traces:
        return None
    quality = axis(f"{escape(comparison.metric)}, search-validation")
    return {"data": traces, "layout": layout(_cost_axis(comparison.scale), quality)}


def _front_traces(place: int, method: Method, comparison: Comparison) -> Iterator[dict[str, Json]]:
    name, scale = escape(method.name), comparison.scale
    shown = False
    for run in method.runs:
        if run.contents.judged_by_hidden:
            continue
        known = [one for one in trial_points(run, scale) if one is not None]
        if not known:
            continue
        front = _front(known)
        hover = f"<b>{name}</b>, {escape(str(run.path))}"
        dots = points(
            name,
            x=[cost for _, cost in known],
            y=[quality for quality, _ in known],
            hover=[_point_hover(hover, one, scale) for one in known],
            marker={**_marker(place, 6), "opacity": 0.35},
        )
        steps = points(
            name,
            x=[cost for _, cost in front],
            y=[quality for quality, _ in front],
            hover=[_point_hover(hover, one, scale) for one in front],
            marker=_marker(place, 9),
        )
        steps.update(mode="lines+markers", line=_line(place), legendgroup=str(place))
        dots.update(showlegend=False, legendgroup=str(place))
        steps["showlegend"] = not shown
        shown = True
        yield dots
        yield steps


def _point_hover(head: str, point: tuple[float, float], scale: CostScale) -> str:
    quality, cost = point
    return f"{head}<br>{quality:.4f} (search-validation)<br>{cost_told(scale.name, cost)}"


def _front(known: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats in quality and cost, cheapest first."""
    front: list[tuple[float, float]] = []
    for quality, cost in sorted(known, key=lambda one: (one[1], -one[0])):
        if not front or quality > front[-1][0]:
            front.append((quality, cost))
    return front


def _draw_volumes(comparison: Comparison, *, by_time: bool) -> dict[str, Json] | None:
    """Hypervolume against candidates or time: a line for each method, its range over seeds."""
    volumes = comparison.volumes
    if volumes is None or not any(one.courses for one in volumes.each):
        return None
    traces: list[dict[str, Json]] = []
    for place, volume in enumerate(volumes.each):
        if volume.courses:
            traces += _volume_traces(place, volume, by_time=by_time)
    title = "time of the candidates, s" if by_time else "trained candidates"
    drawn = layout({**axis(title), "rangemode": "tozero"}, axis("hypervolume of the trials"))
    drawn["legend"] = {"orientation": "h", "x": 0, "y": -0.26, "yanchor": "top"}
    end = volumes.seconds if by_time else float(volumes.candidates)
    if end:
        drawn["shapes"] = [limit_line(end)]
    return {"data": traces, "layout": drawn}


def _volume_traces(place: int, volume: Volume, *, by_time: bool) -> list[dict[str, Json]]:
    grid = _grid(volume.courses, by_time=by_time)
    rows = np.array(
        [
            [course.within(at) if by_time else course.after(int(at)) for at in grid]
            for course in volume.courses
        ]
    )
    name = escape(volume.method)
    mean = rows.mean(axis=0)
    unit = "s" if by_time else "candidates"
    several = f" (mean of {len(rows)})" if len(rows) > 1 else ""
    line = points(
        f"{name}{several}",
        x=grid,
        y=mean.tolist(),
        hover=[
            f"<b>{name}</b><br>{at:.4g} {unit}<br>{one:.4f}"
            for at, one in zip(grid, mean, strict=True)
        ],
        marker=_marker(place, 5),
    )
    line.update(mode="lines+markers", line=_line(place), legendgroup=str(place))
    if len(rows) == 1:
        return [line]
    ends = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": grid,
            "y": row.tolist(),
            "line": {"color": color_of(place), "width": 0.5, "shape": "hv"},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": str(place),
        }
        for row in (rows.min(axis=0), rows.max(axis=0))
    ]
    channels = ", ".join(str(int(color_of(place)[at : at + 2], 16)) for at in (1, 3, 5))
    ends[1] |= {"fill": "tonexty", "fillcolor": f"rgba({channels}, {BAND})"}
    return [*ends, line]


def _grid(courses: Sequence[Course], *, by_time: bool) -> list[float]:
    """Where a curve has a point: from where every seed has one up to where the first one ends."""
    if not by_time:
        return [float(count) for count in range(1, min(len(one.volumes) for one in courses) + 1)]
    first, last = max(one.seconds[0] for one in courses), min(one.seconds[-1] for one in courses)
    return sorted({at for one in courses for at in one.seconds if first <= at <= last})
