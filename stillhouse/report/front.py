"""The front of quality × latency, as plain data that plotly.js draws.

Trials are compared on the search-validation set, so students and teacher stand at their figures
on the same set; a run without trials (one student, no search) is drawn on dev instead.
Every text goes through `html.escape`: plotly reads its own small HTML in hovers and titles.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TypeAlias

from stillhouse.report.gather import Contents, Figures, Student, TrialRow

Json: TypeAlias = "str | float | Sequence[Json] | Mapping[str, Json] | None"

INK, MUTED, GRID = "#1f2933", "#66727f", "#e6eaee"
TRIED, FRONT, STUDENT, TEACHER, LIMIT = "#9aa5b1", "#2364aa", "#d1495b", "#1f2933", "#b7791f"
UNTRAINED = {
    "infeasible": ("over a limit", "x", "#b7791f"),
    "failed": ("failed", "x", "#a61b1b"),
    "running": ("unfinished", "circle-open", "#66727f"),
}
LOG_FROM_RATIO = 12  # a linear axis squeezes the fast students once the range is wider than this
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def trained(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Complete trials with both figures, without repeats."""
    return [
        trial
        for trial in trials
        if trial.state == "complete"
        and trial.repeat_of is None
        and trial.quality is not None
        and trial.latency_ms is not None
    ]


