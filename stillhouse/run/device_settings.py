"""Settings of the device, and of the limits that a student has to stay within on it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict

from stillhouse.device.chips import ToldPrecision, find_chip
from stillhouse.device.kinds import MEASURED, MeasuredKind
from stillhouse.device.profile import read_profile
from stillhouse.errors import SettingsError
from stillhouse.run.rules import STRICT, check


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What a student must stay within; without any, twice the teacher's speed is asked for.

    Attributes:
        latency_ms: Upper end of the latency's interval stays below it.
        speedup: At least so many times as fast as the teacher.
        size_mb: Size of what is served, in 10⁶ bytes: the weights in float32; on a device of 8
            bits the file that its runtime loads, or a byte a parameter where there is none.
        memory_mb: What it adds to the memory of a process that has only its runtime, at the peak of
            loading and serving it, in 10⁶ bytes; for devices that run models here.
        parameters: All parameters, embeddings included.
        params_m: The same, in millions.
        flops_fraction: Operations at the workload's length, as a share of the teacher's.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    latency_ms: float | None = None
    speedup: float | None = None
    size_mb: float | None = None
    memory_mb: float | None = None
    parameters: float | None = None
    params_m: float | None = None
    flops_fraction: float | None = None

    def __post_init__(self) -> None:
        """Refuses limits that are not above 0."""
        for name, value in self.given().items():
            check(holds=value > 0, rule=f"limit.{name} must be above 0", value=value)

    def given(self) -> dict[str, float]:
        """Returns the limits that were set."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSettings:
    """Where latency is told, and for which workload.

    Attributes:
        kind: `auto` is PyTorch on CUDA where present, else on the processor; other runtimes have
            their own names, such as `onnxruntime-cpu`; `table` looks up a file; `analytic` computes
            from the data sheet of a chip; `predicted` tells by a profile of this machine.
        table: CSV with the columns `architecture` and `latency_ms`, for `table`.
        chip: Name of a data sheet, such as `tpu-v4i`, for `analytic`.
        profile: JSON file that `stillhouse profile` wrote, for `predicted`. What is left open of
            the workload is the profile's, and nothing else can be asked of it.
        batch: Examples in one request; where none is given, 1, or the profile's.
        length: Tokens; `None` means the 95th percentile of the task, rounded up to 16.
        threads: Processor threads; `None` means all physical cores, or all of a chip's. A chip that
            is no processor takes none.
        precision: Arithmetic that latency is told for; where none is given, the chip's own, and
            float32 on other devices. In 8 bits, task searches score students as they are served.
        padding_fraction: Share of the tokens of a request that are padding.
        watts: Power of what has no energy counter, for the cost that is told of a run; `None` takes
            usual figures for processors and GPUs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    kind: Literal["auto", "table", "analytic", "predicted", MeasuredKind] = "auto"
    table: str | None = None
    chip: str | None = None
    profile: str | None = None
    batch: int | None = None
    length: int | None = None
    threads: int | None = None
    precision: ToldPrecision | None = None
    padding_fraction: float = 0.0
    watts: float | None = None

    def __post_init__(self) -> None:
        """Refuses a device without what it needs, and a workload that is none or not for it."""
        check(
            holds=(self.kind == "table") == (self.table is not None),
            rule="device.table must name a file exactly when device.kind is 'table'",
            value=self.table,
        )
        check(
            holds=(self.kind == "analytic") == (self.chip is not None),
            rule="device.chip must name a chip exactly when device.kind is 'analytic'",
            value=self.chip,
        )
        check(
            holds=(self.kind == "predicted") == (self.profile is not None),
            rule="device.profile must name a file exactly when device.kind is 'predicted'",
            value=self.profile,
        )
        for name in ("batch", "length", "threads"):
            value = getattr(self, name)
            check(
                holds=value is None or value > 0,
                rule=f"device.{name} must be above 0",
                value=value,
            )
        check(
            holds=0 <= self.padding_fraction < 1,
            rule="device.padding_fraction must be at least 0 and below 1",
            value=self.padding_fraction,
        )
        check(
            holds=self.watts is None or 0 < self.watts < math.inf,
            rule="device.watts must be a number above 0",
            value=self.watts,
        )
        self._check_threads()
        allowed, own = self._precisions()
        check(
            holds=self.precision is None or self.precision in allowed,
            rule=f"device.precision must be one of {', '.join(allowed)} on this device",
            value=self.precision,
        )
        object.__setattr__(self, "precision", self.precision or own)
        if self.profile is None:
            object.__setattr__(self, "batch", self.batch or 1)

    def as_measured(self) -> DeviceSettings:
        """Returns what a profile's latencies were measured with; other settings as they are.

        Raises:
            DeviceError: If the profile cannot be read.
            SettingsError: If another workload is asked for than the profile's.
        """
        if self.profile is None:
            return self
        profile = read_profile(Path(self.profile))
        workload = profile.workload
        asked = {name: getattr(self, name) for name in ("batch", "length", "threads", "precision")}
        asked |= {"padding_fraction": self.padding_fraction or None}
        if not workload.threads:  # they do not matter there
            del asked["threads"]
        other = [
            f"device.{name} is {value}, the profile's {getattr(workload, name)}"
            for name, value in asked.items()
            if value not in (None, getattr(workload, name))
        ]
        if other:
            raise SettingsError(
                f"latency profile {self.profile} is for {workload.label}: {'; '.join(other)}. "
                "Leave that out, or make another profile"
            )
        return DeviceSettings(
            kind=profile.subject.kind,
            batch=workload.batch,
            length=workload.length,
            threads=workload.threads or None,
            precision=workload.precision,
            padding_fraction=workload.padding_fraction,
        )

    def _check_threads(self) -> None:
        if self.chip is None or self.threads is None:
            return
        chip = find_chip(self.chip)
        check(
            holds=chip.is_processor,
            rule=f"device.threads must be left out for {chip.label}: it is no processor, and what "
            "computes on it is in its data sheet",
            value=self.threads,
        )
        check(
            holds=self.threads <= chip.units,
            rule=f"device.threads must be at most the {chip.units} cores of {chip.label}",
            value=self.threads,
        )

    def _precisions(self) -> tuple[tuple[ToldPrecision, ...], ToldPrecision | None]:
        """Returns the precisions that the device may have, and its own, which a profile tells."""
        if self.chip is not None:
            chip = find_chip(self.chip)
            return tuple(chip.peak_tflops), chip.precision
        if self.kind in ("table", "predicted"):
            return get_args(ToldPrecision), "float32" if self.kind == "table" else None
        if self.kind == "auto":
            return ("float32", "bfloat16"), "float32"
        assert self.kind not in ("analytic", "table", "predicted")  # see above
        own, *others = MEASURED[self.kind].precisions
        return (own, *others), own
