"""Successive halving: a candidate is judged by short trainings before it is given a long one.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, arXiv
1810.05934, the rule of asynchronous successive halving. What differs here: quality is one of
several objectives, so a candidate competes with those of about its latency alone; the decision
falls as soon as a rung is judged, and one that was stopped is not taken up again; every rung trains
from the start, for a schedule with a phase for each layer cannot be continued with longer phases.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from stillhouse.search.loop import Judgement
from stillhouse.search.trial import CandidateStopped, Trial, TrialState

_BINS_PER_DOUBLING = 2
_JUDGED = (TrialState.COMPLETE, TrialState.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """How the budget of a candidate grows from rung to rung.

    Args:
        rungs: Judgements of a candidate that comes through, at least 1; the last one has the whole
            budget.
        reduction: Factor between the budgets of two rungs, and the inverse of the share of
            candidates that go on, at least 2.
    """

    rungs: int
    reduction: int

    def share(self, rung: int) -> float:
        """Return the share of the whole budget that a rung, counted from 1, trains with."""
        return float(self.reduction) ** (rung - self.rungs)

    @property
    def total_share(self) -> float:
        """What all rungs take together, as a share of the whole budget: 1 or above."""
        return sum(self.share(rung) for rung in range(1, self.rungs + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a candidate stands at a rung among those of its bin of latency.

    Args:
        rung: Counted from 1.
        quality: Its score there.
        rank: 1 for the best; equal scores share the better rank.
        scores: How many are compared, its own included.
        places: How many of them go on.
        bin: Number of the bin, as `latency_bin` tells it.
    """

    rung: int
    quality: float
    rank: int
    scores: int
    places: int
    bin: int

    @property
    def goes_on(self) -> bool:
        """Whether it is worth the next rung."""
        return self.rank <= self.places

    @property
    def wording(self) -> str:
        """The same for people, as the reason why it does not go on."""
        low, high = (2 ** (edge / _BINS_PER_DOUBLING) for edge in (self.bin, self.bin + 1))
        return (
            f"after rung {self.rung} its score of {self.quality:.4f} is number {self.rank} of "
            f"{self.scores} at {low:.2f} to {high:.2f} times the teacher's latency, of which "
            f"{self.places} may go on"
        )


def latency_bin(trial: Trial) -> int:
    """Tell the bin of a screened trial; there is one for each factor of √2 of latency.

    Args:
        trial: Has a latency, and that of the teacher among its attributes.

    Returns:
        0 for 1 to √2 times the teacher's latency, −1 for the range below, and so on.
    """
    teacher_ms = trial.attributes["teacher_latency_ms"]
    assert isinstance(teacher_ms, int | float)
    assert trial.latency_ms is not None
    return math.floor(_BINS_PER_DOUBLING * math.log2(trial.latency_ms / teacher_ms))


def standing(
    trial: Trial, *, rung: int, quality: float, earlier: Iterable[Trial], reduction: int
) -> Standing:
    """Rank a candidate at a rung; it is the only one for which the decision is open.

    Args:
        trial: The candidate, screened.
        rung: That it was judged at, counted from 1.
        quality: Its score there.
        earlier: Recorded trials. Those of its bin count that are judged, at this rung too, and are
            no repeats.
        reduction: One in so many goes on, rounded down; all do while there are fewer scores.
    """
    own = latency_bin(trial)
    others = [
        other.rung_qualities[rung - 1]
        for other in earlier
        if other.state in _JUDGED
        and other.repeat_of is None
        and len(other.rung_qualities) >= rung
        and latency_bin(other) == own
    ]
    scores = len(others) + 1
    return Standing(
        rung=rung,
        quality=quality,
        rank=1 + sum(other > quality for other in others),
        scores=scores,
        places=scores if scores < reduction else scores // reduction,
        bin=own,
    )


def judge_by_rungs(
    halving: Halving,
    trial: Trial,
    earlier: Iterable[Trial],
    judge_at: Callable[[int], Judgement],
) -> Judgement:
    """Judge a candidate rung by rung, for as long as it is among the best of its latency.

    Args:
        halving: The rungs.
        trial: The candidate, screened.
        earlier: Recorded trials, of which finished ones count; decisions depend on nothing else,
            so a resumed search decides as an uninterrupted one.
        judge_at: Trains it from the start with the budget of a rung, counted from 1.

    Returns:
        The last rung's judgement; where there are several, its attribute `rung_qualities` has the
        scores of all.

    Raises:
        CandidateStopped: If it does not go on after a rung.
    """
    if halving.rungs == 1:
        return judge_at(1)
    recorded, qualities = list(earlier), list[float]()
    for rung in range(1, halving.rungs + 1):
        judgement = judge_at(rung)
        qualities.append(judgement.quality)
        attributes = {**judgement.attributes, "rung_qualities": qualities}
        if rung == halving.rungs or not math.isfinite(judgement.quality):
            break  # the search itself refuses a score that is no number
        here = standing(
            trial,
            rung=rung,
            quality=judgement.quality,
            earlier=recorded,
            reduction=halving.reduction,
        )
        if not here.goes_on:
            raise CandidateStopped(here.wording, attributes)
    return replace(judgement, attributes=attributes)