def best_trials(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Trials that no other beats in both quality and latency, fastest first."""
    front: list[TrialRow] = []
    best_quality = float("-inf")
    for trial in sorted(trained(trials), key=lambda t: (t.latency_ms or 0.0, -(t.quality or 0.0))):
        if trial.quality is not None and trial.quality > best_quality:
            front.append(trial)
            best_quality = trial.quality
    return front


def draw_front(contents: Contents) -> dict[str, Json] | None:
    """The figure (`data`, `layout`), or None while there is nothing with a latency to draw."""
    searched = bool(trained(contents.trials))
    upper = [
        *_trial_traces(contents.trials),
        *_student_trace(contents.students, searched=searched),
        *_teacher_trace(contents, searched=searched),
    ]
    lower = _untrained_traces(contents.trials)
    if not upper and not lower:
        return None
    return {
        "data": [*upper, *lower],
        "layout": _layout(contents, [*upper, *lower], searched=searched, strip=bool(lower)),
    }


def _trial_traces(trials: Sequence[TrialRow]) -> list[dict[str, Json]]:
    rows, front = trained(trials), best_trials(trials)
    if not rows:
        return []
    others = [row for row in rows if row not in front]
    dots = _points("trials", others, {"color": TRIED, "size": 9, "opacity": 0.75})
    line = _points("best trials (front)", front, {"color": FRONT, "size": 11})
    line.update(mode="lines+markers", line={"color": FRONT, "width": 2, "shape": "hv"})
    return [dots, line] if others else [line]


def _points(name: str, rows: Sequence[TrialRow], marker: Mapping[str, Json]) -> dict[str, Json]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row.latency_ms for row in rows],
        "y": [row.quality for row in rows],
        "hovertext": [_trial_hover(row) for row in rows],
        "hoverinfo": "text",
        "marker": marker,
    }


def _untrained_traces(trials: Sequence[TrialRow]) -> list[dict[str, Json]]:
    """Trials that have a latency and no quality, in a strip below the front."""
    traces = []
    for state, (name, symbol, color) in UNTRAINED.items():
        rows = [
            trial
            for trial in trials
            if trial.state == state and trial.repeat_of is None and trial.latency_ms is not None
        ]
        if rows:
            trace = _points(name, rows, {"color": color, "size": 8, "symbol": symbol})
            traces.append({**trace, "y": [name] * len(rows), "yaxis": "y2"})
    return traces


def _student_trace(students: Sequence[Student], *, searched: bool) -> list[dict[str, Json]]:
    shown = [
        (student, quality)
        for student in students
        if (quality := _quality(student.figures, searched=searched)) is not None
        and student.figures.latency_ms is not None
    ]
    if not shown:
        return []
    trace: dict[str, Json] = {
        "type": "scatter",
        "mode": "markers+text",
        "name": "students, distilled in full",
        "x": [student.figures.latency_ms for student, _ in shown],
        "y": [quality for _, quality in shown],
        "text": [str(student.rank) for student, _ in shown],
        "textfont": {"color": "#ffffff", "size": 11},
        "hovertext": [_student_hover(student) for student, _ in shown],
        "hoverinfo": "text",
        "marker": {
            "color": STUDENT,
            "size": 19,
            "symbol": "circle",
            "line": {"color": "#ffffff", "width": 1.5},
        },
    }
    if not searched:
        trace["error_y"] = _intervals([student.figures for student, _ in shown])
    return [trace]


def _intervals(shown: Sequence[Figures]) -> Json:
    def reach(end: float | None, quality: float | None) -> float:
        return 0.0 if end is None or quality is None else abs(end - quality)

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(figures.quality_high, figures.quality) for figures in shown],
        "arrayminus": [reach(figures.quality_low, figures.quality) for figures in shown],
        "color": STUDENT,
        "thickness": 1.5,
    }


def _teacher_trace(contents: Contents, *, searched: bool) -> list[dict[str, Json]]:
    teacher = contents.teacher
    quality = _quality(teacher, searched=searched)
    if quality is None or teacher.latency_ms is None:
        return []
    hover = [f"<b>teacher</b> {escape(contents.teacher_name)}", *_model_lines(teacher)]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "teacher",
            "x": [teacher.latency_ms],
            "y": [quality],
            "hovertext": ["<br>".join(hover)],
            "hoverinfo": "text",
            "marker": {"color": TEACHER, "size": 15, "symbol": "diamond"},
        }
    ]


def _quality(figures: Figures, *, searched: bool) -> float | None:
    return figures.quality_search if searched else figures.quality


def _trial_hover(row: TrialRow) -> str:
    lines = [f"<b>trial {row.number}</b> {escape(row.state)}", escape(row.architecture)]
    if row.quality is not None:
        lines.append(f"quality {row.quality:.4f} (search-validation)")
    if row.latency_ms is not None:
        lines.append(f"{row.latency_ms:.3g} ms")
    if row.parameters is not None:
        lines.append(f"{row.parameters:,.0f} parameters")
    if row.reason:
        lines.append(escape(row.reason[:120]))
    return "<br>".join(lines)


def _student_hover(student: Student) -> str:
    head = f"<b>student {student.rank}</b>"
    if student.trial is not None:
        head += f" from trial {student.trial}"
    return "<br>".join([head, *_model_lines(student.figures)])


def _model_lines(figures: Figures) -> list[str]:
    lines = [escape(figures.architecture)] if figures.architecture else []
    if figures.quality is not None:
        lines.append(f"{escape(figures.metric)} {figures.quality:.4f} on dev")
    if figures.quality_search is not None:
        lines.append(f"{escape(figures.metric)} {figures.quality_search:.4f} (search-validation)")
    if figures.latency_ms is not None:
        lines.append(f"{figures.latency_ms:.3g} ms")
    return lines


def _layout(
    contents: Contents, traces: Sequence[Mapping[str, Json]], *, searched: bool, strip: bool
) -> dict[str, Json]:
    measured_on = "search-validation" if searched else "dev"
    limit = contents.latency_limit_ms
    floor = 0.22 if strip else 0.0
    layout: dict[str, Json] = {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "margin": {"l": 62, "r": 18, "t": 24, "b": 52},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#ffffff", "bordercolor": MUTED, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "xaxis": {
            **_axis("latency, ms (median; less is better)"),
            **_latency_scale(traces, limit),
            "anchor": "y2" if strip else "y",
        },
        "yaxis": {
            **_axis(f"{escape(contents.metric)}, {measured_on}"),
            "domain": [floor, 1.0],
        },
        "shapes": [] if limit is None else [_limit_line(limit)],
        "annotations": []
        if limit is None
        else [_limit_note(limit, is_log=_spans_log(traces, limit))],
    }
    if strip:
        layout["yaxis2"] = {
            **_axis(""),
            "type": "category",
            "domain": [0.0, floor - 0.06],
            "automargin": True,
            "tickfont": {"size": 11, "color": MUTED},
        }
    return layout


def _axis(title: str) -> dict[str, Json]:
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}},
        "gridcolor": GRID,
        "linecolor": MUTED,
        "zeroline": False,
        "ticks": "outside",
        "tickcolor": GRID,
    }


def _latencies(traces: Sequence[Mapping[str, Json]], limit: float | None) -> list[float]:
    found = [] if limit is None else [limit]
    for trace in traces:
        values = trace["x"]
        if isinstance(values, Sequence):
            found.extend(value for value in values if isinstance(value, int | float) and value > 0)
    return found


def _spans_log(traces: Sequence[Mapping[str, Json]], limit: float | None) -> bool:
    found = _latencies(traces, limit)
    return bool(found) and max(found) > LOG_FROM_RATIO * min(found)


def _latency_scale(traces: Sequence[Mapping[str, Json]], limit: float | None) -> dict[str, Json]:
    if not _spans_log(traces, limit):
        return {"type": "linear", "rangemode": "tozero"}
    ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _limit_line(limit_ms: float) -> Json:
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": limit_ms,
        "x1": limit_ms,
        "y0": 0,
        "y1": 1,
        "line": {"color": LIMIT, "width": 1.5, "dash": "dash"},
    }


def _limit_note(limit_ms: float, *, is_log: bool) -> Json:
    return {
        "xref": "x",
        "yref": "paper",
        "x": math.log10(limit_ms) if is_log else limit_ms,
        "y": 1.0,
        "xanchor": "right",
        "yanchor": "top",
        "textangle": -90,
        "showarrow": False,
        "text": f"limit {limit_ms:.3g} ms",
        "font": {"size": 11, "color": LIMIT},
    }
