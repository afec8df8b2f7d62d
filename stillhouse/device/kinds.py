"""Kinds of devices by name: what runs models there, in which precisions, and what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from stillhouse.device.chips import ToldPrecision

Engine: TypeAlias = Literal["PyTorch", "torch.compile", "ONNX Runtime", "OpenVINO"]
MeasuredKind: TypeAlias = Literal[
    "cpu",
    "cuda",
    "compiled-cpu",
    "compiled-cuda",
    "onnxruntime-cpu",
    "onnxruntime-cuda",
    "openvino-cpu",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKind:
    """A way to run models on this machine.

    Attributes:
        engine: What runs them.
        is_cuda: Whether on a CUDA device, not on the processor.
        precisions: What it can be asked for; the first is its own.
        packages: What must be installed beside stillhouse itself.
        extra: Which extra of stillhouse brings the packages, if any are needed.
    """

    engine: Engine
    is_cuda: bool
    precisions: tuple[ToldPrecision, ...]
    packages: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed here."""
        return tuple(name for name in self.packages if find_spec(name) is None)

    @property
    def install(self) -> str:
        """The command that installs its packages."""
        return f"pip install 'stillhouse[{self.extra}]'"


_ONNX = ("onnx", "onnxscript", "onnxruntime")

MEASURED: Mapping[str, DeviceKind] = {
    "cpu": DeviceKind(engine="PyTorch", is_cuda=False, precisions=("float32", "bfloat16")),
    "cuda": DeviceKind(engine="PyTorch", is_cuda=True, precisions=("float32", "bfloat16")),
    "compiled-cpu": DeviceKind(
        engine="torch.compile", is_cuda=False, precisions=("float32", "bfloat16")
    ),
    "compiled-cuda": DeviceKind(
        engine="torch.compile", is_cuda=True, precisions=("float32", "bfloat16")
    ),
    "onnxruntime-cpu": DeviceKind(
        engine="ONNX Runtime",
        is_cuda=False,
        precisions=("float32", "int8", "int8-static"),
        packages=_ONNX,
        extra="onnx",
    ),
    "onnxruntime-cuda": DeviceKind(
        engine="ONNX Runtime",
        is_cuda=True,
        precisions=("float32",),
        packages=_ONNX,
        extra="onnx-gpu",
    ),
    "openvino-cpu": DeviceKind(
        engine="OpenVINO",
        is_cuda=False,
        precisions=("float32", "int8"),
        packages=(*_ONNX, "openvino"),
        extra="openvino",
    ),
}
"""What latencies can be measured on; files and data sheets tell those of other machines."""
