"""Latency measured by running PyTorch models here, on the processor or on a CUDA device."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from stillhouse.device.latency import Comparison, Latency, Shape, Workload, summarise
from stillhouse.errors import DeviceError
from stillhouse.model.anatomy import usable_positions
from stillhouse.model.precision import Precision, autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WARM_UP_RUNS = 5
LEAST_RUNS = 20
MOST_RUNS = 400
WANTED_HALF_WIDTH_FRACTION = 0.02


class TorchDevice:
    """Times students against their teacher, run by run in turn."""

    def __init__(
        self,
        device: torch.device,
        *,
        teacher: PreTrainedModel,
        build: Callable[[Any], PreTrainedModel],
        longest_s: float = 3.0,
    ) -> None:
        """Keeps what every comparison needs.

        Args:
            device: Where to run.
            teacher: Reference of every comparison.
            build: Makes a student of an architecture of the families that will be asked for; its
                weights do not matter.
            longest_s: Time after which one comparison ends even if its interval is still wide.
        """
        self._device = device
        self._teacher = teacher
        self._build = build
        self._longest_s = longest_s

    @property
    def name(self) -> str:  # noqa: D102
        chip = (
            torch.cuda.get_device_name(self._device)
            if self._device.type == "cuda"
            else processor_name()
        )
        return f"{chip}, PyTorch {torch.__version__}"

    def timing(self, model: PreTrainedModel) -> TorchDevice:
        """Returns this device for one model, which is timed as it is, whatever is asked for."""
        return TorchDevice(
            self._device,
            teacher=self._teacher,
            build=lambda _: copy.deepcopy(model),
            longest_s=self._longest_s,
        )

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:  # noqa: D102
        student = self._build(architecture)
        limit = min(usable_positions(student.config), usable_positions(self._teacher.config))
        if workload.length > limit:
            raise DeviceError(
                f"workload length {workload.length} is above the model's {limit} positions; "
                "set device.length lower"
            )
        try:
            with _threads(workload.threads):
                student_ms, teacher_ms = self._time_in_turn(student, workload)
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"out of memory while timing {architecture.key}: {error}") from error
        return Comparison(
            student=self._summary(student_ms, workload), teacher=self._summary(teacher_ms, workload)
        )

    def _summary(self, times_ms: list[float], workload: Workload) -> Latency:
        return summarise(times_ms, device=self.name, workload=workload)

    def _time_in_turn(
        self, student: PreTrainedModel, workload: Workload
    ) -> tuple[list[float], list[float]]:
        models: list[nn.Module] = [student, self._teacher]
        for model in models:
            model.to(self._device).eval()
        tokens_BT = torch.full((workload.batch, workload.length), 5, device=self._device)
        times_ms: tuple[list[float], list[float]] = ([], [])
        deadline = time.monotonic() + self._longest_s
        for run in range(-WARM_UP_RUNS, MOST_RUNS):
            for model, times in zip(models, times_ms, strict=True):
                elapsed_ms = self._time_once(model, tokens_BT, workload)
                if run >= 0:
                    times.append(elapsed_ms)
            if run + 1 >= LEAST_RUNS and (run + 1) % 10 == 0:
                settled = all(self._is_settled(times, workload) for times in times_ms)
                if settled or time.monotonic() > deadline:
                    break
        return times_ms

    def _time_once(self, model: nn.Module, tokens_BT: torch.Tensor, workload: Workload) -> float:
        precision = _torch_precision(workload)
        self._synchronise()
        start_ns = time.perf_counter_ns()
        with torch.inference_mode(), autocast(self._device, precision):
            model(input_ids=tokens_BT)
        self._synchronise()
        return (time.perf_counter_ns() - start_ns) / 1e6

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _is_settled(self, times_ms: list[float], workload: Workload) -> bool:
        latency = self._summary(times_ms, workload)
        half_width_ms = (latency.high_ms - latency.low_ms) / 2
        return half_width_ms <= WANTED_HALF_WIDTH_FRACTION * latency.median_ms


def _torch_precision(workload: Workload) -> Precision:
    if workload.precision == "int8":
        raise DeviceError(
            "PyTorch times models in float32 or bfloat16, not in int8; set device.precision to one "
            "of them, or device.chip to a chip that has it"
        )
    return workload.precision


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processor_name() -> str:
    """Returns the processor's own name, or its instruction set where the system hides it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
