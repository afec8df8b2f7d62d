"""The best combinations of one candidate per block under limits, out of all, from tables alone.

Losses and costs of a combination are sums over its blocks, so 100 candidates in each of 4 blocks
give 10⁸ combinations. They are never written down: the blocks are halved, each half's combinations
(10⁴) are listed by loss, and a combination of the left half is compared with those of the right
half that can still be among the best. Nothing is approximate.

Source: NAS-BERT (Xu et al., KDD 2021), which selects from a complete table.

Shapes: R rows of a block, C costs, G groups, M combinations of the left half, N of the right half,
T selected.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

MOST_BLOCKS = 4

_CHUNK = 128  # combinations of the left half at a time: arrays stay in the processor's cache
_NEAREST_CHUNK = 16
_ROUNDING = 1e-12
"""How much too much, as a fraction of the limit, may pass a check that only saves time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockTable:
    """The candidates of a block.

    Attributes:
        loss: Loss `[R]`. A row whose loss or cost is not finite is never selected.
        costs: Costs `[R, C]`, at least 0.
        group: Group `[R]`, 0 to G-1, which decides what the way to the next block costs: the row's
            hidden size.
    """

    loss: NDArray[np.float64]
    costs: NDArray[np.float64]
    group: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selected:
    """Combinations, best first.

    Attributes:
        losses: Sums of the blocks' losses `[T]`.
        rows: Row of each block's table `[T, blocks]`.
        costs: Sums of the costs `[T, C]`.
    """

    losses: NDArray[np.float64]
    rows: NDArray[np.int64]
    costs: NDArray[np.float64]


def select_lowest(
    tables: Sequence[BlockTable],
    *,
    bridges: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    limits: NDArray[np.float64],
    count: int,
) -> Selected:
    """Selects the combinations of one row per block with the lowest loss under limits.

    Costs of a combination are those of its rows, of the first row's group, of the ways between
    neighbours' groups, and of the last row's group. Sums are of float64 numbers, in the blocks'
    order within each half (the first two blocks, the others), then of the halves.

    Args:
        tables: The blocks, 1 to 4.
        bridges: Costs of the way from one group to another `[G, G, C]`.
        first: Costs before the first block, by its group `[G, C]`.
        last: Costs after the last block, by its group `[G, C]`.
        limits: Largest allowed sum of each cost `[C]`, above 0; infinite for none.
        count: Combinations to select, at least 1.

    Returns:
        The selected by loss, equal ones by rows; fewer than `count` if fewer meet the limits.

    Raises:
        SettingsError: On another number of blocks, a limit of 0 or less, or a count below 1.
    """
    if count < 1:
        raise SettingsError(f"a selection has 1 combination or more, but {count} were asked for")
    halves = _halve(tables, bridges=bridges, first=first, last=last, limits=limits)
    left, rights = _without_hopeless(halves, limits)
    least_loss = min((right.losses[0] for right in rights if len(right.losses)), default=math.inf)
    best = _Best(count)
    for start, end in _chunks(len(left.losses), _CHUNK):
        if left.losses[start] + least_loss > best.worst:
            break
        for group, chunk in _by_group(left, start, end):
            losses, lefts, places = _meeting(chunk, rights[group], limits, best.worst)
            best.add(losses, halves.keys(lefts, places))
    return halves.selected(best.keys)


