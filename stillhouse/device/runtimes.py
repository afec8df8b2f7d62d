"""Runtimes: what runs a model on this machine, and how one is loaded into it."""

from __future__ import annotations

import copy
import os
import shutil
import sys
import sysconfig
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from stillhouse.device.host import processor_name
from stillhouse.device.kinds import MEASURED, DeviceKind, Engine
from stillhouse.device.memory import Probe, probe_mb, probe_model_mb
from stillhouse.errors import DeviceError, ExportError
from stillhouse.model.lsq import is_quantised
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.onnx_trained import write_trained_graph
from stillhouse.model.openvino_graph import open_compiled
from stillhouse.model.precision import Precision, autocast

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import nn
    from transformers import PreTrainedModel

    from stillhouse.device.chips import ToldPrecision
    from stillhouse.device.latency import Workload

TOKEN = 5
"""Number of every token of a timed text; which one it is does not change the time."""
CALIBRATION_BATCHES = 2
_PACKAGES: dict[Engine, tuple[str, ...]] = {
    "PyTorch": ("torch",),
    "torch.compile": ("torch",),
    "ONNX Runtime": ("onnxruntime", "onnxruntime-gpu"),
    "OpenVINO": ("openvino",),
}
ONNX_INPUTS = ("input_ids", "attention_mask")


class TemporaryFolder:
    """A folder that is deleted when nothing holds this object any more.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        """Makes it."""
        self.path = Path(tempfile.mkdtemp(prefix="stillhouse-device-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model that is ready to be timed.

    Attributes:
        run: One forward pass of the workload; returns when its result is there.
        file: What the runtime loads, where that is a file; gone when this object and the model are.
        folder: Holds the file; deletes itself.
    """

    run: Callable[[], None]
    file: Path | None = None
    folder: TemporaryFolder | None = None

    @property
    def file_mb(self) -> float | None:
        """Size of the file in 10⁶ bytes."""
        return None if self.file is None else self.file.stat().st_size / 1e6


class Runtime(Protocol):
    """Something that runs models on this machine."""

    @property
    def name(self) -> str:
        """Chip and program with its version, for people and fingerprints."""
        ...

    def threads(self, count: int) -> AbstractContextManager[None]:
        """Holds the process at a number of threads while models are loaded and timed."""
        ...

    def load(self, model: PreTrainedModel, workload: Workload) -> Loaded:
        """Makes a model ready to be timed under a workload.

        Raises:
            DeviceError: If the runtime lacks the precision or an operator of the model.
        """
        ...

    def peak_memory_mb(self, model: PreTrainedModel, workload: Workload) -> float:
        """Tells what loading a model and running a workload add to a process of their own.

        Returns:
            10⁶ bytes at the peak, of the device that computes.

        Raises:
            DeviceError: As `load`, or if the process died.
        """
        ...


class TorchRuntime:
    """PyTorch, as it is or after `torch.compile`."""

    def __init__(self, device: torch.device, *, compiled: bool = False) -> None:
        """Keeps where models run, and whether they are compiled for the workload first."""
        self._device = device
        self._compiled = compiled

    @property
    def name(self) -> str:  # noqa: D102
        program = "torch.compile" if self._compiled else "PyTorch"
        return f"{_chip_name(self._device)}, {program} {torch.__version__}"

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:  # noqa: D102
        before = torch.get_num_threads()
        if count:
            torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def load(self, model: PreTrainedModel, workload: Workload) -> Loaded:  # noqa: D102
        precision = _torch_precision(workload.precision)
        moved: nn.Module = model
        moved.to(self._device).eval()
        inputs = {
            name: torch.from_numpy(values).to(self._device)
            for name, values in _torch_inputs(workload).items()
        }
        forward: Callable[..., Any] = _compiled(model, inputs) if self._compiled else model

        def run() -> None:
            with torch.inference_mode(), autocast(self._device, precision):
                forward(**inputs)
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)

        if self._compiled:
            with _quiet_compiler(), _compiler_errors_as_the_devices():
                run()
        return Loaded(run=run)

    def peak_memory_mb(self, model: PreTrainedModel, workload: Workload) -> float:  # noqa: D102
        _torch_precision(workload.precision)
        return probe_model_mb(
            model,
            workload,
            _torch_inputs(workload),
            is_cuda=self._device.type == "cuda",
            is_compiled=self._compiled,
        )


