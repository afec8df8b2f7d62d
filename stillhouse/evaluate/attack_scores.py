"""What attacks on many texts come to: accuracy that is left, queries, words changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from stillhouse.errors import DataError
from stillhouse.evaluate.resampling import Ratio, interval, interval_of, resampled

if TYPE_CHECKING:
    from stillhouse.evaluate.attack import Outcome

RESAMPLES = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its 95 % interval.

    Attributes:
        value: The figure.
        low: Lower end: Wilson's of a share, of a mean that of a bootstrap over texts.
        high: Upper end.
        count: Texts that it is a share or a mean of.
    """

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackScores:
    """How a model stood an attack.

    Attributes:
        original_accuracy: Before the attack.
        after_attack_accuracy: Share of all texts that were answered right before and after.
        success_fraction: Share of the texts answered right before that were wrong after; `None`
            where none was right before.
        queries: Mean over the texts answered right before; likewise.
        changed_fraction: Mean share of words replaced, over the successful attacks as the official
            code has it; `None` without any.
    """

    original_accuracy: Figure
    after_attack_accuracy: Figure
    success_fraction: Figure | None
    queries: Figure | None
    changed_fraction: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackDifference:
    """The figures of one model less those of another, under attack on the same texts.

    Attributes:
        after_attack_accuracy: With the interval of a bootstrap over texts, the same of both.
        queries: Likewise; each model's mean is over the texts that it answered right.
    """

    after_attack_accuracy: Figure
    queries: Figure


def score_attack(outcomes: Sequence[Outcome], *, seed: int) -> AttackScores:
    """Adds outcomes up.

    Args:
        outcomes: One for each text.
        seed: Decides the resamples of intervals.

    Raises:
        DataError: If there are none.
    """
    if not outcomes:
        raise DataError("no text was attacked, so there is nothing to tell; attack at least one")
    count = len(outcomes)
    correct = sum(one.is_correct for one in outcomes)
    fooled = sum(one.is_fooled for one in outcomes)
    return AttackScores(
        original_accuracy=share(correct, count),
        after_attack_accuracy=share(correct - fooled, count),
        success_fraction=share(fooled, correct) if correct else None,
        queries=_mean(_queries(outcomes), seed) if correct else None,
        changed_fraction=_mean(_changes(outcomes), seed) if fooled else None,
    )


def compare_attacks(
    first: Sequence[Outcome], second: Sequence[Outcome], *, seed: int
) -> AttackDifference:
    """Compares two models on the same texts, the first less the second.

    Raises:
        DataError: If there are no texts, or not the same.
    """
    if not first or [one.key for one in first] != [one.key for one in second]:
        raise DataError("two attacks are compared on the same texts, at least one, in one order")
    return AttackDifference(
        after_attack_accuracy=_difference(_robust(first), _robust(second), seed),
        queries=_difference(_queries(first), _queries(second), seed),
    )


def share(part: int, count: int) -> Figure:
    """Gives a share with Wilson's interval.

    Args:
        part: How many of them.
        count: At least 1.
    """
    ends = stats.binomtest(part, count).proportion_ci(method="wilson")
    low, high = float(ends.low), float(ends.high)
    return Figure(value=part / count, low=low, high=high, count=count)


def _robust(outcomes: Sequence[Outcome]) -> Ratio:
    return _ratio([one.is_robust for one in outcomes], [True] * len(outcomes))


def _queries(outcomes: Sequence[Outcome]) -> Ratio:
    return _ratio([one.queries for one in outcomes], [one.is_correct for one in outcomes])


def _changes(outcomes: Sequence[Outcome]) -> Ratio:
    return _ratio([one.changed_fraction for one in outcomes], [one.is_fooled for one in outcomes])


def _ratio(values: Sequence[float], counted: Sequence[bool]) -> Ratio:
    """Makes the mean of the values that count."""
    below_U = np.array(counted, dtype=np.float64)
    return Ratio(above_U=np.array(values, dtype=np.float64) * below_U, below_U=below_U)


def _mean(ratio: Ratio, seed: int) -> Figure:
    low, high = interval_of(ratio, seed=seed, resamples=RESAMPLES)
    return Figure(value=ratio.score(), low=low, high=high, count=int(ratio.below_U.sum()))


def _difference(first: Ratio, second: Ratio, seed: int) -> Figure:
    draws = resampled(len(first), seed=seed, resamples=RESAMPLES)
    low, high = interval([first.score(chosen) - second.score(chosen) for chosen in draws])
    return Figure(value=first.score() - second.score(), low=low, high=high, count=len(first))
