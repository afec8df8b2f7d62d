"""Loads a model into its runtime and tells what memory that took; run as a program of its own.

`memory` starts it by its file name and hands it a folder with the job. It imports the runtime and
nothing else: memory that another package has taken before, and that a model could use, would not be
counted.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

RUNS = 3
"""Passes of the workload; what a runtime keeps for the next pass is there after the second."""


def main(folder: Path) -> None:
    """Does the job in a folder, and leaves the memory that it added there."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    modules = cast("dict[str, Any]", sys.modules)
    modules["openvino_telemetry"] = None  # as `open_compiled` does: nobody is told of this import
    for name in job["imports"]:
        importlib.import_module(name)
    import numpy as np  # noqa: PLC0415  after the runtime, which may have to come first

    with np.load(folder / "inputs.npz") as arrays:
        inputs = dict(arrays)
    memory = _memory_of_cuda(job["engine"]) if job["is_cuda"] else _memory_of_process
    _settle()
    before, _ = memory()
    run = _LOADERS[job["engine"]](job, inputs)
    highest = [memory()[1]]
    for _ in range(RUNS):
        run()
        highest.append(memory()[1])
    added = max(0, max(highest) - before)
    (folder / "added_bytes.json").write_text(json.dumps(added), encoding="utf-8")


def _settle() -> None:
    """Gives back what imports have left over, and forgets how much they needed at their peak."""
    gc.collect()
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # imports count then where their peak was higher than the model's


def _memory_of_process() -> tuple[int, int]:
    """Bytes of this process in memory, now and at their peak; now twice where no peak is known.

    Linux has a better figure than `ru_maxrss`, which begins with that of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text("utf-8").splitlines())
        now = int(lines["VmRSS"].split()[0]) * 1024
        return now, int(lines["VmHWM"].split()[0]) * 1024 if "VmHWM" in lines else now
    import psutil  # noqa: PLC0415  only where it is needed

    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return info.rss, info.peak_wset
    import resource  # noqa: PLC0415  Windows has none

    return info.rss, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _memory_of_cuda(engine: str) -> Callable[[], tuple[int, int]]:
    """Tells the memory of a CUDA device instead, once this process has its context there."""
    import torch  # noqa: PLC0415  ONNX Runtime's own process knows no figure

    torch.zeros(1, device="cuda")

    def of_torch() -> tuple[int, int]:
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()

    def of_all() -> tuple[int, int]:
        free, total = torch.cuda.mem_get_info()
        return total - free, total - free  # the arena of ONNX Runtime only grows

    return of_torch if engine == "torch" else of_all


def _load_onnxruntime(job: Mapping[str, Any], inputs: Mapping[str, Any]) -> Callable[[], object]:
    import onnxruntime  # noqa: PLC0415  one of the runtimes

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job["threads"]
    provider = "CUDAExecutionProvider" if job["is_cuda"] else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(job["file"], sess_options=options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"ONNX Runtime could not start its {provider}")
    return lambda: session.run(None, inputs)


def _load_openvino(job: Mapping[str, Any], inputs: Mapping[str, Any]) -> Callable[[], object]:
    import openvino  # noqa: PLC0415  one of the runtimes

    settings = {  # those of `open_compiled`
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": "NO",
    }
    if job["threads"]:
        settings["INFERENCE_NUM_THREADS"] = str(job["threads"])
    compiled = openvino.Core().compile_model(job["file"], "CPU", settings)
    return lambda: compiled(inputs)


def _load_torch(job: Mapping[str, Any], inputs: Mapping[str, Any]) -> Callable[[], object]:
    import torch  # noqa: PLC0415  one of the runtimes

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    device = torch.device("cuda" if job["is_cuda"] else "cpu")
    # The file is our own, of a moment ago: a whole model, not weights alone.
    model = torch.load(job["file"], map_location=device, weights_only=False).eval()
    forward = torch.compile(model, dynamic=False) if job["is_compiled"] else model
    tensors = {name: torch.from_numpy(values).to(device) for name, values in inputs.items()}
    is_bfloat16 = job["precision"] == "bfloat16"

    def run() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bfloat16),
        ):
            forward(**tensors)
        if job["is_cuda"]:
            torch.cuda.synchronize()

    return run


_LOADERS = {
    "onnxruntime": _load_onnxruntime,
    "openvino": _load_openvino,
    "torch": _load_torch,
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
