"""Differences between methods, each a model or one a seed, and how sure they are.

Where all answers on the same units are known, models are scored on the same resamples of the units,
so that what is hard for all of them cancels out. Where they are not, the intervals of both sides
are put together (MOVER: Zou and Donner 2008, Statistics in Medicine 27), as if the models erred
independently. To either the variance of the means over seeds is added, with Student's t of the
degrees of freedom of such a sum (Satterthwaite 1946, Biometrics Bulletin 2; Welch 1947, Biometrika
34). To draw few seeds again would not do: two of each side make four pairs, which agree by chance.
What seeds and units have only together is counted in both variances, so the interval is rather too
wide.

Letters in names: G seeds (models of one method), E resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from stillhouse.errors import DataError
from stillhouse.evaluate.resampling import Ratio, interval, resampled

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stillhouse.evaluate.resampling import Scored

RESAMPLES = 2_000
LEVEL = 0.05
"""Chance of calling a difference resolved where there is none."""
_END_Z = float(stats.norm.ppf(1 - LEVEL / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One method's score less another's.

    Attributes:
        value: Difference of the means over seeds.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
        p: Two-sided probability of a difference as large by chance.
        is_paired: Whether it is over the same resamples of the same units.
        has_seeds: Whether the spread over seeds is in it.
    """

    value: float
    low: float
    high: float
    p: float
    is_paired: bool
    has_seeds: bool

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What is known of one model: its score with the 95 % interval over units."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampled:
    """One model's score, and its scores on resamples that are the same for all models.

    Attributes:
        value: On the units themselves.
        units: How many there are.
        scores_E: On every resample.
    """

    value: float
    units: int
    scores_E: NDArray[np.float64]  # noqa: N815


def resample(scored: Scored, *, seed: int, resamples: int = RESAMPLES) -> Resampled:
    """Scores a model on resamples of its units: the same for every model with as many of them.

    Args:
        scored: Its judged answers.
        seed: Decides the resamples.
        resamples: How many.

    Raises:
        SettingsError: If there are no resamples.
    """
    draws = resampled(len(scored), seed=seed, resamples=resamples)
    if isinstance(scored, Ratio):  # by sums, without a copy of both for every draw
        sums = np.array([(scored.above_U[one].sum(), scored.below_U[one].sum()) for one in draws])
        above_E, below_E = sums.astype(np.float64).T
        scores_E = np.divide(above_E, below_E, out=np.zeros(len(sums)), where=below_E != 0)
    else:
        scores_E = np.array([scored.score(chosen) for chosen in draws])
    return Resampled(value=scored.score(), units=len(scored), scores_E=scores_E)


def paired_difference(first: Sequence[Resampled], second: Sequence[Resampled]) -> Difference:
    """Compares two methods by the answers of their models.

    Args:
        first: Of one method a model for each seed, at least one.
        second: Of the other, on the same resamples of the same units.

    Raises:
        DataError: If they are of different numbers of units or resamples.
    """
    shapes = {(one.units, len(one.scores_E)) for one in (*first, *second)}
    if len(shapes) != 1:
        raise DataError(
            f"answers are compared on the same resamples of the same units, got {sorted(shapes)}"
        )
    sides = [[one.value for one in side] for side in (first, second)]
    means_E = [np.mean([one.scores_E for one in side], axis=0) for side in (first, second)]
    differences_E = means_E[0] - means_E[1]
    value = float(np.mean(sides[0]) - np.mean(sides[1]))
    ends = interval(differences_E.tolist())
    reach = _over_seeds(value - ends[0], ends[1] - value, sides)
    # Without a spread over seeds the ends are those of the resamples, to the last digit.
    low, high = (value - reach.below, value + reach.above) if reach.has_spread else ends
    p = None if reach.has_spread else _share_beyond(differences_E)
    return Difference(
        value=value,
        low=low,
        high=high,
        p=reach.probability(value) if p is None else p,
        is_paired=True,
        has_seeds=_has_seeds(sides),
    )


def _share_beyond(differences_E: NDArray[np.float64]) -> float | None:
    """Twice the smaller share on one side of 0; None where no resample is there to tell it."""
    sides = [int((differences_E <= 0).sum()), int((differences_E >= 0).sum())]
    return min(1.0, 2 * (min(sides) + 1) / (len(differences_E) + 1)) if min(sides) else None


