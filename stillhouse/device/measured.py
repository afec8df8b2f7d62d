"""Latency measured by running models here, in any of the runtimes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from stillhouse.device.latency import Comparison, Latency, Shape, Workload, summarise
from stillhouse.device.stopwatch import time_in_turn
from stillhouse.errors import DeviceError
from stillhouse.model.anatomy import usable_positions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.device.runtimes import Loaded, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedAlone:
    """A student's latency without a teacher's.

    Attributes:
        latency: Of the student.
        noise_fraction: Half-width of the 95 % interval of its median, over the median.
        file_mb: Size of the file that the runtime loads, in 10⁶ bytes; `None` where there is none.
        attempts: How often it was timed anew, the first time included.
    """

    latency: Latency
    noise_fraction: float
    file_mb: float | None
    attempts: int


class MeasuredDevice:
    """Times students against their teacher, run by run in turn, in one runtime."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        teacher: PreTrainedModel,
        build: Callable[[Any], PreTrainedModel],
        longest_s: float = 3.0,
    ) -> None:
        """Keeps what every comparison needs.

        Args:
            runtime: What runs the models.
            teacher: Reference of every comparison, run like the students.
            build: Makes a student of an architecture of the families that will be asked for; its
                weights do not matter.
            longest_s: Time after which one comparison ends even if its interval is still wide.
        """
        self._runtime = runtime
        self._teacher = teacher
        self._build = build
        self._longest_s = longest_s
        self._loaded_teacher: tuple[Workload, Loaded] | None = None
        self._last_student: tuple[str, PreTrainedModel] | None = None

    @property
    def name(self) -> str:  # noqa: D102
        return self._runtime.name

    def timing(self, model: PreTrainedModel) -> MeasuredDevice:
        """Returns this device for one model, which is timed as it is, whatever is asked for."""
        return MeasuredDevice(
            self._runtime,
            teacher=self._teacher,
            build=lambda _: copy.deepcopy(model),
            longest_s=self._longest_s,
        )

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:  # noqa: D102
        student = self._student(architecture)
        _check_length(workload, student, self._teacher)
        with self._held(architecture, workload):
            teacher = self._load_teacher(workload)
            loaded = self._runtime.load(student, workload)
            timing = time_in_turn([loaded.run, teacher.run], longest_s=self._longest_s)
        student_latency, teacher_latency = (
            summarise(times, device=self.name, workload=workload) for times in timing.times_ms
        )
        return Comparison(
            student=student_latency,
            teacher=teacher_latency,
            noise_fraction=timing.noise_fraction,
            file_mb=loaded.file_mb,
            attempts=timing.attempts,
        )

    def time_alone(self, architecture: Shape, workload: Workload) -> TimedAlone:
        """Tells the latency of a student without its teacher's.

        Raises:
            DeviceError: If the device cannot tell it.
        """
        student = self._student(architecture)
        _check_length(workload, student)
        with self._held(architecture, workload):
            loaded = self._runtime.load(student, workload)
            timing = time_in_turn([loaded.run], longest_s=self._longest_s)
        return TimedAlone(
            latency=summarise(timing.times_ms[0], device=self.name, workload=workload),
            noise_fraction=timing.noise_fraction,
            file_mb=loaded.file_mb,
            attempts=timing.attempts,
        )

    def peak_memory_mb(self, architecture: Shape, workload: Workload) -> float:  # noqa: D102
        student = self._student(architecture)
        _check_length(workload, student)
        return self._runtime.peak_memory_mb(student, workload)

    def _student(self, architecture: Shape) -> PreTrainedModel:
        """Builds a student, unless it is the last one, of which the runtime has its file still."""
        if self._last_student is None or self._last_student[0] != architecture.key:
            self._last_student = None  # or there would be two for a moment
            self._last_student = architecture.key, self._build(architecture)
        return self._last_student[1]

    @contextmanager
    def _held(self, architecture: Shape, workload: Workload) -> Iterator[None]:
        """Holds the threads, and tells for which student memory ran out."""
        try:
            with self._runtime.threads(workload.threads):
                yield
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"out of memory while timing {architecture.key}: {error}") from error

    def _load_teacher(self, workload: Workload) -> Loaded:
        """Loads the teacher once for as long as the workload stays the same."""
        if self._loaded_teacher is None or self._loaded_teacher[0] != workload:
            self._loaded_teacher = workload, self._runtime.load(self._teacher, workload)
        return self._loaded_teacher[1]


def _check_length(workload: Workload, *models: PreTrainedModel) -> None:
    limit = min(usable_positions(model.config) for model in models)
    if workload.length > limit:
        raise DeviceError(
            f"workload length {workload.length} is above the model's {limit} positions; "
            "set device.length lower"
        )
