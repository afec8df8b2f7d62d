"""Limits: what a student costs, and how far it is over or under each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stillhouse.device.predicted import PredictedDevice
from stillhouse.errors import DeviceError

if TYPE_CHECKING:
    from stillhouse.device.chips import ToldPrecision
    from stillhouse.device.latency import Comparison, Device, Shape, Workload
    from stillhouse.run.device_settings import LimitSettings

logger = logging.getLogger(__name__)

DEFAULT_SPEEDUP = 2.0
ROUNDING = 1e-12
"""A count that is over its limit by a smaller fraction is at it: limits have units of their own."""


def bytes_per_parameter(precision: ToldPrecision) -> int:
    """Tells the least that a parameter takes of what is served."""
    return 1 if precision in ("int8", "int8-static") else 4


def size_mb(
    parameters: int, precision: ToldPrecision = "float32", file_mb: float | None = None
) -> float:
    """Tells the size of what is served, in 10⁶ bytes.

    It is that of the weights in float32, which every recipe can tell without a file. In 8 bits it
    is that of the file, a little more than a byte a parameter; where none is written, these bytes.

    Args:
        parameters: All of the model's.
        precision: Arithmetic of the workload.
        file_mb: Size of the file that the runtime loads, if there is one.
    """
    width = bytes_per_parameter(precision)
    if width == 1 and file_mb is not None:
        return file_mb
    return parameters * width / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What is known of a student's costs.

    Attributes:
        parameters: All of the student's.
        flops_fraction: Operations of the student as a share of the teacher's.
        precision: Arithmetic of the workload.
        comparison: The student's latency beside the teacher's; `None` where it was not asked for.
        memory_mb: What it adds to a process at the peak of loading and serving it, in 10⁶ bytes;
            `None` where it was not asked for.
    """

    parameters: int
    flops_fraction: float
    precision: ToldPrecision
    comparison: Comparison | None = None
    memory_mb: float | None = None

    @property
    def file_mb(self) -> float | None:
        """Size of the file that the runtime loads, in 10⁶ bytes; `None` where there is none."""
        return None if self.comparison is None else self.comparison.file_mb

    @property
    def size_mb(self) -> float:
        """Size of what is served, in 10⁶ bytes."""
        return size_mb(self.parameters, self.precision, self.file_mb)

    def measured(self) -> dict[str, float]:
        """Returns memory and file size, as far as they are known, for records and files."""
        told = {"file_mb": self.file_mb, "memory_mb": self.memory_mb}
        return {name: value for name, value in told.items() if value is not None}


def violations(limits: LimitSettings, weighed: Weighed) -> dict[str, float]:
    """Tells for each limit how far it is exceeded, as a fraction of the limit.

    Latency counts with the upper end of its 95 % interval, so that a limit is met only where the
    measurement is sure of it.

    Returns:
        By limit: 0.25 means a quarter over, 0 or less means met. What is not known is left out.
    """
    used = {
        "size_mb": weighed.size_mb,
        "parameters": float(weighed.parameters),
        "params_m": weighed.parameters / 1e6,
        "flops_fraction": weighed.flops_fraction,
    }
    allowed = limits.given()
    if weighed.memory_mb is not None:
        used["memory_mb"] = weighed.memory_mb
    if weighed.comparison is not None:
        used |= dict.fromkeys(("latency_ms", "speedup"), weighed.comparison.student.high_ms)
        if "speedup" in allowed:
            allowed["speedup"] = weighed.comparison.teacher.median_ms / allowed["speedup"]
    over = {name: used[name] / bound - 1 for name, bound in allowed.items() if name in used}
    return {name: 0.0 if abs(amount) < ROUNDING else amount for name, amount in over.items()}


def is_over(over: Mapping[str, float]) -> bool:
    """Tells whether any limit is exceeded."""
    return any(amount > 0 for amount in over.values())


