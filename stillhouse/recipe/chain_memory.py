"""How many parameters a limit on memory leaves to chains, by few measured ones: no sum tells it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stillhouse.errors import LimitError
from stillhouse.recipe.limits import bytes_per_parameter

if TYPE_CHECKING:
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup
    from stillhouse.recipe.chain_table import ChainTable
    from stillhouse.recipe.limits import Weighed

MEMORY_ROUNDS = 4
"""How often chains are proposed for a limit on memory, each time of fewer parameters."""
MOST_MEMORIES = 10
"""Chains whose memory is measured in a round; each takes seconds."""


class MemoryBound:
    """Most parameters of what is proposed: memory is taken to rise with them in a straight line.

    Whoever is proposed is measured, so that a wrong slope costs time and no limit.
    """

    def __init__(
        self, allowed_mb: float, *, smallest_parameters: int, smallest_mb: float, least_bytes: int
    ) -> None:
        """Begins with a line through the smallest chain.

        Args:
            allowed_mb: The limit, in 10⁶ bytes; at least `smallest_mb`.
            smallest_parameters: Those of the smallest chain.
            smallest_mb: Its peak memory, in 10⁶ bytes.
            least_bytes: The least that a parameter takes.
        """
        self._allowed_mb = allowed_mb
        self._smallest = smallest_parameters, smallest_mb
        self._mb_a_parameter = least_bytes / 1e6

    @property
    def most_parameters(self) -> float:
        """Parameters that the limit leaves."""
        parameters, memory_mb = self._smallest
        return parameters + (self._allowed_mb - memory_mb) / self._mb_a_parameter

    def learns_from(self, weighed: Iterable[Weighed]) -> bool:
        """Makes the line as steep as half of the chains that need too much memory ask for.

        Returns:
            Whether it became steeper; if not, the same chains would be proposed again.
        """
        parameters, memory_mb = self._smallest
        slopes = [
            (one.memory_mb - memory_mb) / (one.parameters - parameters)
            for one in weighed
            if one.memory_mb is not None
            and one.memory_mb > self._allowed_mb
            and one.parameters > parameters
        ]
        before = self._mb_a_parameter
        self._mb_a_parameter = max(before, statistics.median(slopes) if slopes else 0.0)
        return self._mb_a_parameter > before


def bound_memory(
    setup: ChainSetup | ChainNursery, table: ChainTable, allowed_mb: float
) -> MemoryBound:
    """Measures the smallest chain of a table.

    Raises:
        LimitError: If even that one needs more.
        DeviceError: If the device cannot tell memory.
    """
    smallest = table.smallest()
    memory_mb = setup.device.peak_memory_mb(smallest, setup.workload)
    if memory_mb > allowed_mb:
        raise LimitError(
            f"no student can meet the limit: even the smallest ({smallest.label}) takes "
            f"{memory_mb:.1f} MB at its peak, over memory_mb={allowed_mb:g} by "
            f"{memory_mb / allowed_mb - 1:.0%} ({setup.workload.label} on {setup.device.name}). "
            "Raise the limit, or shorten device.length"
        )
    return MemoryBound(
        allowed_mb,
        smallest_parameters=table.parameters(smallest),
        smallest_mb=memory_mb,
        least_bytes=bytes_per_parameter(setup.workload.precision),
    )
