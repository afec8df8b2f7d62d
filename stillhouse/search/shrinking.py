"""Progressive shrinking: the candidates of a block compete in bins of like size and latency.

Source: NAS-BERT (Xu et al., KDD 2021), section 3.2 of the method. Each bin compares its candidates
only with one another, so that neither large nor small ones vanish early. After some epochs without
shrinking, every epoch ends with this in each bin: a sample is evaluated, and the worse half of it
goes; a bin that has few enough left stays as it is.

Shapes: N candidates of the block, B bins, S sampled candidates.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from stillhouse.errors import SettingsError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_ROUNDING = 1e-9
"""A value that is nearer than this to a border, as a fraction of the largest, is on it."""

_DRAWS = 1
"""Parts the random numbers of steps from those of epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """How many candidates lie in no bin, by reason.

    Attributes:
        other_latency_bin: Their latency lies in another bin than their size.
        beyond_largest: They are slower or larger than the largest candidate, or have no latency.
    """

    other_latency_bin: int
    beyond_largest: int


def bins_of(
    parameters_N: NDArray[Any], latency_ms_N: NDArray[Any], *, largest: int, bins: int
) -> NDArray[np.int64]:
    """Sorts candidates into bins that they must fit in size and in latency.

    Bin `b` of B holds what is above `b/B` and at most `(b+1)/B` of the largest candidate's size,
    if its latency is within the same fractions of the largest candidate's latency.

    Args:
        parameters_N: Sizes `[N]`.
        latency_ms_N: Latencies `[N]`.
        largest: Index of the largest candidate.
        bins: Number of bins, at least 1.

    Returns:
        Bins `[N]`, 0 to B-1; -1 for candidates that fit none.
    """
    by_size_N = _places(parameters_N, largest, bins)
    by_latency_N = _places(latency_ms_N, largest, bins)
    fits_N = (by_size_N == by_latency_N) & (by_size_N < bins)
    return np.where(fits_N, by_size_N, -1)


def left_out(
    parameters_N: NDArray[Any], latency_ms_N: NDArray[Any], *, largest: int, bins: int
) -> LeftOut:
    """Counts the candidates that `bins_of` puts in no bin, by reason; takes the same arguments."""
    by_size_N = _places(parameters_N, largest, bins)
    by_latency_N = _places(latency_ms_N, largest, bins)
    beyond_N = np.maximum(by_size_N, by_latency_N) >= bins
    return LeftOut(
        other_latency_bin=int(np.sum((by_size_N != by_latency_N) & ~beyond_N)),
        beyond_largest=int(np.sum(beyond_N)),
    )


