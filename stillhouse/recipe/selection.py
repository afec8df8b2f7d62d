"""Choosing subnets from a table of scores: the best within limits, and those that come next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from stillhouse.errors import LimitError
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.limits import (
    Weighed,
    bytes_per_parameter,
    compare_finished,
    is_over,
    violations,
    with_any_memory,
)
from stillhouse.space.counts import count_encoder_parameters, count_flops, count_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.device.latency import Comparison, Device, Workload
    from stillhouse.recipe.supernets import ScoredSubnet
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.space.architecture import Architecture

_DIRECTIONS = ("layers", "hidden_size", "heads", "ffn_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an encoder costs.

    Attributes:
        parameters: All, with embeddings and pooler.
        flops: Operations of one example at the workload's length.
        flops_fraction: The same as a share of the teacher's.
    """

    parameters: int
    flops: int
    flops_fraction: float


class Scales:
    """Weighs encoders: their true counts, and what has to be measured where a limit asks for it.

    Attributes:
        device: What tells latency and memory.
        workload: What they are told for; its length is that of the FLOPs as well.
    """

    def __init__(
        self, config: PreTrainedConfig, limits: LimitSettings, device: Device, workload: Workload
    ) -> None:
        """Keeps the teacher's configuration, the limits, and what tells latency for what."""
        self._ends = replace(ends_of(config), labels=0)
        self._limits, self.device, self.workload = limits, device, workload
        self._teacher_flops = self._flops(architecture_of(config))
        self._compared: dict[Architecture, Comparison] = {}
        self._finished: set[Architecture] = set()
        self._memory_mb: dict[Architecture, float] = {}
        self._too_much: list[tuple[Architecture, Mapping[str, float]]] = []

    def cost(self, architecture: Architecture) -> Cost:
        """Counts parameters and operations in closed form."""
        flops = self._flops(architecture)
        return Cost(
            parameters=count_parameters(architecture, self._ends).total,
            flops=flops,
            flops_fraction=flops / self._teacher_flops,
        )

    def comparison(self, architecture: Architecture) -> Comparison:
        """Tells the latency beside the teacher's; asked for once."""
        if architecture not in self._compared:
            self._compared[architecture] = self.device.compare(architecture, self.workload)
        return self._compared[architecture]

    def memory_mb(self, architecture: Architecture) -> float:
        """Tells the peak memory in 10⁶ bytes; measured once."""
        if architecture not in self._memory_mb:
            self._memory_mb[architecture] = self.device.peak_memory_mb(architecture, self.workload)
        return self._memory_mb[architecture]

    def known(self, architecture: Architecture) -> Weighed:
        """Tells the costs as far as they were asked for; measures nothing."""
        cost = self.cost(architecture)
        return Weighed(
            parameters=cost.parameters,
            flops_fraction=cost.flops_fraction,
            precision=self.workload.precision,
            comparison=self._compared.get(architecture),
            memory_mb=self._memory_mb.get(architecture),
        )

    def finished(self, architecture: Architecture) -> Weighed:
        """Tells all costs of a student that was chosen, its memory where that can be told."""
        self._finish(architecture)
        return with_any_memory(self.known(architecture), partial(self.memory_mb, architecture))

    def over_when_finished(self, architecture: Architecture) -> Mapping[str, float]:
        """Tells by how much an encoder that is to be chosen is over the limits.

        A latency that was predicted is measured; what no limit asked for stays unknown.
        """
        if architecture in self._compared:
            self._finish(architecture)
        return violations(self._limits, self.known(architecture))

    def over(self, architecture: Architecture) -> Mapping[str, float]:
        """Tells by how much an encoder is over the limits; nothing is measured in vain.

        What costs more is measured only where all else is met, and not of one that is at least as
        large as another that was over.
        """
        over = violations(self._limits, self.known(architecture))
        for measure, measured in self._measures():
            if is_over(over):
                break
            if architecture in measured:
                continue
            for other, names in self._too_much:
                if _is_at_least(architecture, other):
                    return dict.fromkeys(names, float("inf"))
            measure(architecture)
            over = violations(self._limits, self.known(architecture))
            if is_over(over):
                names = {name: amount for name, amount in over.items() if amount > 0}
                self._too_much.append((architecture, names))
        return over

    def _measures(
        self,
    ) -> Iterator[tuple[Callable[[Architecture], object], Mapping[Architecture, object]]]:
        """Returns what has to be measured for the limits, quickest first, and what was."""
        limits = self._limits
        has_file = limits.size_mb is not None and bytes_per_parameter(self.workload.precision) == 1
        if limits.latency_ms is not None or limits.speedup is not None or has_file:
            yield self.comparison, self._compared
        if limits.memory_mb is not None:
            yield self.memory_mb, self._memory_mb

    def _finish(self, architecture: Architecture) -> None:
        """Tells the latency as that of a finished student, once; a measured one stays."""
        if architecture in self._finished:
            return
        known = self._compared.get(architecture)
        if known is None or known.student.how == "predicted":
            known = compare_finished(self.device, architecture, self.workload)
        self._compared[architecture] = known
        self._finished.add(architecture)

    def _flops(self, architecture: Architecture) -> int:
        return count_flops(architecture, self._ends, length=self.workload.length)


