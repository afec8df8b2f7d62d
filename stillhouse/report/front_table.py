"""The front as a table beside the hand-crafted references, and what stands under its plot."""

from __future__ import annotations

from dataclasses import dataclass

from stillhouse.report import wording
from stillhouse.report.gather import Contents
from stillhouse.report.objectives import LATENCY, TWO, beats
from stillhouse.report.references import Reference
from stillhouse.report.trials import TrialRow, best_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLine:
    """A trial of the front, or a reference; `figures` tells what is known of it."""

    name: str
    note: str
    latency_basis: str
    is_reference: bool
    figures: TrialRow | Reference


def front_lines(contents: Contents) -> list[FrontLine]:
    """The front and the references, fastest first; empty where the plot and its hovers suffice."""
    if not (contents.references.points or contents.further):
        return []
    lines = [_line_of_trial(row) for row in best_trials(contents.trials, contents.compared_by)]
    lines += [_line_of_reference(one) for one in contents.references.points]
    return sorted(lines, key=lambda line: line.figures.latency_ms or 0.0)


def _line_of_trial(row: TrialRow) -> FrontLine:
    return FrontLine(
        name=f"trial {row.number}", note="", latency_basis="", is_reference=False, figures=row
    )


def _line_of_reference(one: Reference) -> FrontLine:
    return FrontLine(
        name=one.name,
        note="hand-crafted, over a limit" if one.within_limit is False else "hand-crafted",
        latency_basis=wording.latency_basis(one),
        is_reference=True,
        figures=one,
    )


def against_references(contents: Contents) -> str:
    """How many trials of the front beat each reference; empty without both."""
    names = contents.compared_by
    front = best_trials(contents.trials, names)
    drawn = [one for one in contents.references.points if one.is_drawn]
    if not front or not drawn:
        return ""
    parts = []
    for one in drawn:
        number = sum(beats(trial, one, names) for trial in front)
        many = f"{number} of the {len(front)} trials of the front" if number else "no trial"
        parts.append(f"{one.name} is beaten by {many}")
    return (
        f"In {wording.objectives(names)}, {'; '.join(parts)}. Each was judged by one short "
        "training, so small differences may be chance."
    )


def front_marks(contents: Contents) -> str:
    """What a front is that a plot of quality and latency cannot show; empty where it can."""
    if contents.compared_by == TWO:
        return ""
    return (
        "Marked as the front are the trials that no other beats in "
        f"{wording.objectives(contents.compared_by)} together; here one may stand below another."
    )


def hypervolume(contents: Contents) -> str:
    """What the trials dominate; empty where that is unknown or on another scale."""
    known = contents.hypervolume
    if known is None or contents.judged_by_hidden:
        return ""
    told = [
        "FLOPs" if name == "flops_fraction" else wording.objective_value(name, value)
        for name, value in known.costs.items()
    ]
    free = "at no time" if list(known.costs) == [LATENCY] else "at no cost"
    return (
        f"The trials dominate {wording.percent(known.value)} of the box from quality 0 at the "
        f"teacher’s {wording.listed(told)} to quality 1 {free} (hypervolume)."
    )
