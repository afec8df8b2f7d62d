"""Peak memory: what a model adds to a process that has only imported its runtime."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from stillhouse.device import memory_probe
from stillhouse.errors import DeviceError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.device.latency import Workload

_PROGRAM = Path(memory_probe.__file__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a process of its own shall load.

    Attributes:
        engine: Which runtime does it.
        file: An ONNX file, or a model of PyTorch as `torch.save` writes it.
        imports: Modules that are there before anything is counted, in their order.
        is_cuda: Whether on a CUDA device; then its memory counts, and not that of the process.
        is_compiled: Whether `torch.compile` makes something of it first, which counts.
    """

    engine: Literal["onnxruntime", "openvino", "torch"]
    file: Path
    imports: tuple[str, ...]
    is_cuda: bool = False
    is_compiled: bool = False


def probe_model_mb(
    model: PreTrainedModel,
    workload: Workload,
    inputs: Mapping[str, NDArray[np.int64]],
    *,
    is_cuda: bool,
    is_compiled: bool,
) -> float:
    """Tells the peak memory of a model in PyTorch; arguments and errors are those of `probe_mb`."""
    classes = {type(module).__module__ for module in model.modules()}
    with tempfile.TemporaryDirectory(prefix="stillhouse-memory-") as folder:
        file = Path(folder) / "model.pt"
        torch.save(model, file)
        probe = Probe(
            engine="torch",
            file=file,
            imports=("torch", *sorted({*classes, type(model.config).__module__})),
            is_cuda=is_cuda,
            is_compiled=is_compiled,
        )
        return probe_mb(probe, workload, inputs)


def probe_mb(probe: Probe, workload: Workload, inputs: Mapping[str, NDArray[np.int64]]) -> float:
    """Loads a model in a new process and runs it there a few times.

    Args:
        probe: The model and its runtime.
        workload: Gives threads and precision.
        inputs: One request, `[batch, length]` each.

    Returns:
        10⁶ bytes that this added at its peak to what the process had after its imports.

    Raises:
        DeviceError: If the process died; it says its last words.
    """
    with tempfile.TemporaryDirectory(prefix="stillhouse-memory-") as name:
        folder = Path(name)
        job = {
            "engine": probe.engine,
            "file": str(probe.file.resolve()),
            "imports": probe.imports,
            "is_cuda": probe.is_cuda,
            "is_compiled": probe.is_compiled,
            "threads": workload.threads,
            "precision": workload.precision,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.savez(folder / "inputs.npz", **dict[str, Any](inputs))
        done = subprocess.run(
            [sys.executable, "-P", str(_PROGRAM), name],  # -P: our folder is no place of imports
            env=_environment(workload.threads),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise DeviceError(
                f"peak memory of {workload.label} is not known: the process that ran it "
                f"{_last_words(done)}"
            )
        added_bytes: int = json.loads((folder / "added_bytes.json").read_text(encoding="utf-8"))
    return added_bytes / 1e6


def _environment(threads: int) -> dict[str, str]:
    """That of this process, with its places of imports and the threads of the workload."""
    places = os.pathsep.join(place or os.getcwd() for place in sys.path)
    count = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**os.environ, "PYTHONPATH": places, **count}


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode < 0:
        return f"was ended by {signal.Signals(-done.returncode).name}, as for want of memory"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"failed: {lines[-1].strip()}" if lines else f"ended with code {done.returncode}"
