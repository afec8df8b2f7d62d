"""Scores whose units can be drawn again, and the intervals that this gives.

Letters in names: U units, which are examples, sentences or questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

LOWER_QUANTILE, UPPER_QUANTILE = 0.025, 0.975
"""Ends of a 95 % interval."""


class Scored(Protocol):
    """The judged answers of one model, by one metric."""

    def __len__(self) -> int:
        """The number of units."""

    def score(self, chosen: NDArray[np.int64] | None = None) -> float:
        """Scores the chosen units, one of them perhaps several times; all by default."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ratio:
    """One sum over units divided by another, as a mean or a micro average is.

    Attributes:
        above_U: What each unit adds above the line.
        below_U: What each unit adds below it, never negative.
    """

    above_U: NDArray[Any]  # noqa: N815
    below_U: NDArray[Any]  # noqa: N815

    def __len__(self) -> int:
        """The number of units."""
        return len(self.above_U)

    def score(self, chosen: NDArray[np.int64] | None = None) -> float:
        """Gives the ratio of the chosen units, all by default; 0 where it is 0 / 0."""
        above_U, below_U = self.above_U, self.below_U
        if chosen is not None:
            above_U, below_U = above_U[chosen], below_U[chosen]
        below = float(below_U.sum())
        return float(above_U.sum()) / below if below else 0.0


def mean_of(values_U: NDArray[Any]) -> Ratio:
    """Makes the mean of figures, one a unit."""
    return Ratio(above_U=values_U, below_U=np.ones(len(values_U)))


def resampled(units: int, *, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yields `[U]` units drawn with replacement, `resamples` times.

    Raises:
        SettingsError: If there are no resamples.
    """
    if resamples < 1:
        raise SettingsError(f"a bootstrap has at least one resample, but resamples is {resamples}")
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(units, size=units)


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """Gives the 95 % percentile interval of resampled scores, lower end first."""
    low, high = np.quantile(scores, (LOWER_QUANTILE, UPPER_QUANTILE))
    return float(low), float(high)


def interval_of(scored: Scored, *, seed: int, resamples: int) -> tuple[float, float]:
    """Gives the 95 % percentile interval of a score over resampled units, lower end first.

    Raises:
        SettingsError: If there are no resamples.
    """
    draws = resampled(len(scored), seed=seed, resamples=resamples)
    return interval([scored.score(chosen) for chosen in draws])
