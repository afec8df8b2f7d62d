"""From a teacher in PyTorch float32 to a found student in ONNX Runtime int8, on SST-2.

A search scores every candidate in int8, as it is served, and times it so. What it finds is then
scored on sentences that chose nothing (dev and labelled test, n = 2,693) in float32 and in int8,
with the paired difference; and teacher and students are timed in turn, each in its runtime.

    python -m benchmarks.int8_student --small    # 12 candidates, one epoch for 2 winners
    python -m benchmarks.int8_student --full     # 60 candidates, three epochs for 4 winners
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import (
    RESAMPLES,
    WORK,
    glue_folder,
    heading,
    minilm_folder,
    read_report_set,
)
from stillhouse.api import run_search_job
from stillhouse.data.encoding import EncodedSet, encode
from stillhouse.data.examples import Examples
from stillhouse.device.latency import Workload, summarise
from stillhouse.device.runtimes import OnnxRuntime, TorchRuntime
from stillhouse.device.stopwatch import time_in_turn
from stillhouse.model.predict import predict
from stillhouse.model.teachers import load_model, load_tokenizer
from stillhouse.recipe.served import predict_served
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import RunSettings, settings_from_dict

BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is trained."""

    candidates: int
    proxy: int
    epochs: float
    winners: int


SMALL = Size(candidates=12, proxy=8_192, epochs=1.0, winners=2)
FULL = Size(candidates=60, proxy=16_384, epochs=3.0, winners=4)


def run_settings(size: Size) -> RunSettings:
    """Settings of a search on ONNX Runtime in int8, one thread."""
    return settings_from_dict(
        {
            "teacher": {"model": minilm_folder(), "learning_rates": [1.2e-4], "epochs": 1},
            "task": {"name": "glue/sst2", "directory": str(glue_folder()), "min_length": 10},
            "space": {"base": "kd-nas-wide"},
            "device": {
                "kind": "onnxruntime-cpu",
                "precision": "int8",
                "length": 64,
                "threads": 1,
            },
            "limit": {"speedup": 2},
            "search": {
                "strategy": "gp",
                "candidates": size.candidates,
                "proxy_examples": size.proxy,
            },
            "final": {"students": size.winners, "epochs": size.epochs},
        }
    )


def report_set(teacher: Path) -> tuple[EncodedSet, NDArray[np.int64]]:
    """Sentences that chose nothing, with their labels."""
    texts, labels = read_report_set()
    examples = Examples(text_a=texts).to_dataset(())
    return encode(examples, load_tokenizer(str(teacher)), max_length=128), labels


def difference(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> str:
    """Points that `one` is above `other`, example by example, with a 95 % bootstrap interval."""
    gaps = 100 * (one.astype(float) - other.astype(float))
    generator = np.random.default_rng(0)
    means = [gaps[generator.integers(len(gaps), size=len(gaps))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{gaps.mean():+.2f} points ({low:+.2f} to {high:+.2f})"


def main() -> None:
    """Searches, scores and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="size", action="store_const", const=SMALL, default=SMALL)
    parser.add_argument("--full", dest="size", action="store_const", const=FULL)
    size = parser.parse_args().size
    heading("benchmarks.int8_student")
    torch.set_num_threads(1)
    settings = run_settings(size)
    result = run_search_job(
        settings, WORK / f"int8-student-{size.candidates}-{size.epochs:g}", LoggingNarrator()
    )
    run = Path(result.report).parent
    encoded, labels = report_set(run / "teacher")
    teacher, _ = load_model(str(run / "teacher"), labels=2)
    teacher_right = predict(teacher, encoded).argmax(axis=1) == labels
    teacher_mb = sum(p.numel() for p in teacher.parameters()) * BYTES / 1e6
    workload = Workload(length=64, threads=1)
    in_int8 = replace(workload, precision="int8")
    torch_here, onnx_here = TorchRuntime(torch.device("cpu")), OnnxRuntime()
    print(
        f"{len(result.trials)} candidates scored and timed in int8; {workload.label}; "
        f"n = {len(labels):,}\nteacher, PyTorch float32: {teacher_right.mean():.4f}, "
        f"{teacher_mb:.1f} MB"
    )
    for rank, one in enumerate(result.students, start=1):
        student, _ = load_model(str(one.path), labels=2)
        plain_right = predict(student, encoded).argmax(axis=1) == labels
        logits: NDArray[Any] = predict_served(
            student, encoded, settings=settings.device, workload=in_int8, calibration=encoded
        )
        served_right = logits.argmax(axis=1) == labels
        plain, served = onnx_here.load(student, workload), onnx_here.load(student, in_int8)
        timing = time_in_turn(
            [
                served.run,
                torch_here.load(teacher, workload).run,
                plain.run,
                torch_here.load(student, workload).run,
            ],
            longest_s=20.0,
        )
        served_ms, teacher_ms, plain_ms, torch_ms = (
            summarise(times, device="", workload=workload).median_ms for times in timing.times_ms
        )
        assert plain.file_mb is not None
        assert served.file_mb is not None
        print(
            f"\nstudent {rank}: {one.metrics['architecture_label']}\n"
            f"  PyTorch float32       {plain_right.mean():.4f}  {torch_ms:6.2f} ms\n"
            f"  ONNX Runtime float32          {plain_ms:6.2f} ms  {plain.file_mb:6.2f} MB\n"
            f"  ONNX Runtime int8     {served_right.mean():.4f}  {served_ms:6.2f} ms  "
            f"{served.file_mb:6.2f} MB\n"
            f"  int8 against float32: {difference(served_right, plain_right)}\n"
            f"  teacher in PyTorch float32 ({teacher_ms:.2f} ms) to this in ONNX Runtime int8: "
            f"{teacher_ms / served_ms:.1f} times faster, {teacher_mb / served.file_mb:.1f} times "
            f"smaller, {difference(served_right, teacher_right)} of accuracy",
            flush=True,
        )


if __name__ == "__main__":
    main()