def unpaired_difference(first: Sequence[Scores], second: Sequence[Scores]) -> Difference:
    """Compares two methods by the intervals of their models alone.

    The examples are taken to be the same for all seeds of a method, so more seeds do not make that
    part of its interval narrower.

    Args:
        first: Of one method a model for each seed, at least one.
        second: Of the other.
    """
    ours, theirs = _mean(first), _mean(second)
    value = ours.value - theirs.value
    below = np.hypot(ours.value - ours.low, theirs.high - theirs.value)
    above = np.hypot(ours.high - ours.value, theirs.value - theirs.low)
    sides = [[one.value for one in side] for side in (first, second)]
    reach = _over_seeds(float(below), float(above), sides)
    return Difference(
        value=value,
        low=value - reach.below,
        high=value + reach.above,
        p=reach.probability(value),
        is_paired=False,
        has_seeds=_has_seeds(sides),
    )


def _mean(models: Sequence[Scores]) -> Scores:
    """The mean of several models on the same examples, each end as far from it as on average."""
    ends = np.mean([(one.value, one.low, one.high) for one in models], axis=0)
    return Scores(value=float(ends[0]), low=float(ends[1]), high=float(ends[2]))


def _has_seeds(sides: Sequence[Sequence[float]]) -> bool:
    return all(len(side) > 1 for side in sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reach:
    """How far an interval reaches from its value.

    Attributes:
        below: Down from it.
        above: Up from it.
        freedom: Degrees of freedom of Student's t; infinite for the normal distribution.
    """

    below: float
    above: float
    freedom: float

    @property
    def has_spread(self) -> bool:
        """Whether seeds have a part in it."""
        return self.freedom < np.inf

    def probability(self, value: float) -> float:
        """Two-sided, by the side of the interval that 0 is on."""
        towards_zero = self.below if value > 0 else self.above
        if towards_zero <= 0:
            return 0.0 if value else 1.0
        end = stats.t.ppf(1 - LEVEL / 2, self.freedom)
        return float(2 * stats.t.sf(end * abs(value) / towards_zero, self.freedom))


def _over_seeds(below: float, above: float, sides: Sequence[ArrayLike]) -> _Reach:
    """Widens a 95 % interval over units by the spread of the seeds' scores on both sides.

    Args:
        below: How far the interval reaches below the difference.
        above: How far it reaches above.
        sides: Of each method a score for each seed, `[G]`; of one seed nothing is known.
    """
    several = [np.asarray(side, dtype=np.float64) for side in sides if np.size(side) > 1]
    variances = [float(scores_G.var(ddof=1)) / len(scores_G) for scores_G in several]
    of_seeds = sum(variances)
    total = of_seeds + ((below + above) / (2 * _END_Z)) ** 2
    parts = sum(
        variance**2 / (len(scores_G) - 1)
        for variance, scores_G in zip(variances, several, strict=True)
    )
    if not parts:
        return _Reach(below=below, above=above, freedom=np.inf)
    freedom = total**2 / parts
    widened = float(stats.t.ppf(1 - LEVEL / 2, freedom)) / _END_Z
    spread = _END_Z * np.sqrt(of_seeds)
    return _Reach(
        below=float(widened * np.hypot(below, spread)),
        above=float(widened * np.hypot(above, spread)),
        freedom=freedom,
    )


def seed_difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Compares figures of several seeds by Welch's t interval; `None` under two on a side.

    Args:
        first: A figure for each seed of one method.
        second: The same of the other.
    """
    if min(len(first), len(second)) < 2:  # noqa: PLR2004  one has no spread
        return None
    value = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        low = high = value
        p = 1.0 if value == 0 else 0.0
    else:
        test = stats.ttest_ind(first, second, equal_var=False)
        ends = test.confidence_interval(1 - LEVEL)
        low, high, p = float(ends.low), float(ends.high), float(test.pvalue)
    return Difference(value=value, low=low, high=high, p=p, is_paired=False, has_seeds=True)


def holm(probabilities: Sequence[float]) -> list[float]:
    """Corrects probabilities for their number, in their order.

    Below `LEVEL` the chance of any false one among all is kept at `LEVEL`.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    count = len(probabilities)
    order = sorted(range(count), key=lambda place: probabilities[place])
    corrected, highest = [0.0] * count, 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (count - rank) * probabilities[place]))
        corrected[place] = highest
    return corrected