def _places(values_N: NDArray[Any], largest: int, bins: int) -> NDArray[np.int64]:
    """Returns the bin of each value; `bins` and above for what is beyond the largest."""
    shares_N = np.asarray(values_N, dtype=np.float64) / float(values_N[largest]) * bins
    shares_N = np.where(np.isfinite(shares_N), np.minimum(shares_N, bins + 1), bins + 1)
    nearest_N = np.rint(shares_N)
    is_border_N = np.abs(shares_N - nearest_N) <= _ROUNDING * bins
    return np.where(is_border_N, nearest_N, np.ceil(shares_N)).astype(np.int64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ShrinkRule:
    """How the candidates of a block are thinned out; the defaults are the published ones.

    Attributes:
        bins: Number of bins.
        sampled: Candidates of a bin that are evaluated at the end of an epoch, at most; at least 2.
        kept: Candidates of a bin at which it shrinks no further; at least 1.
        warm_epochs: First epochs, which end without shrinking.
    """

    bins: int = 10
    sampled: int = 2000
    kept: int = 10
    warm_epochs: int = 3

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            SettingsError: If one is too small.
        """
        for name, least in (("bins", 1), ("sampled", 2), ("kept", 1), ("warm_epochs", 0)):
            value = getattr(self, name)
            if value < least:
                raise SettingsError(
                    f"shrinking needs {name} of at least {least}, but it is {value}"
                )

    def dropped(self, count: int) -> int:
        """Returns how many candidates a bin of `count` loses at the end of an epoch."""
        return max(0, min(min(count, self.sampled) // 2, count - self.kept))


def planned_epochs(counts_B: NDArray[np.int64], rule: ShrinkRule) -> int:
    """Returns how many epochs a shrinking takes, warm ones among them.

    Args:
        counts_B: Candidates in each bin before the first epoch.
        rule: How they are thinned out.
    """
    longest = 0
    for count in counts_B.tolist():
        left, epochs = count, 0
        while left > rule.kept:
            left -= rule.dropped(left)
            epochs += 1
        longest = max(longest, epochs)
    return rule.warm_epochs + longest


@dataclass(frozen=True, slots=True, kw_only=True)
class BinRecord:
    """What the end of an epoch did to a bin.

    Attributes:
        epoch: 0-based.
        bin: 0-based.
        sampled: Candidates that were evaluated.
        dropped: Those of them that went.
        alive: Candidates of the bin that are left.
        border_loss: Largest loss among the evaluated ones that stay; infinite if it is not a
            number.
    """

    epoch: int
    bin: int
    sampled: int
    dropped: int
    alive: int
    border_loss: float


class Shrinking:
    """The candidates of a block that are left, epoch for epoch.

    It is a function of its arguments and of the losses that it is told. An epoch ends with `sample`
    and `drop`; in warm epochs, and for bins that are small enough, nothing is sampled.
    """

    def __init__(self, bins_N: NDArray[np.int64], rule: ShrinkRule, *, seed: int) -> None:
        """Starts with all candidates that lie in a bin.

        Args:
            bins_N: Bin of each candidate as `bins_of` tells them; those with -1 are left out.
            rule: How the candidates are thinned out.
            seed: Of the samples and draws, 0 or more.

        Raises:
            SpaceError: If no candidate lies in a bin.
        """
        self._bins_N = np.asarray(bins_N, dtype=np.int64)
        self._rule, self._seed, self._epoch = rule, seed, 0
        self._alive_N = self._bins_N >= 0
        self._records: list[BinRecord] = []
        if not self._alive_N.any():
            raise SpaceError(
                f"shrinking needs a candidate whose latency lies in the bin of its size, but none "
                f"of {len(self._bins_N)} does; check the latency table"
            )

    @property
    def rule(self) -> ShrinkRule:
        """How the candidates are thinned out."""
        return self._rule

    @property
    def epoch(self) -> int:
        """Number of epochs that have ended."""
        return self._epoch

    @property
    def alive(self) -> NDArray[np.int64]:
        """Indices of the candidates that are left, ascending."""
        return np.flatnonzero(self._alive_N)

    def bins_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the bins of candidates; -1 for those that lie in none."""
        found: NDArray[np.int64] = self._bins_N[indices]
        return found

    @property
    def counts_B(self) -> NDArray[np.int64]:  # noqa: N802  shape suffix
        """Candidates left in each bin."""
        return np.bincount(self._bins_N[self._alive_N], minlength=self._rule.bins)

    @property
    def is_done(self) -> bool:
        """Whether the warm epochs are over and no bin shrinks any further."""
        warm = self._epoch < self._rule.warm_epochs
        return not warm and bool((self.counts_B <= self._rule.kept).all())

    @property
    def records(self) -> tuple[BinRecord, ...]:
        """What the epochs did, in their order; bins that lost nothing have no record."""
        return tuple(self._records)

    def draw(self, step: int) -> int:
        """Draws the candidate that a step trains, all that are left being equally likely.

        Args:
            step: Number of the step; the same one draws the same while nothing is dropped.
        """
        alive = self.alive
        generator = np.random.default_rng([self._seed, step, _DRAWS])
        return int(alive[generator.integers(len(alive))])

    def sample(self) -> NDArray[np.int64]:
        """Draws the candidates to evaluate at the end of this epoch; asked again, the same.

        Returns:
            Indices `[S]`, ascending, of all bins together; empty if nothing is to be dropped.
        """
        if self._epoch < self._rule.warm_epochs:
            return np.empty(0, dtype=np.int64)
        generator = np.random.default_rng([self._seed, self._epoch])
        drawn = [np.empty(0, dtype=np.int64)]
        for place in np.flatnonzero(self.counts_B > self._rule.kept):
            members = np.flatnonzero(self._alive_N & (self._bins_N == place))
            count = min(self._rule.sampled, len(members))
            drawn.append(generator.choice(members, size=count, replace=False))
        return np.sort(np.concatenate(drawn))

    def drop(self, losses_S: NDArray[Any]) -> tuple[BinRecord, ...]:
        """Ends the epoch: in each bin the sampled half with the largest losses goes.

        Of equal losses the later candidate's counts as larger, and what is not a number as
        infinite. No bin is left with less than it shall keep.

        Args:
            losses_S: Losses of the candidates that `sample` returns, all on the same batches.

        Returns:
            What was dropped, a record for each bin that was sampled.
        """
        sampled = self.sample()
        losses_S = np.asarray(losses_S, dtype=np.float64)
        assert losses_S.shape == sampled.shape, "a loss is due for each sampled candidate"
        losses_S = np.where(np.isnan(losses_S), np.inf, losses_S)
        places_S = self._bins_N[sampled]
        records = tuple(
            self._drop_in_bin(int(place), sampled[places_S == place], losses_S[places_S == place])
            for place in np.unique(places_S)
        )
        self._records.extend(records)
        self._epoch += 1
        return records

    def _drop_in_bin(
        self, place: int, sampled: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> BinRecord:
        count = int(self.counts_B[place])
        dropped = self._rule.dropped(count)
        order = np.argsort(losses, kind="stable")
        staying = len(order) - dropped
        self._alive_N[sampled[order[staying:]]] = False
        return BinRecord(
            epoch=self._epoch,
            bin=place,
            sampled=len(sampled),
            dropped=dropped,
            alive=count - dropped,
            border_loss=float(losses[order[staying - 1]]),
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Returns all that `from_arrays` needs, fit for `numpy.savez` without pickling."""
        return {
            "bins": self._bins_N,
            "alive": self._alive_N.copy(),
            "rule": np.array(astuple(self._rule), dtype=np.int64),
            "seed_and_epoch": np.array([self._seed, self._epoch], dtype=np.int64),
            "records": np.array([astuple(one) for one in self._records]).reshape(-1, 6),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Goes on where another one stood when its arrays were saved."""
        bins, sampled, kept, warm_epochs = arrays["rule"].tolist()
        rule = ShrinkRule(bins=bins, sampled=sampled, kept=kept, warm_epochs=warm_epochs)
        seed, epoch = arrays["seed_and_epoch"].tolist()
        restored = cls(arrays["bins"], rule, seed=seed)
        restored._epoch = epoch
        restored._alive_N = np.array(arrays["alive"], dtype=np.bool_)
        restored._records = [_record_of(row) for row in arrays["records"].tolist()]
        return restored


def _record_of(row: list[float]) -> BinRecord:
    epoch, place, sampled, dropped, alive = map(int, row[:5])
    return BinRecord(
        epoch=epoch,
        bin=place,
        sampled=sampled,
        dropped=dropped,
        alive=alive,
        border_loss=row[5],
    )
