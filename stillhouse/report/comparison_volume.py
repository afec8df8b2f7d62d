"""How much the trials of each run dominate, after every candidate and at equal budgets.

The box is that of one run's page: from quality 0 at the reference cost to quality 1 at no cost. The
reference is the same for all runs, so the volumes can stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from stillhouse.evaluate.differences import Difference, seed_difference
from stillhouse.report import wording
from stillhouse.report.comparability import spent
from stillhouse.report.comparing import ComparedRun, Method
from stillhouse.report.comparison_costs import CostScale

Point = tuple[float, float]
"""Quality and cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the hypervolume of one run grew.

    Attributes:
        run: Whose.
        seconds: Time that the candidates up to each one took together.
        volumes: Hypervolume after each one, 0..1.
    """

    run: ComparedRun
    seconds: tuple[float, ...]
    volumes: tuple[float, ...]

    def after(self, candidates: int) -> float:
        """The hypervolume after so many candidates."""
        return self.volumes[min(candidates, len(self.volumes)) - 1] if candidates else 0.0

    def within(self, seconds: float) -> float:
        """The hypervolume of the candidates that were done after so many seconds."""
        return self.after(int(np.searchsorted(self.seconds, seconds, side="right")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """Hypervolumes of one method: for each run of it one figure.

    Attributes:
        method: Its name.
        courses: Of its trials; empty where there was no search.
        at_end: After all candidates.
        at_candidates: After as many candidates as the smallest search tried.
        at_seconds: After as much time as the shortest search took.
        finished: Of its finished students, by their quality on dev; None of a run without any.
        difference: Against the first method at equal candidates, over seeds; None with one seed.
    """

    method: str
    courses: tuple[Course, ...]
    at_end: tuple[float, ...]
    at_candidates: tuple[float, ...]
    at_seconds: tuple[float, ...]
    finished: tuple[float | None, ...]
    difference: Difference | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volumes:
    """All of them, with the budget and the reference that they share.

    Attributes:
        candidates: Of the smallest search; 0 where fewer than two runs searched.
        seconds: Of the shortest search.
        reference: Cost of the reference point; its quality is 0.
        each: By method.
    """

    candidates: int
    seconds: float
    reference: float
    each: tuple[Volume, ...]


def dominated(points: Iterable[Point], reference: float) -> float:
    """The share that points dominate of the box from (quality 0, reference) to (1, 0).

    Args:
        points: Quality, the higher the better, and cost, the lower the better.
        reference: Cost from which on nothing counts, above 0.
    """
    losses = np.array([(-quality, cost / reference) for quality, cost in points])
    if not len(losses):
        return 0.0
    return float(moocore.hypervolume(losses, ref=np.array([0.0, 1.0])))


def volumes_of(methods: Sequence[Method], scale: CostScale) -> Volumes | None:
    """Measures all methods; None where no reference is known.

    Trials that were judged by something else than the metric stay out, those of all methods.
    """
    if not scale.reference:
        return None
    judged = not _judged_otherwise(methods)
    courses = [
        [_course(run, scale, scale.reference) for run in method.runs] if judged else []
        for method in methods
    ]
    searched = [one for several in courses for one in several if one.volumes]
    several = sum(any(one.volumes for one in all_of) for all_of in courses) > 1
    candidates = min(len(one.volumes) for one in searched) if several else 0
    seconds = min(one.seconds[-1] for one in searched) if several else 0.0
    each: list[Volume] = []
    for method, all_of in zip(methods, courses, strict=True):
        known = tuple(one for one in all_of if one.volumes)
        at_candidates = tuple(one.after(candidates) for one in known) if candidates else ()
        each.append(
            Volume(
                method=method.name,
                courses=known,
                at_end=tuple(one.volumes[-1] for one in known),
                at_candidates=at_candidates,
                at_seconds=tuple(one.within(seconds) for one in known) if candidates else (),
                finished=tuple(_finished(run, scale, scale.reference) for run in method.runs),
                difference=seed_difference(at_candidates, each[0].at_candidates) if each else None,
            )
        )
    return Volumes(
        candidates=candidates, seconds=seconds, reference=scale.reference, each=tuple(each)
    )


def _judged_otherwise(methods: Sequence[Method]) -> list[str]:
    """Methods whose trials were judged by something else than the metric."""
    return [
        method.name
        for method in methods
        if any(run.contents.judged_by_hidden for run in method.runs)
    ]


def why_no_equal_budget(methods: Sequence[Method], volumes: Volumes | None) -> str:
    """Why there are no volumes at equal budgets; empty where there are."""
    if volumes is None:
        return "no teacher tells the cost that they are measured from"
    if volumes.candidates:
        return ""
    if names := _judged_otherwise(methods):
        return f"the candidates of {wording.listed(names)} were judged by another figure"
    return "only one method has judged candidates of known cost"


def trial_points(run: ComparedRun, scale: CostScale) -> list[Point | None]:
    """Quality on search-validation and cost of every spent trial; None of one without."""
    return [
        (row.quality, cost)
        if row.state == "complete"
        and row.quality is not None
        and (cost := scale.of_trial(run, row)) is not None
        else None
        for row in spent(run.contents.trials)
    ]


def _course(run: ComparedRun, scale: CostScale, reference: float) -> Course:
    points = trial_points(run, scale)
    if not any(points):  # a search that judged nothing has no course
        return Course(run=run, seconds=(), volumes=())
    took = [row.cost_s or 0.0 for row in spent(run.contents.trials)]
    volumes = [
        dominated([one for one in points[:count] if one is not None], reference)
        for count in range(1, len(points) + 1)
    ]
    seconds = np.cumsum(took).tolist()
    return Course(run=run, seconds=tuple(seconds), volumes=tuple(volumes))


def _finished(run: ComparedRun, scale: CostScale, reference: float) -> float | None:
    pairs = [(model.figures.quality, scale.of_model(model)) for model in run.models]
    points = [
        (quality, cost) for quality, cost in pairs if quality is not None and cost is not None
    ]
    return dominated(points, reference) if points else None