def nearest(
    tables: Sequence[BlockTable],
    *,
    bridges: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    limits: NDArray[np.float64],
) -> Selected:
    """Finds the combination that exceeds the limits the least, to tell where nothing meets them.

    It is the one with the smallest worst ratio of a cost to its limit: one that is 3 % over the
    size and 3 % over the latency is nearer than one that is 4 % over the size alone. Of equal
    ratios, as float64 sums of costs divided by limits give them, the lowest loss is taken, then
    the first rows. It is exact: all combinations count.

    Args:
        tables: The blocks, 1 to 4.
        bridges: Costs of the way from one group to another `[G, G, C]`.
        first: Costs before the first block, by its group `[G, C]`.
        last: Costs after the last block, by its group `[G, C]`.
        limits: Largest allowed sum of each cost `[C]`, above 0; infinite for none.

    Returns:
        One combination; none only if a block has no row with finite numbers.

    Raises:
        SettingsError: On another number of blocks or a limit of 0 or less.
    """
    halves = _halve(tables, bridges=bridges, first=first, last=last, limits=limits)
    left, rights = halves.left, halves.rights
    if not len(left.losses) or not len(rights[0].losses):
        return halves.selected(np.empty(0, dtype=np.int64))
    scaled = [right.costs / limits[:, None] for right in rights]
    lowest_GC = np.array([costs_CN.min(axis=1) for costs_CN in scaled])
    bounds_M = (left.costs / limits + lowest_GC[left.groups]).max(axis=1)
    order = np.argsort(bounds_M, kind="stable")
    left, bounds_M = left.take(order), bounds_M[order]
    best: tuple[float, float, int] = (math.inf, math.inf, 0)
    for start, end in _chunks(len(left.losses), _NEAREST_CHUNK):
        if bounds_M[start] > best[0]:
            break
        for group, chunk in _by_group(left, start, end):
            ratio_MN = _worst_ratio(chunk.costs / limits, scaled[group])
            least = float(ratio_MN.min())
            if least > best[0]:
                continue
            m, n = np.nonzero(ratio_MN == least)
            losses = chunk.losses[m] + rights[group].losses[n]
            keys = halves.keys(chunk.keys[m], rights[group].keys[n])
            lowest = float(losses.min())
            best = min(best, (least, lowest, int(keys[losses == lowest].min())))
    return halves.selected(np.array([best[2]]))


