"""Workloads and latencies: every figure carries what was run, how it was obtained, its spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from scipy import stats

from stillhouse.device.chips import ToldPrecision
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import DeviceError, SettingsError

How: TypeAlias = Literal["measured", "predicted", "table", "analytic"]

LEAST_RUNS_OF_AN_INTERVAL = 6
"""2 · 0.5⁶ < 0.05: with fewer runs the 95 % interval of a median does not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a latency is the latency of.

    Attributes:
        batch: Examples in one request.
        length: Tokens of each example.
        precision: Arithmetic of weights and activations.
        threads: Processor threads; 0 on a GPU or another accelerator, where they do not matter.
        padding_fraction: Share of the tokens of every example that are padding, 0 to below 1.
    """

    length: int
    batch: int = 1
    precision: ToldPrecision = "float32"
    threads: int = 0
    padding_fraction: float = 0.0

    def __post_init__(self) -> None:
        """Refuses an impossible workload."""
        if self.length < 1 or self.batch < 1 or self.threads < 0:
            raise SettingsError(
                f"workload: batch and length must be at least 1, threads not negative; got {self}"
            )
        if not 0 <= self.padding_fraction < 1:
            raise SettingsError(
                "workload: padding_fraction must be at least 0 and below 1, got "
                f"{self.padding_fraction}"
            )

    @property
    def label(self) -> str:
        """One line for a person: `batch 1, length 64, float32, 2 threads`."""
        unit = "thread" if self.threads == 1 else "threads"
        threads = f", {self.threads} {unit}" if self.threads else ""
        padding = f", {self.padding_fraction:.0%} padding" if self.padding_fraction else ""
        return f"batch {self.batch}, length {self.length}, {self.precision}{threads}{padding}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one forward pass, in milliseconds.

    Attributes:
        median_ms: Median over the runs.
        low_ms: Lower end of the median's 95 % interval.
        high_ms: Upper end of it; a limit is met when this is below the limit.
        p10_ms: 10th percentile of the runs.
        p90_ms: 90th percentile of the runs.
        runs: Passes timed; 0 for a figure that was looked up or computed.
        how: How the figure is known.
        device: Name of the device.
        workload: What was run.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    how: How
    device: str
    workload: Workload

    def to_dict(self) -> dict[str, object]:
        """Returns plain data for records and files."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A student's latency and its teacher's, obtained side by side.

    Attributes:
        student: Latency of the student.
        teacher: Latency of the teacher in the same minute, so that a ratio survives a busy machine.
        noise_fraction: Half-width of the 95 % interval of their ratio, over the ratio; 0 where
            nothing was timed.
        file_mb: Size of the file that the runtime loads for the student, in 10⁶ bytes; `None`
            where there is no file.
        attempts: How often both were timed anew, the first time included; 0 where nothing was.
        predicted: What was predicted of the student before it was measured; `None` where nothing
            was.
    """

    student: Latency
    teacher: Latency
    noise_fraction: float = 0.0
    file_mb: float | None = None
    attempts: int = 0
    predicted: Latency | None = None

    @property
    def speedup(self) -> float:
        """How many times faster the student is."""
        return self.teacher.median_ms / self.student.median_ms


class Shape(Protocol):
    """What a device asks of an architecture of any family: a name that no other one has."""

    @property
    def key(self) -> str:
        """Short name, fit for a file name and for a row of a table."""
        ...


class Device(Protocol):
    """Something that tells latencies for architectures under a workload."""

    @property
    def name(self) -> str:
        """What stands beside every figure, such as the processor's name and runtime."""
        ...

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:
        """Tells the latency of a student of `architecture` beside the teacher's.

        Raises:
            DeviceError: If the device cannot tell it.
        """
        ...

    def peak_memory_mb(self, architecture: Shape, workload: Workload) -> float:
        """Tells what a student adds to the memory of a process that has only its runtime.

        Returns:
            10⁶ bytes at the peak of loading it and running the workload a few times; on a CUDA
            device of that device's memory.

        Raises:
            DeviceError: If the device cannot tell it.
        """
        ...


def told(
    ms: float, *, how: Literal["table", "analytic"], device: str, workload: Workload
) -> Latency:
    """Returns a latency that was not timed, and so has no spread.

    Args:
        ms: The one figure that there is.
        how: How it is known.
        device: Name of the device.
        workload: What it is for.
    """
    return Latency(
        median_ms=ms,
        low_ms=ms,
        high_ms=ms,
        p10_ms=ms,
        p90_ms=ms,
        runs=0,
        how=how,
        device=device,
        workload=workload,
    )


def no_memory(source: str, architecture: Shape, workload: Workload) -> DeviceError:
    """Returns the error of a device that tells latencies alone.

    Args:
        source: What tells them.
        architecture: Whose memory was asked for.
        workload: What it was asked for.
    """
    return DeviceError(
        f"{source} tells latencies, not the peak memory of {architecture.key} at "
        f"{workload.label}; memory is measured where models run: take one of the devices "
        f"{', '.join(MEASURED)}"
    )


def summarise(times_ms: Sequence[float], *, device: str, workload: Workload) -> Latency:
    """Summarises timed passes.

    Args:
        times_ms: At least 6 passes; fewer give no 95 % interval of a median.
        device: Name of the device.
        workload: What was run.
    """
    if len(times_ms) < LEAST_RUNS_OF_AN_INTERVAL:
        raise DeviceError(
            f"{len(times_ms)} timed runs: a median needs at least {LEAST_RUNS_OF_AN_INTERVAL} for "
            "its interval"
        )
    interval: Any = stats.quantile_test(times_ms, p=0.5).confidence_interval(confidence_level=0.95)
    p10, median, p90 = np.percentile(times_ms, [10, 50, 90])
    return Latency(
        median_ms=float(median),
        low_ms=float(interval.low),
        high_ms=float(interval.high),
        p10_ms=float(p10),
        p90_ms=float(p90),
        runs=len(times_ms),
        how="measured",
        device=device,
        workload=workload,
    )