class OnnxRuntime:
    """ONNX Runtime, with the precision of the workload."""

    def __init__(self, *, is_cuda: bool = False) -> None:
        """Keeps where models run."""
        self._device = torch.device("cuda" if is_cuda else "cpu")
        self._provider = "CUDAExecutionProvider" if is_cuda else "CPUExecutionProvider"
        self._files = _Files()

    @property
    def name(self) -> str:  # noqa: D102
        return f"{_chip_name(self._device)}, {program_of('ONNX Runtime')}"

    def threads(self, count: int) -> AbstractContextManager[None]:  # noqa: D102
        del count  # a session has its own
        return nullcontext()

    def load(self, model: PreTrainedModel, workload: Workload) -> Loaded:  # noqa: D102
        with _export_errors_as_the_devices():
            folder, file = self._files.of(model, workload, workload.precision)
            session = open_session(file, threads=workload.threads, provider=self._provider)
        inputs = workload_inputs(workload)

        def run() -> None:
            session.run(None, inputs)

        return Loaded(run=run, file=file, folder=folder)

    def peak_memory_mb(self, model: PreTrainedModel, workload: Workload) -> float:  # noqa: D102
        with _export_errors_as_the_devices():
            _, file = self._files.of(model, workload, workload.precision)
        is_cuda = self._device.type == "cuda"
        probe = Probe(
            engine="onnxruntime",
            file=file,
            # PyTorch tells the memory of a CUDA device and brings the libraries, so it is first.
            imports=("torch", "onnxruntime") if is_cuda else ("onnxruntime",),
            is_cuda=is_cuda,
        )
        return probe_mb(probe, workload, workload_inputs(workload))


class OpenVinoRuntime:
    """OpenVINO on the processor; its 8 bits are those of a static ONNX file."""

    def __init__(self) -> None:
        """Has no model yet."""
        self._files = _Files()

    @property
    def name(self) -> str:  # noqa: D102
        return f"{processor_name()}, {program_of('OpenVINO')}"

    def threads(self, count: int) -> AbstractContextManager[None]:  # noqa: D102
        del count  # a compiled model has its own
        return nullcontext()

    def load(self, model: PreTrainedModel, workload: Workload) -> Loaded:  # noqa: D102
        with _export_errors_as_the_devices():
            folder, file = self._files.of(model, workload, _openvino_precision(workload))
            compiled = open_compiled(file, threads=workload.threads)
        inputs = workload_inputs(workload)

        def run() -> None:
            compiled(inputs)

        return Loaded(run=run, file=file, folder=folder)

    def peak_memory_mb(self, model: PreTrainedModel, workload: Workload) -> float:  # noqa: D102
        with _export_errors_as_the_devices():
            _, file = self._files.of(model, workload, _openvino_precision(workload))
        probe = Probe(engine="openvino", file=file, imports=("openvino",))
        return probe_mb(probe, workload, workload_inputs(workload))


class _Files:
    """ONNX files of models, each written once for as long as its model lives."""

    def __init__(self) -> None:
        self._of_models: weakref.WeakKeyDictionary[
            PreTrainedModel, dict[ToldPrecision, tuple[TemporaryFolder, Path]]
        ] = weakref.WeakKeyDictionary()

    def of(
        self, model: PreTrainedModel, workload: Workload, precision: ToldPrecision
    ) -> tuple[TemporaryFolder, Path]:
        """Returns what `write_onnx` writes; its time does not depend on the weights."""
        files = self._of_models.setdefault(model, {})
        if precision not in files:
            files[precision] = write_onnx(model, workload, precision)
        return files[precision]


def why_unusable(kind: str) -> str | None:
    """Tells what keeps a kind of device from being used here, and what to do; `None` if nothing."""
    wanted = MEASURED[kind]
    if wanted.missing:
        return f"{', '.join(wanted.missing)} not installed: {wanted.install}"
    if wanted.is_cuda and wanted.engine != "ONNX Runtime" and not torch.cuda.is_available():
        return "no CUDA device is visible"
    if wanted.engine == "torch.compile":
        return _why_no_compiler(is_cuda=wanted.is_cuda)
    if wanted.is_cuda and wanted.engine == "ONNX Runtime":
        return _why_no_onnx_cuda(wanted)
    return None


def program_of(engine: Engine) -> str:
    """Returns what runs models, with its version where it is installed: `ONNX Runtime 1.31.1`."""
    for package in _PACKAGES[engine]:
        try:
            return f"{engine} {version(package)}"
        except PackageNotFoundError:
            continue
    return engine


def make_runtime(kind: str) -> Runtime:
    """Makes the runtime of a kind of device.

    Raises:
        DeviceError: If it cannot be used here; it says what is missing.
    """
    reason = why_unusable(kind)
    if reason is not None:
        raise DeviceError(f"device {kind}: {reason}")
    wanted = MEASURED[kind]
    if wanted.engine == "ONNX Runtime":
        return OnnxRuntime(is_cuda=wanted.is_cuda)
    if wanted.engine == "OpenVINO":
        return OpenVinoRuntime()
    device = torch.device("cuda" if wanted.is_cuda else "cpu")
    return TorchRuntime(device, compiled=wanted.engine == "torch.compile")


