"""Flash scores against latency, and what chosen students reach when they are trained in full."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from stillhouse.report.drawing import MUTED, PAPER, STUDENT, TRIED, Json, axis, layout, points
from stillhouse.report.gather import Contents, Student
from stillhouse.report.trials import TrialRow, trained

RECIPE = ("recipe", "autodistill")  # among the settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """A student with the trial that it was chosen from; both scores are on search-validation."""

    student: Student
    trial: TrialRow
    flash: float
    final: float


def grown(contents: Contents) -> list[Grown]:
    """Students whose flash score and final score are both known; none of other recipes."""
    if RECIPE not in contents.settings:
        return []
    rows = {row.number: row for row in trained(contents.trials)}
    found = []
    for student in contents.students:
        row = None if student.trial is None else rows.get(student.trial)
        final = student.figures.quality_search
        if row is not None and row.quality is not None and final is not None:
            found.append(Grown(student=student, trial=row, flash=row.quality, final=final))
    return found


def draw_flash(contents: Contents) -> dict[str, Json] | None:
    """Flash scores of all trials, and an arrow up to what a student became; None without any."""
    rows = trained(contents.trials)
    if RECIPE not in contents.settings or not rows:
        return None
    students = grown(contents)
    dots = points(
        "flash score",
        x=[row.latency_ms for row in rows],
        y=[row.quality for row in rows],
        hover=[_trial(row) for row in rows],
        marker={"color": TRIED, "size": 9, "opacity": 0.8},
    )
    finals = points(
        "trained in full",
        x=[one.trial.latency_ms for one in students],
        y=[one.final for one in students],
        hover=[_student(one) for one in students],
        marker={"color": STUDENT, "size": 19, "line": {"color": PAPER, "width": 1.5}},
    )
    finals.update(mode="markers+text", textfont={"color": PAPER, "size": 11})
    finals["text"] = [str(one.student.rank) for one in students]
    drawn = layout(
        {**axis("latency, ms (as in the search)"), "rangemode": "tozero"},
        axis(f"{escape(contents.metric)}, search-validation"),
    )
    drawn["annotations"] = [_arrow(one) for one in students]
    return {"data": [trace for trace in (dots, finals) if trace["x"]], "layout": drawn}


def _arrow(one: Grown) -> dict[str, Json]:
    return {
        "x": one.trial.latency_ms,
        "y": one.final,
        "ax": one.trial.latency_ms,
        "ay": one.flash,
        "axref": "x",
        "ayref": "y",
        "text": "",
        "showarrow": True,
        "arrowhead": 2,
        "arrowwidth": 1.2,
        "arrowcolor": MUTED,
        "standoff": 10,
    }


def _trial(row: TrialRow) -> str:
    return (
        f"<b>trial {row.number}</b><br>{escape(row.architecture)}"
        f"<br>flash score {row.quality:.4f}<br>{row.latency_ms:.3g} ms"
    )


def _student(one: Grown) -> str:
    return (
        f"<b>student {one.student.rank}</b> from trial {one.trial.number}"
        f"<br>{escape(one.trial.architecture)}"
        f"<br>flash score {one.flash:.4f}<br>trained in full {one.final:.4f}"
        f"<br>{one.trial.latency_ms:.3g} ms"
    )
