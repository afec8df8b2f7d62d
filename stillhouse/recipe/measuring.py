"""Measuring a checkpoint: its time, size and memory in several runtimes, beside its teacher's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast, get_args

import torch

from stillhouse.device.chips import ToldPrecision, known_chips
from stillhouse.device.host import processor_name
from stillhouse.device.inventory import default_kind
from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Workload, summarise
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.runtimes import TorchRuntime, make_runtime, why_unusable
from stillhouse.device.stopwatch import NOISY_FRACTION, time_in_turn
from stillhouse.errors import DeviceError, SettingsError, did_you_mean
from stillhouse.model.anatomy import usable_positions
from stillhouse.model.checkpoint_heads import load_headed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.device.latency import Latency
    from stillhouse.device.runtimes import Runtime
    from stillhouse.run.progress import Narrator

USUAL_LENGTH = 128
"""Tokens of a text where no length is asked for, and the model can read as many."""
KNOWN = ("auto", *MEASURED)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """What to measure: every device in every precision at every batch and length.

    Attributes:
        devices: Names as `stillhouse devices` lists them, or `auto`.
        precisions: Of weights and activations; none means each device's own.
        batches: Examples in one request.
        lengths: Tokens of each example; none means 128, or what the models can read.
        threads: Processor threads; `None` means all physical cores.
        padding_fraction: Share of the tokens of every example that are padding.
        has_memory: Whether peak memory is measured, each in a process of its own.
        longest_s: Time after which an attempt at a row ends; a noisy one is taken three times.
    """

    devices: tuple[str, ...] = ("auto",)
    precisions: tuple[ToldPrecision, ...] = ()
    batches: tuple[int, ...] = (1,)
    lengths: tuple[int, ...] = ()
    threads: int | None = None
    padding_fraction: float = 0.0
    has_memory: bool = True
    longest_s: float = 3.0

    def __post_init__(self) -> None:
        """Refuses what is no device, no precision or no workload."""
        for name in self.devices:
            _check_device(name)
        for precision in self.precisions:
            _check_precision(precision)
        threads = () if self.threads is None else (self.threads,)
        amounts = {"--batch": self.batches, "--length": self.lengths, "--threads": threads}
        for name, values in amounts.items():
            if min(values, default=1) < 1:
                raise SettingsError(f"{name} must be at least 1, got {min(values)}")
        if not 0 <= self.padding_fraction < 1:
            raise SettingsError(
                f"--padding must be at least 0 and below 1, got {self.padding_fraction}"
            )
        if not 0 <= self.longest_s < math.inf:
            raise SettingsError(
                f"--seconds must be finite and not negative, got {self.longest_s:g}"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The devices, each once, with `auto` settled."""
        named = (default_kind() if name == "auto" else name for name in self.devices)
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRow:
    """A model on one device at one workload.

    Attributes:
        device: Kind of the device.
        workload: What was run.
        latency: Of the model; `None` where it could not be told.
        teacher: Its teacher's, timed in turn with it in the same runtime and precision.
        noise_fraction: Half-width of the 95 % interval of the ratio of both, over the ratio;
            without a teacher of the model's median.
        attempts: How often it was timed anew, the first time included.
        size_mb: Of the file that the runtime loads, or of the weights where there is none,
            10⁶ bytes.
        peak_memory_mb: What loading and running added at its peak, 10⁶ bytes.
        problem: Why there is no latency.
        memory_problem: Why there is no peak memory, where it was wanted.
    """

    device: str
    workload: Workload
    latency: Latency | None = None
    teacher: Latency | None = None
    noise_fraction: float = 0.0
    attempts: int = 0
    size_mb: float | None = None
    peak_memory_mb: float | None = None
    problem: str = ""
    memory_problem: str = ""

    @property
    def is_noisy(self) -> bool:
        """Whether the figure did not settle."""
        return self.noise_fraction > NOISY_FRACTION

    @property
    def speedup(self) -> float | None:
        """How many times faster than the teacher."""
        if self.latency is None or self.teacher is None:
            return None
        return self.teacher.median_ms / self.latency.median_ms

    @property
    def examples_per_s(self) -> float | None:
        """Examples that are answered in a second, one request after the other."""
        if self.latency is None:
            return None
        return 1e3 * self.workload.batch / self.latency.median_ms

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for a file."""
        derived = ("is_noisy", "speedup", "examples_per_s")
        return asdict(self) | {name: getattr(self, name) for name in derived}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """All that was won: the teacher as it is trained against the model as it is served.

    Attributes:
        row: The model in its runtime and precision, timed in turn with the teacher in PyTorch in
            float32 on the processor.
        teacher_mb: The teacher's weights in float32, 10⁶ bytes.
    """

    row: MeasuredRow
    teacher_mb: float

    @property
    def smaller(self) -> float | None:
        """How many times smaller the model's file, or its weights, are."""
        return None if self.row.size_mb is None else self.teacher_mb / self.row.size_mb

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for a file."""
        return self.row.to_dict() | {"teacher_mb": self.teacher_mb, "smaller": self.smaller}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What is known of a checkpoint, so far or at the end.

    Attributes:
        model: Hub id or folder.
        against: Its teacher's, if one was given.
        processor: What the machine's is called.
        rows: In the order in which they were measured.
        chains: One for every device and precision, with a teacher only.
    """

    model: str
    against: str | None
    processor: str
    rows: tuple[MeasuredRow, ...] = ()
    chains: tuple[Chain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for a file."""
        return {
            "model": self.model,
            "against": self.against,
            "processor": self.processor,
            "rows": [row.to_dict() for row in self.rows],
            "whole_chain": [chain.to_dict() for chain in self.chains],
        }


def measure_checkpoint(
    name: str,
    against: str | None,
    settings: MeasureSettings,
    narrator: Narrator,
    on_row: Callable[[Measurements], None],
) -> Measurements:
    """Measures a checkpoint on devices of this machine.

    Args:
        name: Hub id or folder of a classifier, a model of masked words or a bare encoder.
        against: The same of its teacher, or `None`.
        settings: What to measure.
        narrator: Told the progress.
        on_row: Given all that is known after every row.

    Raises:
        DeviceError: If nothing of it can be measured here; it says why.
        TeacherError: If a checkpoint cannot be loaded.
    """
    nothing = Measurements(model=name, against=against, processor=processor_name())
    problems = [_why_not(kind, precision) for kind, precision in _runs(settings)]
    if all(problems):
        _refuse(problems)
    narrator.begin(f"loading {name}", 1.0)
    model = load_headed(name).model
    teacher = None if against is None else load_headed(against).model
    bench = _Bench(settings, model, teacher)
    planned = [[bench.planned(*run, *shape) for shape in bench.shapes] for run in _runs(settings)]
    if all(row.problem for rows in planned for row in rows):
        _refuse(row.problem for rows in planned for row in rows)
    narrator.begin("measuring", sum(len(rows) + (teacher is not None) for rows in planned))
    try:
        found = nothing
        for found in _steps(bench, planned, nothing, narrator):
            on_row(found)
        return found
    finally:
        narrator.end()


def _steps(
    bench: _Bench,
    planned: Sequence[Sequence[MeasuredRow]],
    found: Measurements,
    narrator: Narrator,
) -> Iterator[Measurements]:
    """Yields all that is known after every row, and after the chain of a device and precision."""

    def say(row: MeasuredRow, what: str) -> None:
        done = len(found.rows) + len(found.chains)
        narrator.advance(done, f"{row.device}, {what}")

    for rows in planned:
        measured: list[MeasuredRow] = []
        for row in rows:
            say(row, row.workload.label)
            measured.append(bench.measured(row))
            found = replace(found, rows=(*found.rows, measured[-1]))
            yield found
        if found.against is not None:
            say(rows[0], f"{rows[0].workload.precision}, the whole chain")
            found = replace(found, chains=(*found.chains, bench.chain(measured[0])))
            yield found


class _Bench:
    """The models of one job, and the device that is made of them, one after the other."""

    def __init__(
        self, settings: MeasureSettings, model: PreTrainedModel, teacher: PreTrainedModel | None
    ) -> None:
        self._settings = settings
        self._model = model
        self._teacher = teacher
        self._positions = min(usable_positions(one.config) for one in (model, teacher) if one)
        self._opened: _Opened | None = None

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        """Batch and length of every row of a device and precision."""
        lengths = self._settings.lengths or (min(USUAL_LENGTH, self._positions),)
        return list(product(self._settings.batches, lengths))

    def planned(self, kind: str, precision: ToldPrecision, batch: int, length: int) -> MeasuredRow:
        """Makes a row without figures, which says why if there can be none."""
        workload = Workload(
            batch=batch,
            length=length,
            precision=precision,
            threads=0 if MEASURED[kind].is_cuda else self._threads,
            padding_fraction=self._settings.padding_fraction,
        )
        problem = _why_not(kind, precision)
        if not problem and length > self._positions:
            problem = f"length {length} is above the {self._positions} tokens that can be read"
        return MeasuredRow(device=kind, workload=workload, problem=problem)

    def measured(self, row: MeasuredRow) -> MeasuredRow:
        """Fills a row in."""
        if row.problem:
            return row
        opened = self._open(row.device)
        try:
            timed = self._timed(opened.device, row)
        except DeviceError as error:
            return replace(row, problem=str(error))
        if not self._settings.has_memory:
            return timed
        try:
            return replace(timed, peak_memory_mb=opened.device.peak_memory_mb(_NAME, row.workload))
        except DeviceError as error:
            return replace(timed, memory_problem=str(error))

    def chain(self, row: MeasuredRow) -> Chain:
        """Times the model of a row against the teacher in PyTorch in float32 on the processor."""
        assert self._teacher is not None
        teacher_mb = _weights_mb(self._teacher)
        if row.problem or (row.device, row.workload.precision) == ("cpu", "float32"):
            return Chain(row=row, teacher_mb=teacher_mb)
        try:
            return Chain(row=self._against_plain(row), teacher_mb=teacher_mb)
        except (DeviceError, torch.OutOfMemoryError) as error:
            return Chain(row=replace(row, problem=str(error)), teacher_mb=teacher_mb)

    def _timed(self, device: MeasuredDevice, row: MeasuredRow) -> MeasuredRow:
        if self._teacher is None:
            alone = device.time_alone(_NAME, row.workload)
            row = replace(row, latency=alone.latency)
            file_mb, noise_fraction, attempts = alone.file_mb, alone.noise_fraction, alone.attempts
        else:
            both = device.compare(_NAME, row.workload)
            row = replace(row, latency=both.student, teacher=both.teacher)
            file_mb, noise_fraction, attempts = both.file_mb, both.noise_fraction, both.attempts
        return replace(
            row,
            size_mb=_weights_mb(self._model) if file_mb is None else file_mb,
            noise_fraction=noise_fraction,
            attempts=attempts,
        )

    def _against_plain(self, row: MeasuredRow) -> MeasuredRow:
        opened, plain = self._open(row.device), TorchRuntime(torch.device("cpu"))
        usual = replace(row.workload, precision="float32", threads=self._threads)
        with plain.threads(usual.threads), opened.runtime.threads(row.workload.threads):
            reference = plain.load(self._plain_teacher, usual)
            loaded = opened.runtime.load(opened.model, row.workload)
            timing = time_in_turn([loaded.run, reference.run], longest_s=self._settings.longest_s)
        model_ms, teacher_ms = timing.times_ms
        return replace(
            row,
            latency=summarise(model_ms, device=opened.runtime.name, workload=row.workload),
            teacher=summarise(teacher_ms, device=plain.name, workload=usual),
            noise_fraction=timing.noise_fraction,
            attempts=timing.attempts,
        )

    def _open(self, kind: str) -> _Opened:
        """Opens a kind of device, and lets go of the one before with its files."""
        if self._opened is None or self._opened.kind != kind:
            self._opened = None
            runtime, model = make_runtime(kind), copy.deepcopy(self._model)
            device = MeasuredDevice(
                runtime,
                teacher=self._teacher or self._model,
                build=lambda _: model,
                longest_s=self._settings.longest_s,
            )
            self._opened = _Opened(kind=kind, runtime=runtime, device=device, model=model)
        return self._opened

    @cached_property
    def _plain_teacher(self) -> PreTrainedModel:
        """A copy that stays on the processor, wherever the other one is moved."""
        return cast("PreTrainedModel", copy.deepcopy(self._teacher)).cpu()

    @property
    def _threads(self) -> int:
        return self._settings.threads or torch.get_num_threads()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A device in use, with the copy of the model that is its own to move."""

    kind: str
    runtime: Runtime
    device: MeasuredDevice
    model: PreTrainedModel


@dataclass(frozen=True, slots=True)
class _Name:
    """The name that a device asks of what it times; there is one model only."""

    key: str


_NAME = _Name("the model")


def _runs(settings: MeasureSettings) -> list[tuple[str, ToldPrecision]]:
    return [
        (kind, precision)
        for kind in settings.kinds
        for precision in settings.precisions or MEASURED[kind].precisions[:1]
    ]


def _why_not(kind: str, precision: ToldPrecision) -> str:
    """Tells why a device cannot be measured in a precision; nothing if it can."""
    precisions = MEASURED[kind].precisions
    if precision not in precisions:
        return f"{kind} has no {precision}: take {' or '.join(precisions)}"
    reason = why_unusable(kind)
    return "" if reason is None else f"{kind}: {reason}"


def _refuse(problems: Iterable[str]) -> NoReturn:
    raise DeviceError(f"nothing of this can be measured: {'; '.join(dict.fromkeys(problems))}")


def _check_device(name: str) -> None:
    if name in KNOWN:
        return
    told = name in known_chips() or Path(name).suffix.lower() in (".csv", ".json")
    why = ", which tells latencies of what does not run here" if told else did_you_mean(name, KNOWN)
    raise SettingsError(f"--device must be of {', '.join(KNOWN)}, got {name!r}{why}")


def _check_precision(name: str) -> None:
    known = get_args(ToldPrecision)
    if name not in known:
        raise SettingsError(
            f"--precision must be of {', '.join(known)}, got {name!r}{did_you_mean(name, known)}"
        )


def _weights_mb(model: PreTrainedModel) -> float:
    return sum(one.numel() * one.element_size() for one in model.parameters()) / 1e6