def workload_inputs(workload: Workload) -> dict[str, NDArray[np.int64]]:
    """Makes one request: `[batch, length]` tokens, the last ones of each text padding."""
    shape = workload.batch, workload.length
    mask_BT = np.ones(shape, dtype=np.int64)
    kept = max(1, round(workload.length * (1 - workload.padding_fraction)))
    mask_BT[:, kept:] = 0
    return {"input_ids": np.full(shape, TOKEN, dtype=np.int64), "attention_mask": mask_BT}


def write_onnx(
    model: PreTrainedModel, workload: Workload, precision: ToldPrecision
) -> tuple[TemporaryFolder, Path]:
    """Writes a model as an ONNX file whose time is that of its export; answers do not matter.

    Args:
        model: On any device; it stays there.
        workload: Shape of what the scales of a static file are fixed on.
        precision: Of the file. In 8 bits a quantised model has the ranges of its training.

    Returns:
        The folder, which is deleted when its object is, and the file in it.

    Raises:
        DeviceError: If there is no such file, or a quantised model is not wanted in 8 bits.
        ExportError: If the file cannot be written.
    """
    folder = TemporaryFolder()
    plain = folder.path / "float32.onnx"
    on_processor = model if model.device.type == "cpu" else copy.deepcopy(model).cpu()
    if is_quantised(model):
        return folder, _write_trained(on_processor.eval(), folder.path, precision)
    write_graph(on_processor.eval(), plain, inputs=ONNX_INPUTS)
    if precision == "float32":
        return folder, plain
    file = folder.path / f"{precision}.onnx"
    if precision == "int8":
        quantise_graph(plain, file)
    elif precision == "int8-static":
        quantise_statically(plain, file, [workload_inputs(workload)] * CALIBRATION_BATCHES)
    else:
        raise DeviceError(f"an ONNX file of {precision} cannot be written; use float32 or int8")
    plain.unlink()
    return folder, file


def _write_trained(model: PreTrainedModel, folder: Path, precision: ToldPrecision) -> Path:
    """Writes a quantised model, whose scales are fixed beforehand: both ways of 8 bits are one."""
    if precision not in ("int8", "int8-static"):
        raise DeviceError(
            f"a model that was trained in few bits is no ONNX file of {precision}: measure it in "
            "int8, or the model that it was made of"
        )
    return write_trained_graph(model, folder / "int8.onnx", inputs=ONNX_INPUTS).path


def _torch_inputs(workload: Workload) -> dict[str, NDArray[np.int64]]:
    """Leaves out a mask of ones, which is what a model takes where there is none."""
    inputs = workload_inputs(workload)
    if not workload.padding_fraction:
        del inputs["attention_mask"]
    return inputs


def _openvino_precision(workload: Workload) -> ToldPrecision:
    return "int8-static" if workload.precision == "int8" else "float32"


def _torch_precision(precision: ToldPrecision) -> Precision:
    if precision == "int8" or precision == "int8-static":  # noqa: PLR1714  which mypy reads
        raise DeviceError(
            f"PyTorch times models in float32 or bfloat16, not in {precision}; set "
            "device.precision to one of them, or take the device onnxruntime-cpu"
        )
    return precision


def _compiled(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> Callable[..., Any]:
    """Compiles a model that was exported first.

    The compiler keeps what it made by the code that it was made of: models of one class share that
    code, the later ones push the earlier ones out, and from the ninth on none is compiled any more.
    An exported model has code of its own.
    """
    with _quiet_compiler(), torch.no_grad(), _compiler_errors_as_the_devices():
        exported = torch.export.export(model, (), kwargs=dict(inputs)).module()
        compiled: Callable[..., Any] = torch.compile(exported, dynamic=False)
    return compiled


@contextmanager
def _quiet_compiler() -> Iterator[None]:
    """Silences what the compiler says of parts of torch that it imports itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
        yield


@contextmanager
def _compiler_errors_as_the_devices() -> Iterator[None]:
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DeviceError(f"torch.compile failed on this model: {lines[0]}") from error


@contextmanager
def _export_errors_as_the_devices() -> Iterator[None]:
    try:
        yield
    except ExportError as error:
        raise DeviceError(str(error)) from error


def _why_no_onnx_cuda(wanted: DeviceKind) -> str | None:
    import onnxruntime  # noqa: PLC0415  an extra

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return f"the installed onnxruntime has no CUDA: {wanted.install}, which replaces it"


def _why_no_compiler(*, is_cuda: bool) -> str | None:
    """Tells what `torch.compile` lacks, by the names that it looks for itself."""
    if is_cuda:
        has_triton = find_spec("triton") is not None
        return None if has_triton else "triton not installed: pip install triton"
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", usual)
    if shutil.which(compiler) is None:
        return (
            f"torch.compile finds no C++ compiler ({compiler}): install one, such as with apt "
            "install g++, or name it in CXX"
        )
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        return "torch.compile needs the headers of Python: apt install python3-dev"
    return None


def _chip_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
