"""Quality at given limits: each method's best student there, and how sure its difference is.

A run's student at a limit is the best on search-validation of those that are within it; dev, which
the table tells, chooses nothing. A method of several seeds is the mean over its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from stillhouse.evaluate.differences import (
    LEVEL,
    Difference,
    Resampled,
    Scores,
    holm,
    paired_difference,
    resample,
    unpaired_difference,
)
from stillhouse.evaluate.kept_answers import KeptAnswers
from stillhouse.report import wording
from stillhouse.report.comparing import ComparedRun, Method, Model
from stillhouse.report.comparison_costs import CostScale, Limit, cost_told, keeps

AS_GOOD = -0.01
"""A point: what is surely not worse than that is called as good."""
WITHIN_A_POINT = "as good (within a point)"
EQUAL = ("equal on every example", "equal on every resample")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A method at a limit.

    Attributes:
        method: Its name.
        chosen: The student of each of its runs; None where none is within the limit.
        quality: Mean on dev of those that there are; None without any.
        low, high: Of one run the 95 % interval over examples, of several the range over seeds.
        cost: Mean cost.
        difference: Quality less that of the first method; None of the first, and where a run of
            either has no student.
        behind: Quality less that of the teacher.
        p_corrected: Of the difference, corrected for the number of comparisons of the table.
        verdict: The difference in a word, and what speaks against it.
    """

    method: str
    chosen: tuple[Model | None, ...]
    quality: float | None = None
    low: float | None = None
    high: float | None = None
    cost: float | None = None
    difference: Difference | None = None
    behind: Difference | None = None
    p_corrected: float | None = None
    verdict: str = ""

    @property
    def found(self) -> tuple[Model, ...]:
        """The students that there are."""
        return tuple(one for one in self.chosen if one is not None)

    @property
    def is_whole(self) -> bool:
        """Whether every run has a student."""
        return len(self.found) == len(self.chosen)

    @property
    def is_resolved(self) -> bool:
        """Whether it is better or worse than the first method, among all comparisons."""
        return self.verdict.split(",")[0] in ("better", "worse")

    @property
    def is_as_good(self) -> bool:
        """Whether it is equal to the first method, or surely not worse by a point."""
        return self.verdict.split(",")[0] in (*EQUAL, WITHIN_A_POINT)

    @property
    def is_optimistic(self) -> bool:
        """Whether dev, which tells the quality, had chosen the epoch of a student."""
        return any(one.is_optimistic for one in self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """All methods at one limit, in their order."""

    limit: Limit
    told: str
    cells: tuple[Cell, ...]


_Pair: TypeAlias = tuple[str, tuple[int, ...], tuple[int, ...]]
"""A method, its students and those of the first, as objects."""


@dataclass(slots=True, kw_only=True)
class _Draws:
    """Resampled scores of answers, each drawn once."""

    seed: int
    known: dict[str, Resampled] = field(default_factory=dict)

    def of(self, answers: KeptAnswers) -> Resampled:
        if answers.sha256 not in self.known:
            self.known[answers.sha256] = resample(answers.primary, seed=self.seed)
        return self.known[answers.sha256]


def quality_at(
    methods: Sequence[Method], limits: Sequence[Limit], scale: CostScale, *, seed: int = 0
) -> tuple[Line, ...]:
    """Compares all methods with the first at every limit.

    Args:
        methods: Two or more.
        limits: None of them empty.
        scale: What students cost.
        seed: Decides the resamples.
    """
    draws = _Draws(seed=seed)
    lines = [_line(methods, limit, scale, draws) for limit in limits]
    tested = tested_pairs(lines)
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return tuple(
        replace(line, cells=tuple(_judged(cell, corrected, line.cells[0]) for cell in line.cells))
        for line in lines
    )


def tested_pairs(lines: Sequence[Line]) -> dict[_Pair, float]:
    """The differences that a table tests with their probabilities, each once.

    Where several limits lead to the same students on both sides, that is one test.
    """
    return {
        _pair(cell, line.cells[0]): cell.difference.p
        for line in lines
        for cell in line.cells
        if cell.difference is not None
    }


def _pair(cell: Cell, first: Cell) -> _Pair:
    return cell.method, tuple(map(id, cell.chosen)), tuple(map(id, first.chosen))


def best_within(run: ComparedRun, limit: Limit, scale: CostScale) -> Model | None:
    """The student of a run that was best on search-validation within a limit; of equals the faster.

    Models without that score, of older versions, come in the order of their ranks, behind others.
    """
    within = [(place, one) for place, one in enumerate(run.models) if keeps(one, limit, scale)]

    def order(placed: tuple[int, Model]) -> tuple[float, float, int]:
        place, one = placed
        quality, cost = one.figures.quality_search, scale.of_model(one)
        return (
            np.inf if quality is None else -quality,
            np.inf if cost is None else cost,
            place,
        )

    return min(within, key=order)[1] if within else None


def _line(methods: Sequence[Method], limit: Limit, scale: CostScale, draws: _Draws) -> Line:
    cells: list[Cell] = []
    for method in methods:
        chosen = tuple(best_within(run, limit, scale) for run in method.runs)
        cell = _cell(method, chosen, scale)
        cells.append(
            replace(
                cell,
                difference=_difference(cell, cells[0], draws) if cells else None,
                behind=_behind(method, cell, draws),
            )
        )
    told = ", ".join(_limit_told(name, value) for name, value in limit.items())
    return Line(limit=limit, told=told, cells=tuple(cells))


def _limit_told(name: str, value: float) -> str:
    return wording.limit(name, float(f"{value:.4g}"))


def _cell(method: Method, chosen: tuple[Model | None, ...], scale: CostScale) -> Cell:
    cell = Cell(method=method.name, chosen=chosen)
    qualities = [one.figures.quality for one in cell.found if one.figures.quality is not None]
    if not qualities:
        return cell
    costs = [cost for one in cell.found if (cost := scale.of_model(one)) is not None]
    low, high = min(qualities), max(qualities)
    if len(chosen) == 1:
        figures = cell.found[0].figures
        low = low if figures.quality_low is None else figures.quality_low
        high = high if figures.quality_high is None else figures.quality_high
    return replace(
        cell,
        quality=float(np.mean(qualities)),
        low=low,
        high=high,
        cost=float(np.mean(costs)) if costs else None,
    )


def _difference(cell: Cell, first: Cell, draws: _Draws) -> Difference | None:
    if not (cell.found and first.found and cell.is_whole and first.is_whole):
        return None
    return _compare(cell.found, first.found, draws)


def _behind(method: Method, cell: Cell, draws: _Draws) -> Difference | None:
    teachers = [run.teacher for run in method.runs]
    found = [one for one in teachers if one is not None and one.figures.quality is not None]
    if not cell.found or not cell.is_whole or len(found) < len(teachers):
        return None
    return _compare(cell.found, found, draws)


def _compare(ours: Sequence[Model], theirs: Sequence[Model], draws: _Draws) -> Difference | None:
    """By pairs where all answers are known and of the same examples, else by intervals."""
    answers = [[one.answers for one in side if one.answers is not None] for side in (ours, theirs)]
    known = [one for side in answers for one in side]
    if len(known) == len(ours) + len(theirs) and len({one.dev_sha256 for one in known}) == 1:
        first, second = ([draws.of(one) for one in side] for side in answers)
        return paired_difference(first, second)
    scores = [[_scores(one) for one in side] for side in (ours, theirs)]
    if any(one is None for side in scores for one in side):
        return None
    first_scores, second_scores = ([one for one in side if one is not None] for side in scores)
    return unpaired_difference(first_scores, second_scores)


def _scores(model: Model) -> Scores | None:
    figures = model.figures
    known = (figures.quality, figures.quality_low, figures.quality_high)
    if known[0] is None or known[1] is None or known[2] is None:
        return None
    return Scores(value=known[0], low=known[1], high=known[2])


def _judged(cell: Cell, corrected: Mapping[_Pair, float], first: Cell) -> Cell:
    p = None if cell.difference is None else corrected[_pair(cell, first)]
    told = _verdict(cell, p, first)
    if p is not None and cell.is_optimistic != first.is_optimistic:
        told += f", but dev chose the epoch of {(cell if cell.is_optimistic else first).method}"
    return replace(cell, p_corrected=p, verdict=told)


def _verdict(cell: Cell, p_corrected: float | None, first: Cell) -> str:
    """The difference in a word: `better` only where its interval and the correction say so."""
    if not cell.found:
        return "no student within it"
    if cell is first:
        return "the baseline"
    if cell.difference is None or p_corrected is None:
        return _why_not_compared(cell, first)
    one = cell.difference
    if one.low == one.high == 0 and one.is_paired:
        return EQUAL[0] if _answers(cell) == _answers(first) else EQUAL[1]
    if one.excludes_zero:
        word = "better" if one.value > 0 else "worse"
        return word if p_corrected <= LEVEL else f"{word} alone, not resolved among all comparisons"
    return WITHIN_A_POINT if one.low > AS_GOOD else "not resolved"


def _answers(cell: Cell) -> set[str]:
    return {one.answers.sha256 for one in cell.found if one.answers is not None}


def _why_not_compared(cell: Cell, first: Cell) -> str:
    if not first.found:
        return f"not compared: {first.method} has no student within it"
    for one in (cell, first):
        if not one.is_whole:
            lacking = len(one.chosen) - len(one.found)
            return f"not compared: {lacking} of {len(one.chosen)} runs of {one.method} have none"
    return "not compared: no interval is known"


def difference_told(one: Difference | None) -> str:
    """A difference with its interval in points: +1.2 (-0.3 to 2.7)."""
    if one is None:
        return wording.MISSING
    value, low, high = (100 * value for value in (one.value, one.low, one.high))
    return f"{value:+.1f} ({low:.1f} to {high:.1f})"


def model_told(model: Model, scale: CostScale) -> str:
    """A chosen student in words."""
    cost = cost_told(scale.name, scale.of_model(model))
    return f"{model.name}: {model.figures.architecture or wording.MISSING}, {cost}"