def _worst_ratio(
    left_MC: NDArray[np.float64], right_CN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Adds scaled costs, all of the left half to all of the right, and takes the largest."""
    worst_MN: NDArray[np.float64] = left_MC[:, 0, None] + right_CN[0]
    for cost in range(1, len(right_CN)):
        np.maximum(worst_MN, left_MC[:, cost, None] + right_CN[cost], out=worst_MN)
    return worst_MN


def _chunks(count: int, largest: int) -> Iterator[tuple[int, int]]:
    """Parts a range; the first chunks are small, as what they find spares work in the others."""
    start, size = 0, 1
    while start < count:
        yield start, min(start + size, count)
        start, size = start + size, min(2 * size, largest)


def _by_group(left: _Left, start: int, end: int) -> Iterator[tuple[int, _Left]]:
    """Parts a chunk of the left combinations by their last group."""
    groups = left.groups[start:end]
    for group in np.unique(groups):
        yield int(group), left.take(start + np.flatnonzero(groups == group))


def _meeting(
    chunk: _Left, right: _Right, limits: NDArray[np.float64], worst: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Finds the combinations that meet the limits with a loss of at most `worst`.

    The checks over all pairs compare the right half's numbers with what the left half leaves of
    the limit, with room for rounding; the sums themselves are made of the few that pass.

    Returns:
        Losses, left keys and right keys.
    """
    wide = worst + _ROUNDING * (abs(worst) + abs(chunk.losses[0])) - chunk.losses[0]
    width = int(np.searchsorted(right.losses, wide, side="right"))
    room_MC = limits * (1 + _ROUNDING) - chunk.costs
    passes_MN = np.ones((len(chunk.losses), width), dtype=np.bool_)
    for cost in np.flatnonzero(np.isfinite(limits)):
        passes_MN &= right.costs[cost, :width] <= room_MC[:, cost, None]
    m, n = np.divmod(np.flatnonzero(passes_MN), max(width, 1))
    losses = chunk.losses[m] + right.losses[n]
    costs_TC = chunk.costs[m] + right.costs[:, n].T
    meets = (losses <= worst) & (costs_TC <= limits).all(axis=1)
    return losses[meets], chunk.keys[m[meets]], right.keys[n[meets]]


class _Best:
    """The lowest losses so far, equal ones by key."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._losses = np.empty(0)
        self.keys = np.empty(0, dtype=np.int64)

    @property
    def worst(self) -> float:
        """The loss that another combination must not exceed."""
        return float(self._losses[-1]) if len(self._losses) == self._count else math.inf

    def add(self, losses: NDArray[np.float64], keys: NDArray[np.int64]) -> None:
        if len(self._losses) == self._count:
            is_equal = losses == self._losses[-1]
            better = (losses < self._losses[-1]) | (is_equal & (keys < self.keys[-1]))
            losses, keys = losses[better], keys[better]
        losses = np.concatenate([self._losses, losses])
        keys = np.concatenate([self.keys, keys])
        if len(losses) > self._count:
            near = losses <= np.partition(losses, self._count - 1)[self._count - 1]
            losses, keys = losses[near], keys[near]
        order = np.lexsort((keys, losses))[: self._count]
        self._losses, self.keys = losses[order], keys[order]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Left:
    """Combinations of the first blocks, with the costs before them.

    Attributes:
        keys: Numbers of the combinations `[M]`.
        losses: Sums `[M]`.
        groups: Groups of the last rows `[M]`.
        costs: Sums `[M, C]`.
    """

    keys: NDArray[np.int64]
    losses: NDArray[np.float64]
    groups: NDArray[np.int64]
    costs: NDArray[np.float64]

    def take(self, places: NDArray[Any]) -> _Left:
        return _Left(
            keys=self.keys[places],
            losses=self.losses[places],
            groups=self.groups[places],
            costs=self.costs[places],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Right:
    """Combinations of the other blocks, with the costs of the way there from one group.

    Attributes:
        keys: Numbers of the combinations `[N]`.
        losses: Sums `[N]`.
        costs: Sums `[C, N]`.
    """

    keys: NDArray[np.int64]
    losses: NDArray[np.float64]
    costs: NDArray[np.float64]

    def take(self, places: NDArray[Any]) -> _Right:
        return _Right(
            keys=self.keys[places],
            losses=self.losses[places],
            costs=np.ascontiguousarray(self.costs[:, places]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Half:
    """All combinations of some neighbouring blocks, in the order of their rows.

    A combination's place here is its key.
    """

    rows: NDArray[np.int64]
    loss: NDArray[np.float64]
    costs: NDArray[np.float64]
    begins: NDArray[np.int64]
    ends: NDArray[np.int64]

    def joined(self, table: BlockTable, bridges: NDArray[np.float64]) -> _Half:
        """Appends a block."""
        mine = np.repeat(np.arange(len(self.loss)), len(table.loss))
        its = np.tile(np.arange(len(table.loss)), len(self.loss))
        ways = bridges[self.ends[mine], table.group[its]]
        return _Half(
            rows=np.column_stack([self.rows[mine], its]),
            loss=self.loss[mine] + table.loss[its],
            costs=self.costs[mine] + ways + table.costs[its],
            begins=self.begins[mine],
            ends=table.group[its],
        )

    def by_loss(self) -> NDArray[np.int64]:
        """Keys of the combinations with finite numbers, lowest loss first, then by rows."""
        keys = np.flatnonzero(np.isfinite(self.loss) & np.isfinite(self.costs).all(axis=1))
        return keys[np.argsort(self.loss[keys], kind="stable")]


def _half_of(
    tables: Sequence[BlockTable], bridges: NDArray[np.float64], before: NDArray[np.float64]
) -> _Half:
    """Lists the combinations of some blocks; of no block there is one, which costs nothing."""
    if not tables:
        nothing = np.zeros(1, dtype=np.int64)
        return _Half(
            rows=np.empty((1, 0), dtype=np.int64),
            loss=np.zeros(1),
            costs=np.zeros((1, before.shape[1])),
            begins=nothing,
            ends=nothing,
        )
    half = _Half(
        rows=np.arange(len(tables[0].loss))[:, None],
        loss=tables[0].loss,
        costs=before[tables[0].group] + tables[0].costs,
        begins=tables[0].group,
        ends=tables[0].group,
    )
    for table in tables[1:]:
        half = half.joined(table, bridges)
    return half


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Halves:
    """Both halves: listed by loss for the search, and complete by key for looking up.

    Attributes:
        left: The first blocks.
        rights: The other blocks, after each group that the first ones may end in.
        every_left: All combinations of the first blocks.
        every_right: All combinations of the other blocks; its costs are not used.
        right_costs: Their costs after each group, with the way from it and the end `[G, N, C]`.
    """

    left: _Left
    rights: list[_Right]
    every_left: _Half
    every_right: _Half
    right_costs: NDArray[np.float64]

    def keys(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers whole combinations, in the order of their rows."""
        return left * len(self.every_right.loss) + right

    def selected(self, keys: NDArray[np.int64]) -> Selected:
        """Looks combinations up."""
        left, right = np.divmod(keys, max(len(self.every_right.loss), 1))
        rest_TC = self.right_costs[self.every_left.ends[left], right]
        return Selected(
            losses=self.every_left.loss[left] + self.every_right.loss[right],
            rows=np.column_stack([self.every_left.rows[left], self.every_right.rows[right]]),
            costs=self.every_left.costs[left] + rest_TC,
        )


def _halve(
    tables: Sequence[BlockTable],
    *,
    bridges: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
    limits: NDArray[np.float64],
) -> _Halves:
    if not 1 <= len(tables) <= MOST_BLOCKS:
        raise SettingsError(
            f"a selection from tables combines 1 to {MOST_BLOCKS} blocks, but there are "
            f"{len(tables)}; join blocks to longer ones"
        )
    if not (limits > 0).all():
        raise SettingsError(f"limits are above 0, but they are {limits.tolist()}")
    middle = (len(tables) + 1) // 2
    every_left = _half_of(tables[:middle], bridges, first)
    every_right = _half_of(tables[middle:], bridges, np.zeros_like(first))
    if middle == len(tables):
        right_costs_GNC = last[:, None]
    else:
        ways_GNC = bridges[:, every_right.begins]
        right_costs_GNC = ways_GNC + every_right.costs + last[every_right.ends]
    left, right = every_left.by_loss(), every_right.by_loss()
    return _Halves(
        left=_Left(
            keys=left,
            losses=every_left.loss[left],
            groups=every_left.ends[left],
            costs=every_left.costs[left],
        ),
        rights=[
            _Right(
                keys=right,
                losses=every_right.loss[right],
                costs=np.ascontiguousarray(costs_NC[right].T),
            )
            for costs_NC in right_costs_GNC
        ],
        every_left=every_left,
        every_right=every_right,
        right_costs=right_costs_GNC,
    )


def _without_hopeless(halves: _Halves, limits: NDArray[np.float64]) -> tuple[_Left, list[_Right]]:
    """Leaves out what exceeds a limit even with the cheapest other half; each cost by itself."""
    above_C = limits * (1 + _ROUNDING)
    lowest_GC = np.array([right.costs.min(axis=1, initial=math.inf) for right in halves.rights])
    cheapest_MC = halves.left.costs + lowest_GC[halves.left.groups]
    left = halves.left.take((cheapest_MC <= above_C).all(axis=1))
    rights = []
    for group, right in enumerate(halves.rights):
        before_C = left.costs[left.groups == group].min(axis=0, initial=math.inf)
        with_it_CN = before_C[:, None] + right.costs
        rights.append(right.take((with_it_CN <= above_C[:, None]).all(axis=0)))
    return left, rights
