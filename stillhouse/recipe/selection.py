"""Choosing subnets from a table of scores: the best within limits, and those that come next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stillhouse.errors import DeviceError
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.limits import violations
from stillhouse.space.counts import count_encoder_parameters, count_flops, count_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.device.latency import Comparison, Device, Workload
    from stillhouse.recipe.supernets import ScoredSubnet
    from stillhouse.run.settings import LimitSettings
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
    """Weighs encoders: their true counts, and their latency where a limit asks for it.

    Attributes:
        device: What tells latency.
        workload: What it is told for; its length is that of the FLOPs as well.
    """

    def __init__(
        self, config: PreTrainedConfig, limits: LimitSettings, device: Device, workload: Workload
    ) -> None:
        """Keeps the teacher's configuration, the limits, and what tells latency for what."""
        self._ends = replace(ends_of(config), labels=0)
        self._limits, self.device, self.workload = limits, device, workload
        self._teacher_flops = self._flops(architecture_of(config))
        self._measured: dict[Architecture, Comparison] = {}
        self._too_slow: list[Architecture] = []

    def cost(self, architecture: Architecture) -> Cost:
        """Counts parameters and operations in closed form."""
        flops = self._flops(architecture)
        return Cost(
            parameters=count_parameters(architecture, self._ends).total,
            flops=flops,
            flops_fraction=flops / self._teacher_flops,
        )

    def comparison(self, architecture: Architecture) -> Comparison:
        """Tells the latency beside the teacher's; measured once."""
        if architecture not in self._measured:
            self._measured[architecture] = self.device.compare(architecture, self.workload)
        return self._measured[architecture]

    def over(self, architecture: Architecture) -> Mapping[str, float]:
        """Tells by how much an encoder is over the limits; latency is not measured in vain."""
        counted = self._over(architecture, with_latency=False)
        if not self._asks_latency or max(counted.values(), default=0.0) > 0:
            return counted
        is_known = architecture in self._measured
        if not is_known and any(_is_at_least(architecture, slow) for slow in self._too_slow):
            return {"latency_ms": float("inf")}
        everything = self._over(architecture, with_latency=True)
        if not is_known and max(everything.values()) > 0:
            self._too_slow.append(architecture)
        return everything

    @property
    def _asks_latency(self) -> bool:
        return self._limits.latency_ms is not None or self._limits.speedup is not None

    def _over(self, architecture: Architecture, *, with_latency: bool) -> dict[str, float]:
        limits = self._limits
        if not with_latency:
            limits = replace(limits, latency_ms=None, speedup=None)
        cost = self.cost(architecture)
        return violations(
            limits,
            self.comparison(architecture) if with_latency else None,
            parameters=cost.parameters,
            flops_fraction=cost.flops_fraction,
        )

    def _flops(self, architecture: Architecture) -> int:
        return count_flops(architecture, self._ends, length=self.workload.length)


def best_within(scored: Sequence[ScoredSubnet], scales: Scales, count: int) -> list[ScoredSubnet]:
    """Returns the `count` best subnets within the limits, best first.

    Raises:
        DeviceError: If none is within the limits; it names the smallest one and its costs.
    """
    found: list[ScoredSubnet] = []
    for subnet in sorted(scored, key=lambda one: one.order):
        if len(found) == count:
            break
        if not _is_over(subnet.architecture, scales):
            found.append(subnet)
    if not found:
        spaces: dict[str, list[Architecture]] = {}
        for one in scored:
            spaces.setdefault(one.space, []).append(one.architecture)
        raise DeviceError(_why_none(spaces, scales))
    return found


def refuse_hopeless(spaces: Mapping[str, Iterable[Architecture]], scales: Scales) -> None:
    """Refuses limits that not even the smallest student of any space is within.

    A limit on latency is tried on the smallest students alone.

    Raises:
        DeviceError: If there is no hope; it names the smallest one and its costs.
    """
    if all(_is_over(_smallest(space), scales) for space in spaces.values()):
        raise DeviceError(_why_none(spaces, scales))


def _is_over(architecture: Architecture, scales: Scales) -> bool:
    return any(amount > 0 for amount in scales.over(architecture).values())


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
