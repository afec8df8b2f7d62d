"""Render a comparison as one self-contained page, written atomically."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stillhouse.errors import RunError
from stillhouse.files import write_text_atomically
from stillhouse.report import wording
from stillhouse.report.comparison import Comparison
from stillhouse.report.comparison_costs import cost_head, cost_told
from stillhouse.report.comparison_plots import color_of, draw_comparison
from stillhouse.report.comparison_table import Cell, difference_told, model_told
from stillhouse.report.templates import template

TEMPLATE_NAME = "comparison.html.jinja"
FEW_SEEDS = 5
"""Fewer than these tell little of the spread over seeds."""


def write_comparison(comparison: Comparison, target: Path) -> Path:
    """Writes a comparison as a page; a reader never sees half of it.

    Args:
        comparison: What is told.
        target: Where the page ends.

    Returns:
        Path of the page.

    Raises:
        RunError: If it cannot be written.
    """
    page = render_comparison(comparison)
    try:
        write_text_atomically(target, page)
    except OSError as error:
        raise RunError(
            f"{target} could not be written ({error}): name another file with --out"
        ) from error
    return target


def render_comparison(comparison: Comparison) -> str:
    """The page as HTML: every text of a run is escaped, and nothing is fetched."""
    return template(TEMPLATE_NAME).render(
        comparison=comparison,
        first=comparison.methods[0],
        facts=comparison.methods[0].runs[0].contents,
        say=wording,
        cost_head=cost_head(comparison.scale.name),
        cost_told=cost_told,
        difference_told=difference_told,
        model_told=model_told,
        spread=spread,
        durations=durations,
        counts=counts,
        has_tokens=any(token is not None for one in comparison.spent for token in one.tokens),
        summary=summary(comparison),
        uncertainty=uncertainty(comparison),
        dev_chose=any(
            one.is_optimistic for m in comparison.methods for run in m.runs for one in run.models
        ),
        reference=reference(comparison),
        shade=color_of,
        settings=_settings(comparison),
        plots=draw_comparison(comparison),
    )


def spread(values: Sequence[float | None], decimals: int = 4) -> str:
    """A mean and, of several, the range over seeds: 0.8312 (0.8290 to 0.8340)."""
    return _over_runs(values, lambda value: f"{value:.{decimals}f}")


def durations(values: Sequence[float | None]) -> str:
    """A mean time and, of several runs, the range."""
    return _over_runs(values, wording.duration)


def counts(values: Sequence[float | None]) -> str:
    """A mean number and, of several runs, the range."""
    return _over_runs(values, wording.count)


def _over_runs(values: Sequence[float | None], tell: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return wording.MISSING
    mean, least, most = tell(float(np.mean(known))), min(known), max(known)
    return mean if least == most else f"{mean} ({tell(least)} to {tell(most)})"


def summary(comparison: Comparison) -> str:
    """What the table comes to: who is resolved to be better or worse than the first, and where."""
    first = comparison.methods[0].name
    cells = [(line.told, cell) for line in comparison.lines for cell in line.cells]
    found = [_resolved(cell, first, told) for told, cell in cells if cell.is_resolved]
    if found:
        return f"Resolved: {'; '.join(found)}."
    if not comparison.tested:
        return "No two students could be compared at these limits."
    as_good = [f"{cell.method} at {told}" for told, cell in cells if cell.is_as_good]
    on_examples = f"at these limits on {wording.whole(_examples(comparison))} examples"
    if as_good:
        return (
            f"As good as {first} (not worse by a point): {'; '.join(as_good)}. No method is "
            f"resolved to be better or worse {on_examples}."
        )
    return f"No difference to {first} is resolved {on_examples}."


def _resolved(cell: Cell, first: str, told: str) -> str:
    word, _, but = cell.verdict.partition(", ")
    return (
        f"{cell.method} is {word} than {first} at {told} "
        f"by {difference_told(cell.difference)} points{but and f', {but}'}"
    )


def _examples(comparison: Comparison) -> float | None:
    models = [one for method in comparison.methods for run in method.runs for one in run.models]
    return next((one.figures.quality_count for one in models), None)


def uncertainty(comparison: Comparison) -> str:
    """How intervals and verdicts of the table came about."""
    differences = [
        cell.difference
        for line in comparison.lines
        for cell in line.cells
        if cell.difference is not None
    ]
    if not differences:
        return ""
    parts = [
        _way(all(one.is_paired for one in differences), any(one.is_paired for one in differences))
    ]
    seeds = [len(method.runs) for method in comparison.methods]
    if all(count == 1 for count in seeds):
        parts.append(
            "Each method has one run, so what another seed would have found is in no interval."
        )
    else:
        parts.append(
            "Of methods with several runs the spread over these is in the interval, by Student’s t"
            + ("." if min(seeds) >= FEW_SEEDS else ", which under five runs is a rough guess.")
        )
    if comparison.tested > 1:
        parts.append(
            f"A verdict of better or worse holds after Holm’s correction for the "
            f"{comparison.tested} differences of the table; intervals are not corrected."
        )
    return " ".join(parts)


def _way(all_paired: bool, any_paired: bool) -> str:  # noqa: FBT001  two facts of one table
    paired = (
        "by a paired bootstrap: all students are scored on the same 2,000 resamples of the examples"
    )
    alone = "from the intervals of both sides, as if they erred independently (MOVER)"
    if all_paired:
        return f"Differences and their 95 % intervals are {paired}."
    if any_paired:
        other = f"where answers are not kept, {alone}"
        return f"Differences and their 95 % intervals are {paired}; {other}."
    return f"Differences and their 95 % intervals are {alone}."


def reference(comparison: Comparison) -> str:
    """The point that hypervolumes are told from, and where all are equal in budget."""
    volumes = comparison.volumes
    if volumes is None:
        return ""
    cost = cost_told(comparison.scale.name, volumes.reference)
    whose = "100 % of the teacher’s" if comparison.scale.name == "flops_fraction" else cost
    told = (
        f"Hypervolume: the share of the box from quality 0 at {whose}, the teacher’s cost, to "
        "quality 1 at none, the same for all runs."
    )
    if volumes.candidates:
        told += (
            f" Equal budgets are {volumes.candidates} trained candidates, and "
            f"{wording.duration(volumes.seconds)} of training them."
        )
    return told


def _settings(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Settings that differ, with their values by method."""
    return [
        (
            name,
            [
                ", ".join(dict.fromkeys(run.settings.get(name, "–") for run in method.runs))
                for method in comparison.methods
            ],
        )
        for name in comparison.differing
    ]
