"""What the figures of the front tell of a point under the pointer, as plotly's own small HTML."""

from __future__ import annotations

from html import escape

from stillhouse.report import wording
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Competitor, Student
from stillhouse.report.objectives import Names, value
from stillhouse.report.references import Reference
from stillhouse.report.trials import TrialRow


def trial_hover(row: TrialRow, further: Names) -> str:
    """A trial, and the objectives that no axis shows."""
    lines = [f"<b>trial {row.number}</b> {escape(row.state)}", escape(row.architecture)]
    lines += _judged_lines(row, further)
    if row.reason:
        lines.append(escape(row.reason[:120]))
    return "<br>".join(lines)


def reference_hover(one: Reference, further: Names) -> str:
    """A hand-crafted architecture that was judged as the trials were."""
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


def student_hover(student: Student) -> str:
    """A finished student."""
    head = f"<b>student {student.rank}</b>"
    if student.trial is not None:
        head += f" from trial {student.trial}"
    return "<br>".join([head, *model_lines(student.figures)])


def competitor_hover(rival: Competitor) -> str:
    """A finished competitor."""
    head = f"<b>competitor c{rival.number}</b> {escape(rival.name)}"
    return "<br>".join([head, *model_lines(rival.figures)])


def model_lines(figures: Figures) -> list[str]:
    """What is known of a finished model, a line each."""
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
