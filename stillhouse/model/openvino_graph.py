"""ONNX files run by OpenVINO on the processor.

The package openvino is an extra, so it loads at first use.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from stillhouse.errors import ExportError

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

Compiled: TypeAlias = "Callable[[Mapping[str, NDArray[np.int64]]], dict[str, NDArray[np.float32]]]"
TELEMETRY = "openvino_telemetry"


def require_openvino() -> None:
    """Checks that the package of the extra is there.

    Raises:
        ExportError: If it is missing.
    """
    if find_spec("openvino") is None:
        raise ExportError(
            "running ONNX files with OpenVINO needs the package openvino, which is not installed: "
            "pip install 'stillhouse[openvino]'"
        )


def import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which would tell its makers of every import.

    Raises:
        ExportError: If the package is missing.
    """
    require_openvino()
    modules = cast("dict[str, Any]", sys.modules)
    held = TELEMETRY not in modules
    if held:
        modules[TELEMETRY] = None  # which OpenVINO takes as not installed
    try:
        import openvino  # noqa: PLC0415  an extra
    finally:
        if held:
            del modules[TELEMETRY]
    return cast("ModuleType", openvino)


def open_compiled(path: Path, *, threads: int = 0) -> Compiled:
    """Opens an ONNX file to run it on the processor, one request at a time.

    Products of a file that `quantise_statically` wrote are computed in 8 bits. Those of one that
    `quantise_graph` wrote are computed in float32: OpenVINO dequantises their weights.

    Args:
        path: The file.
        threads: To compute with; 0 takes as many as there are cores.

    Returns:
        Gives the outputs for inputs by name, each `[batch, sequence]`.

    Raises:
        ExportError: If the package is missing, OpenVINO lacks an operator or cannot read the file.
    """
    openvino = import_openvino()
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        # Unasked, it computes in bfloat16 where a processor has instructions for it.
        "INFERENCE_PRECISION_HINT": "f32",
        # Or processes that run beside each other share a core while another has nothing to do.
        "ENABLE_CPU_PINNING": False,
    }
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        model = core.read_model(path)
        names = [output.get_any_name() for output in model.outputs]  # compiling adds others
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise ExportError(_reason(str(error), path)) from error

    def run(inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        found = compiled(dict(inputs))
        return {name: found[place] for place, name in enumerate(names)}

    return run


def _reason(told: str, path: Path) -> str:
    """Tells why a file cannot be compiled, by name where operators are lacking."""
    lacking = re.search(r"No conversion rule found for operations: (.+)", told)
    if lacking:
        return (
            f"OpenVINO lacks the operators {lacking[1]} of {path}; run the file with ONNX Runtime, "
            "or take a model without them"
        )
    lines = [line for line in told.splitlines() if line and not line.startswith("Exception from")]
    return f"OpenVINO cannot read {path}: {' '.join(lines)}"
