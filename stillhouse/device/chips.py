"""Data sheets of chips that need not be at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter

from stillhouse.device.data_sheets import data_sheets
from stillhouse.errors import DeviceError, SettingsError, did_you_mean

ToldPrecision: TypeAlias = Literal["float32", "bfloat16", "int8", "int8-static"]
"""Arithmetic that a latency can be told for; models are trained in the first two only.

In `int8` activations are scaled as they come, in `int8-static` by scales that texts have fixed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """What of a chip decides how fast it can be.

    Attributes:
        label: Its name for people.
        source: Where the figures are published.
        peak_tflops: Matrix products by precision, dense, 10¹² operations a second; the first
            precision is the chip's own.
        vector_tflops: Element-wise work, 10¹² operations a second.
        bandwidth_gb_s: Of main memory, 10⁹ bytes a second.
        on_chip_mb: Memory on the chip, 10⁶ bytes.
        keeps_weights: Whether weights that fit stay on the chip from one pass to the next. Caches
            do not count: other work comes between.
        fuses: Whether element-wise work is done as part of the operation before it.
        tile: Rows, columns and depth of what a matrix unit does at once.
        units: Matrix units, or cores of a processor.
        launch_us: Time that every operation takes beside its work.
        core_bandwidth_gb_s: What one core alone gets of the bandwidth; `None` where the chip is no
            processor, and threads mean nothing.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    label: str
    source: str
    peak_tflops: Mapping[ToldPrecision, float]
    vector_tflops: float
    bandwidth_gb_s: float
    on_chip_mb: float
    keeps_weights: bool
    fuses: bool
    tile: tuple[int, int, int]
    units: int
    launch_us: float
    core_bandwidth_gb_s: float | None = None

    @property
    def precision(self) -> ToldPrecision:
        """The chip's own precision."""
        return next(iter(self.peak_tflops))

    @property
    def is_processor(self) -> bool:
        """Whether it runs threads."""
        return self.core_bandwidth_gb_s is not None

    def with_threads(self, threads: int) -> Chip:
        """Returns what so many of a processor's cores are together, one thread each.

        They have their share of the arithmetic; of the bandwidth they have what each core gets
        alone, until all of it is used.

        Args:
            threads: At most the number of cores; 0 means all of the chip.

        Raises:
            DeviceError: If there are fewer cores, or the chip is no processor.
        """
        if not threads:
            return self
        if self.core_bandwidth_gb_s is None or threads > self.units:
            has = f"{self.units} cores" if self.is_processor else "no processor threads"
            raise DeviceError(f"{self.label} has {has}, got {threads} threads; set device.threads")
        share = threads / self.units
        return replace(
            self,
            units=threads,
            peak_tflops={name: peak * share for name, peak in self.peak_tflops.items()},
            vector_tflops=self.vector_tflops * share,
            bandwidth_gb_s=min(self.bandwidth_gb_s, threads * self.core_bandwidth_gb_s),
        )


@cache
def known_chips() -> Mapping[str, Chip]:
    """Returns all data sheets by the name that `device.chip` takes."""
    return TypeAdapter(dict[str, Chip]).validate_python(data_sheets())


def find_chip(name: str) -> Chip:
    """Returns the data sheet of a chip.

    Raises:
        SettingsError: If there is none of that name.
    """
    chips = known_chips()
    if name not in chips:
        raise SettingsError(
            f"device.chip must be one of {', '.join(chips)}, got {name!r}"
            f"{did_you_mean(name, chips)}"
        )
    return chips[name]
