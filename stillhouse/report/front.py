"""The front of quality × latency, as plain data that plotly.js draws.

Trials are compared on the search-validation set, so finished models stand at their figures on the
same set; a run without trials (one student, no search) is drawn on dev instead. Finished models
are drawn on dev, which chose none of them, a second time where that comparison is the point: beside
competitors, or where trials were judged by something else than the metric.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import chain

from stillhouse.report import drawing, wording
from stillhouse.report.drawing import (
    COMPETITOR,
    FAILED,
    FRONT,
    LIMIT,
    MUTED,
    PAPER,
    REFERENCE,
    STUDENT,
    TEACHER,
    TRIED,
    Json,
    axis,
    limit_line,
    limit_note,
    points,
)
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Competitor, Contents, Student
from stillhouse.report.objectives import TWO, Names, value
from stillhouse.report.references import Reference
from stillhouse.report.trials import TrialRow, best_trials, trained

UNTRAINED = {
    "stopped": ("stopped early", "triangle-down", TRIED),
    "infeasible": ("over a limit", "x", LIMIT),
    "failed": ("failed", "x", FAILED),
    "running": ("unfinished", "circle-open", MUTED),
}
LOG_FROM_RATIO = 12  # a linear axis squeezes the fast students once the range is wider than this


def draw_front(contents: Contents) -> dict[str, Json] | None:
    """The figure (`data`, `layout`), or None while there is nothing with a latency to draw."""
    searched = bool(trained(contents.trials))
    apart = searched and contents.judged_by_hidden  # finished models have another scale then
    finished = () if apart else _finished_traces(contents, searched=searched)
    upper = [*_trial_traces(contents), *finished, *_reference_trace(contents)]
    lower = _untrained_traces(contents)
    if not upper and not lower:
        return None
    examples = "search-validation" if searched else contents.report_set
    quality = f"{escape(contents.trial_quality)}, {examples}"
    return {
        "data": [*upper, *lower],
        "layout": _layout(contents, [*upper, *lower], quality, strip=bool(lower)),
    }


def draw_finished(contents: Contents) -> dict[str, Json] | None:
    """Finished models alone, on dev with intervals; None where the front shows that or suffices."""
    if not trained(contents.trials) or not (contents.competitors or contents.judged_by_hidden):
        return None
    traces = list(_finished_traces(contents, searched=False))
    if not traces:
        return None
    quality = f"{escape(contents.metric)}, {contents.report_set}"
    return {"data": traces, "layout": _layout(contents, traces, quality, strip=False)}


def _finished_traces(contents: Contents, *, searched: bool) -> Iterable[dict[str, Json]]:
    return chain(
        _student_trace(contents.students, searched=searched),
        _competitor_trace(contents.competitors, searched=searched),
        _teacher_trace(contents, searched=searched),
    )


def _trial_traces(contents: Contents) -> list[dict[str, Json]]:
    """All trials, those of the front apart; a line joins these where the plot shows why."""
    names, further = contents.compared_by, contents.further
    rows, front = trained(contents.trials), best_trials(contents.trials, names)
    others = [row for row in rows if row not in front]
    dots = _points("trials", others, further, {"color": TRIED, "size": 9, "opacity": 0.75})
    best = _points("best trials (front)", front, further, {"color": FRONT, "size": 11})
    if names == TWO:
        best.update(mode="lines+markers", line={"color": FRONT, "width": 2, "shape": "hv"})
    else:
        best["name"] = f"front in {wording.objectives(names)}"
    return [trace for trace in (dots, best) if trace["x"]]


def _points(
    name: str, rows: Sequence[TrialRow], further: Names, marker: Mapping[str, Json]
) -> dict[str, Json]:
    return points(
        name,
        x=[row.latency_ms for row in rows],
        y=[row.quality for row in rows],
        hover=[_trial_hover(row, further) for row in rows],
        marker=marker,
    )


def _reference_trace(contents: Contents) -> list[dict[str, Json]]:
    """Hand-crafted architectures that were judged as the trials were, each with its name."""
    shown = [one for one in contents.references.points if one.is_drawn]
    if not shown:
        return []
    trace = points(
        "hand-crafted, judged as the trials",
        x=[one.latency_ms for one in shown],
        y=[one.quality for one in shown],
        hover=[_reference_hover(one, contents.further) for one in shown],
        marker={"color": REFERENCE, "size": 13, "symbol": "triangle-up"},
    )
    trace.update(
        mode="markers+text",
        text=[escape(one.name) for one in shown],
        textposition="top center",
        textfont={"color": REFERENCE, "size": 12},
        cliponaxis=False,
    )
    return [trace]


def _untrained_traces(contents: Contents) -> list[dict[str, Json]]:
    """Trials that have a latency and no quality, in a strip below the front."""
    traces = []
    for state, (name, symbol, color) in UNTRAINED.items():
        rows = [
            trial
            for trial in contents.trials
            if trial.state == state and trial.repeat_of is None and trial.latency_ms is not None
        ]
        if rows:
            marker: Mapping[str, Json] = {"color": color, "size": 8, "symbol": symbol}
            trace = _points(name, rows, contents.further, marker)
            traces.append({**trace, "y": [name] * len(rows), "yaxis": "y2"})
    return traces


def _student_trace(students: Sequence[Student], *, searched: bool) -> list[dict[str, Json]]:
    shown = [student for student in students if _is_drawn(student.figures, searched=searched)]
    if not shown:
        return []
    trace = _finished(
        "students, distilled in full", [student.figures for student in shown], searched=searched
    )
    trace["text"] = [str(student.rank) for student in shown]
    trace["hovertext"] = [_student_hover(student) for student in shown]
    return [trace]


def _competitor_trace(
    competitors: Sequence[Competitor], *, searched: bool
) -> list[dict[str, Json]]:
    shown = [rival for rival in competitors if _is_drawn(rival.figures, searched=searched)]
    if not shown:
        return []
    trace = _finished(
        "competitors, distilled in full",
        [rival.figures for rival in shown],
        searched=searched,
        color=COMPETITOR,
        symbol="square",
    )
    trace["text"] = [f"c{rival.number}" for rival in shown]
    trace["hovertext"] = [_competitor_hover(rival) for rival in shown]
    return [trace]


def _finished(
    name: str,
    shown: Sequence[Figures],
    *,
    searched: bool,
    color: str = STUDENT,
    symbol: str = "circle",
) -> dict[str, Json]:
    """Models with a short text inside their marker; dev has an interval, search-validation none."""
    trace = points(
        name,
        x=[figures.latency_ms for figures in shown],
        y=[_quality(figures, searched=searched) for figures in shown],
        hover=[],
        marker={
            "color": color,
            "size": 19,
            "symbol": symbol,
            "line": {"color": PAPER, "width": 1.5},
        },
    )
    trace.update(mode="markers+text", textfont={"color": PAPER, "size": 11})
    if not searched:
        trace["error_y"] = _intervals(shown, color)
    return trace


def _is_drawn(figures: Figures, *, searched: bool) -> bool:
    return _quality(figures, searched=searched) is not None and figures.latency_ms is not None


def _intervals(shown: Sequence[Figures], color: str) -> Json:
    def reach(end: float | None, quality: float | None) -> float:
        return 0.0 if end is None or quality is None else abs(end - quality)

    return {
        "type": "data",
        "symmetric": False,
        "array": [reach(figures.quality_high, figures.quality) for figures in shown],
        "arrayminus": [reach(figures.quality_low, figures.quality) for figures in shown],
        "color": color,
        "thickness": 1.5,
    }


def _teacher_trace(contents: Contents, *, searched: bool) -> list[dict[str, Json]]:
    teacher = contents.teacher
    if not _is_drawn(teacher, searched=searched):
        return []
    hover = [f"<b>teacher</b> {escape(contents.teacher_name)}", *_model_lines(teacher)]
    trace = points(
        "teacher",
        x=[teacher.latency_ms],
        y=[_quality(teacher, searched=searched)],
        hover=["<br>".join(hover)],
        marker={"color": TEACHER, "size": 15, "symbol": "diamond"},
    )
    if not searched:
        trace["error_y"] = _intervals([teacher], TEACHER)
    return [trace]


def _quality(figures: Figures, *, searched: bool) -> float | None:
    return figures.quality_search if searched else figures.quality


def _trial_hover(row: TrialRow, further: Names) -> str:
    lines = [f"<b>trial {row.number}</b> {escape(row.state)}", escape(row.architecture)]
    lines += _judged_lines(row, further)
    if row.reason:
        lines.append(escape(row.reason[:120]))
    return "<br>".join(lines)


def _reference_hover(one: Reference, further: Names) -> str:
    lines = [f"<b>{escape(one.name)}</b> hand-crafted", escape(one.architecture)]
    lines += _judged_lines(one, further)
    if one.latency_ms is not None and one.latency_how:
        lines.append(f"latency {escape(one.latency_how)}")
    if one.speedup is not None:
        lines.append(f"{wording.times(one.speedup)} as fast as the teacher")
    return "<br>".join(lines)


def _judged_lines(one: TrialRow | Reference, further: Names) -> list[str]:
    """What is known of a trial or of a reference, and the objectives that no axis shows."""
    lines = []
    if one.quality is not None:
        lines.append(f"quality {one.quality:.4f} (search-validation)")
    if one.latency_ms is not None:
        lines.append(f"{one.latency_ms:.3g} ms")
    if one.parameters is not None:
        lines.append(f"{one.parameters:,.0f} parameters")
    lines += [
        f"{wording.objective(name)} {wording.objective_value(name, known)}"
        for name in further
        if (known := value(one, name)) is not None
    ]
    return lines


def _student_hover(student: Student) -> str:
    head = f"<b>student {student.rank}</b>"
    if student.trial is not None:
        head += f" from trial {student.trial}"
    return "<br>".join([head, *_model_lines(student.figures)])


def _competitor_hover(rival: Competitor) -> str:
    head = f"<b>competitor c{rival.number}</b> {escape(rival.name)}"
    return "<br>".join([head, *_model_lines(rival.figures)])


def _model_lines(figures: Figures) -> list[str]:
    lines = [escape(figures.architecture)] if figures.architecture else []
    if figures.quality is not None:
        lines.append(f"{escape(figures.metric)} {figures.quality:.4f} on {figures.report_set}")
    if figures.quality_search is not None:
        lines.append(f"{escape(figures.metric)} {figures.quality_search:.4f} (search-validation)")
    if figures.latency_ms is not None:
        lines.append(f"{figures.latency_ms:.3g} ms")
    if prediction := wording.prediction(figures):
        lines.append(prediction)
    return lines


def _layout(
    contents: Contents, traces: Sequence[Mapping[str, Json]], quality: str, *, strip: bool
) -> dict[str, Json]:
    """The layout over a strip of untrained trials or without it; `quality` is escaped."""
    limit = contents.latency_limit_ms
    floor = 0.22 if strip else 0.0
    latency = {
        **axis("latency, ms (median; less is better)"),
        **_latency_scale(traces, limit),
        "anchor": "y2" if strip else "y",
    }
    layout = drawing.layout(latency, {**axis(quality), "domain": [floor, 1.0]})
    if limit is not None:
        place = math.log10(limit) if _spans_log(traces, limit) else limit
        layout["shapes"] = [limit_line(limit)]
        layout["annotations"] = [limit_note(place, f"limit {limit:.3g} ms")]
    if strip:
        layout["yaxis2"] = {
            **axis(""),
            "type": "category",
            "domain": [0.0, floor - 0.06],
            "tickfont": {"size": 11, "color": MUTED},
        }
    return layout


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