def is_within(limits: LimitSettings, over: Mapping[str, float]) -> bool:
    """Tells whether every limit is met; one whose cost is not known is not."""
    return limits.given().keys() <= over.keys() and not is_over(over)


def cost_metrics(limits: LimitSettings, weighed: Weighed) -> dict[str, Any]:
    """Returns costs other than latency, and the limits, as they stand in `metrics.json`."""
    over = violations(limits, weighed)
    return {
        "parameters": weighed.parameters,
        "size_mb": weighed.size_mb,
        **weighed.measured(),
        "flops_fraction": weighed.flops_fraction,
        "limits": limits.given(),
        "violations": over,
        "within_limit": is_within(limits, over),
    }


def teacher_costs(parameters: int, student: Weighed) -> dict[str, Any]:
    """Returns what `metrics.json` tells of the teacher's costs beside a student's.

    Its size is left out where a student's is that of a file: nobody has written the teacher's.
    """
    told: dict[str, Any] = {"teacher_parameters": parameters}
    if bytes_per_parameter(student.precision) > 1 or student.file_mb is None:
        told["teacher_size_mb"] = size_mb(parameters, student.precision)
    return told


def weigh(
    device: Device,
    architecture: Shape,
    workload: Workload,
    limits: LimitSettings,
    *,
    parameters: int,
    flops_fraction: float,
) -> Weighed:
    """Asks a device what a candidate costs: for its memory only where that decides.

    Args:
        device: What tells latency and memory.
        architecture: The candidate's.
        workload: What they are told for.
        limits: What it must stay within.
        parameters: All of its.
        flops_fraction: Its operations as a share of the teacher's.

    Raises:
        DeviceError: If the device cannot tell what is asked.
    """
    weighed = Weighed(
        parameters=parameters,
        flops_fraction=flops_fraction,
        precision=workload.precision,
        comparison=device.compare(architecture, workload),
    )
    return with_memory(weighed, limits, partial(device.peak_memory_mb, architecture, workload))


def with_memory(weighed: Weighed, limits: LimitSettings, ask: Callable[[], float]) -> Weighed:
    """Adds the peak memory, which takes seconds, where a limit is on it and all others are met."""
    if limits.memory_mb is None or is_over(violations(limits, weighed)):
        return weighed
    return replace(weighed, memory_mb=ask())


def compare_finished(device: Device, architecture: Shape, workload: Workload) -> Comparison:
    """Tells the latency of a finished student: measured even where candidates' are predicted.

    Args:
        device: What tells it.
        architecture: The student's.
        workload: What it is told for.

    Raises:
        DeviceError: If the device cannot tell it.
    """
    if isinstance(device, PredictedDevice):
        return device.compare_finished(architecture, workload)
    return device.compare(architecture, workload)


def weigh_finished(
    device: Device,
    architecture: Shape,
    workload: Workload,
    *,
    parameters: int,
    flops_fraction: float,
) -> Weighed:
    """Asks a device what a finished student costs, its memory too, whatever the limits are.

    Args:
        device: What tells latency and perhaps memory.
        architecture: The student's.
        workload: What they are told for.
        parameters: All of the student's.
        flops_fraction: Its operations as a share of the teacher's.

    Raises:
        DeviceError: If the device cannot tell the latency.
    """
    weighed = Weighed(
        parameters=parameters,
        flops_fraction=flops_fraction,
        precision=workload.precision,
        comparison=compare_finished(device, architecture, workload),
    )
    return with_any_memory(weighed, partial(device.peak_memory_mb, architecture, workload))


def with_any_memory(weighed: Weighed, ask: Callable[[], float]) -> Weighed:
    """Adds the peak memory where it can be told.

    A student that took hours is not lost where that fails: its memory stays unknown, and a limit on
    it is not met.
    """
    if weighed.memory_mb is not None:
        return weighed
    try:
        return replace(weighed, memory_mb=ask())
    except (DeviceError, OSError, RuntimeError, MemoryError) as error:
        logger.info("peak memory is not known: %s", error)
        return weighed
