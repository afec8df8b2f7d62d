"""The points of the front, one trace for each kind of model.

Looks are traces without data: figures whose axes are chosen on the page have them, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import chain

from stillhouse.report import wording
from stillhouse.report.drawing import (
    COMPETITOR,
    FAILED,
    FRONT,
    LIMIT,
    MOST_DRAWN,
    MUTED,
    PAPER,
    REFERENCE,
    STUDENT,
    TEACHER,
    TRIED,
    Json,
    points,
)
from stillhouse.report.figures import Figures
from stillhouse.report.front_hovers import (
    competitor_hover,
    model_lines,
    reference_hover,
    student_hover,
    trial_hover,
)
from stillhouse.report.gather import Competitor, Contents, Student
from stillhouse.report.objectives import TWO, Names
from stillhouse.report.trials import TrialRow, best_trials, trained

UNTRAINED = {
    "stopped": ("stopped early", "triangle-down", TRIED),
    "infeasible": ("over a limit", "x", LIMIT),
    "failed": ("failed", "x", FAILED),
    "running": ("unfinished", "circle-open", MUTED),
}
"""Trials without a quality by state: what they are called, their symbol and colour."""
TRIAL_LOOK: Mapping[str, Json] = {
    "color": TRIED,
    "size": 9,
    "opacity": 0.75,
    "maxdisplayed": MOST_DRAWN,
}
FRONT_LOOK: Mapping[str, Json] = {"color": FRONT, "size": 11}
REFERENCE_LOOK: Mapping[str, Json] = {"color": REFERENCE, "size": 13, "symbol": "triangle-up"}
TEACHER_LOOK: Mapping[str, Json] = {"color": TEACHER, "size": 15, "symbol": "diamond"}
STUDENTS, COMPETITORS = "students, distilled in full", "competitors, distilled in full"
REFERENCES = "hand-crafted, judged as the trials"
INSIDE: Mapping[str, Json] = {"color": PAPER, "size": 11}
"""Font of the numbers inside the markers of finished models."""


def finished_traces(contents: Contents, *, searched: bool) -> Iterable[dict[str, Json]]:
    """Students, competitors and the teacher, on search-validation or on dev with intervals."""
    return chain(
        _student_trace(contents.students, searched=searched),
        _competitor_trace(contents.competitors, searched=searched),
        _teacher_trace(contents, searched=searched),
    )


def trial_traces(contents: Contents) -> list[dict[str, Json]]:
    """All trials, those of the front apart; a line joins these where the plot shows why."""
    names, further = contents.compared_by, contents.further
    rows, front = trained(contents.trials), best_trials(contents.trials, names)
    best_numbers = {row.number for row in front}
    others = [row for row in rows if row.number not in best_numbers]
    dots = _points("trials", others, further, TRIAL_LOOK)
    best = _points(front_name(names), front, further, FRONT_LOOK)
    if names == TWO:
        best.update(mode="lines+markers", line={"color": FRONT, "width": 2, "shape": "hv"})
    return [trace for trace in (dots, best) if trace["x"]]


def front_name(names: Names) -> str:
    """What the trials that no other beats are called, whatever axes they stand on."""
    return f"front in {wording.objectives(names)}"


def _points(
    name: str, rows: Sequence[TrialRow], further: Names, marker: Mapping[str, Json]
) -> dict[str, Json]:
    return points(
        name,
        x=[row.latency_ms for row in rows],
        y=[row.quality for row in rows],
        hover=[trial_hover(row, further) for row in rows],
        marker=marker,
    )


def reference_trace(contents: Contents) -> list[dict[str, Json]]:
    """Hand-crafted architectures that were judged as the trials were, each with its name."""
    shown = [one for one in contents.references.points if one.is_drawn]
    if not shown:
        return []
    trace = points(
        REFERENCES,
        x=[one.latency_ms for one in shown],
        y=[one.quality for one in shown],
        hover=[reference_hover(one, contents.further) for one in shown],
        marker=REFERENCE_LOOK,
    )
    trace.update(
        mode="markers+text",
        text=[escape(one.name) for one in shown],
        textposition=above_and_below([one.latency_ms or 0.0 for one in shown]),
        textfont={"color": REFERENCE, "size": 12},
        cliponaxis=False,
    )
    return [trace]


def above_and_below(places: Sequence[float]) -> list[str]:
    """Where texts stand, so that neighbours do not overlap: in turn, from the least place on."""
    ordered = sorted(range(len(places)), key=lambda number: places[number])
    sides = {number: turn % 2 for turn, number in enumerate(ordered)}
    return [("top center", "bottom center")[sides[number]] for number in range(len(places))]


def untrained_traces(contents: Contents) -> list[dict[str, Json]]:
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
    trace = _finished(STUDENTS, [student.figures for student in shown], searched=searched)
    trace["text"] = [str(student.rank) for student in shown]
    trace["hovertext"] = [student_hover(student) for student in shown]
    return [trace]


def _competitor_trace(
    competitors: Sequence[Competitor], *, searched: bool
) -> list[dict[str, Json]]:
    shown = [rival for rival in competitors if _is_drawn(rival.figures, searched=searched)]
    if not shown:
        return []
    trace = _finished(
        COMPETITORS,
        [rival.figures for rival in shown],
        searched=searched,
        color=COMPETITOR,
        symbol="square",
    )
    trace["text"] = [f"c{rival.number}" for rival in shown]
    trace["hovertext"] = [competitor_hover(rival) for rival in shown]
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
        marker=numbered_look(color, symbol),
    )
    trace.update(mode="markers+text", textfont=INSIDE)
    if not searched:
        trace["error_y"] = _intervals(shown, color)
    return trace


def numbered_look(color: str, symbol: str) -> Mapping[str, Json]:
    """Markers that are large enough for a number."""
    return {"color": color, "size": 19, "symbol": symbol, "line": {"color": PAPER, "width": 1.5}}


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
    hover = [f"<b>teacher</b> {escape(contents.teacher_name)}", *model_lines(teacher)]
    trace = points(
        "teacher",
        x=[teacher.latency_ms],
        y=[_quality(teacher, searched=searched)],
        hover=["<br>".join(hover)],
        marker=TEACHER_LOOK,
    )
    if not searched:
        trace["error_y"] = _intervals([teacher], TEACHER)
    return [trace]


def _quality(figures: Figures, *, searched: bool) -> float | None:
    return figures.quality_search if searched else figures.quality