def best_within(scored: Sequence[ScoredSubnet], scales: Scales, count: int) -> list[ScoredSubnet]:
    """Returns the `count` best subnets within the limits, best first.

    Where latencies are predicted, the best is within the limits as it is measured, too.

    Raises:
        LimitError: If none is within the limits; it names the smallest one and its costs.
    """
    ordered = sorted(scored, key=lambda one: one.order)
    found = first_within(ordered, scales, count)
    while is_over(scales.over_when_finished(found[0].architecture)):
        found = first_within(ordered, scales, count)  # without it, which is known to be over now
    return found


def first_within(scored: Sequence[ScoredSubnet], scales: Scales, count: int) -> list[ScoredSubnet]:
    """Returns the first `count` subnets that are within the limits, in their order.

    Raises:
        LimitError: If none is within the limits; it names the smallest one and its costs.
    """
    found: list[ScoredSubnet] = []
    for subnet in scored:
        if len(found) == count:
            break
        if not is_over(scales.over(subnet.architecture)):
            found.append(subnet)
    if not found:
        spaces: dict[str, list[Architecture]] = {}
        for one in scored:
            spaces.setdefault(one.space, []).append(one.architecture)
        raise LimitError(_why_none(spaces, scales))
    return found


def refuse_hopeless(spaces: Mapping[str, Iterable[Architecture]], scales: Scales) -> None:
    """Refuses limits that not even the smallest student of any space is within.

    What has to be measured is tried on the smallest students alone.

    Raises:
        LimitError: If there is no hope; it names the smallest one and its costs.
    """
    if all(is_over(scales.over(_smallest(space))) for space in spaces.values()):
        raise LimitError(_why_none(spaces, scales))


def _smallest(architectures: Iterable[Architecture]) -> Architecture:
    return min(architectures, key=count_encoder_parameters)


def _why_none(spaces: Mapping[str, Iterable[Architecture]], scales: Scales) -> str:
    smallest = _smallest(_smallest(space) for space in spaces.values())
    cost = scales.cost(smallest)
    over = ", ".join(
        f"{name} by {amount:.0%}" for name, amount in scales.over(smallest).items() if amount > 0
    )
    return (
        f"no student can meet the limit: even the smallest of {', '.join(spaces)} "
        f"({smallest.label}; "
        f"{cost.parameters / 1e6:.2f} M parameters, {cost.flops_fraction:.3f} of the teacher's "
        f"FLOPs) is over {over}. Loosen the limit, or search spaces of smaller students "
        "(supernet.spaces) in another run directory."
    )


def _is_at_least(one: Architecture, other: Architecture) -> bool:
    """Tells whether an architecture is as large as another in every direction."""
    return all(getattr(one, name) >= getattr(other, name) for name in _DIRECTIONS)
