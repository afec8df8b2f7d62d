"""Latency from a data sheet against measurement, beside FLOPs and layers × FLOPs.

Architectures of KD-NAS's wide space in MiniLM's proportions are drawn, as many from each third of
the range of latencies that the data sheet predicts. Each is timed beside the teacher, and the ratio
to it is what counts; the teacher's median over all makes it milliseconds again. Every fourth is for
the calibration, the same two parameters for every method; the others are what is reported.

    python -m benchmarks.roofline --small     # 14 architectures of each third
    python -m benchmarks.roofline --full      # 40 architectures of each third
    python -m benchmarks.roofline --full --chip h100 --precision bfloat16   # on a GPU
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import Records, heading, minilm_folder
from benchmarks.operation_sum import RESAMPLES, THIRDS, spearman
from stillhouse.device.calibration import calibrate
from stillhouse.device.chips import find_chip
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.roofline import RooflineDevice, roofline_device
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.errors import SpaceError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.count import true_flops
from stillhouse.model.encoders import Encoder, build_encoder, load_encoder
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.published import kd_nas_for

CALIBRATED = 4
"""Every so many architectures one is for the calibration."""
METHODS = ("roofline", "FLOPs", "layers × FLOPs")


def of_each_third(
    device: RooflineDevice, workload: Workload, count: int
) -> list[tuple[str, BertArchitecture]]:
    """Architectures with their thirds, drawn by a fixed seed, the thirds in turn."""
    space = list(kd_nas_for(device.teacher))
    predicted = [device.compare(shape, workload).student.median_ms for shape in space]
    borders = np.linspace(min(predicted), max(predicted), len(THIRDS) + 1)
    thirds = np.clip(np.searchsorted(borders, predicted, side="right") - 1, 0, len(THIRDS) - 1)
    order = np.random.default_rng(0).permutation(len(space))
    found = [[n for n in order if thirds[n] == third][:count] for third in range(len(THIRDS))]
    if min(map(len, found)) < count:
        raise SpaceError("the space has too few architectures for every third of the latencies")
    return [
        (third, space[n])
        for together in zip(*found, strict=True)
        for third, n in zip(THIRDS, together, strict=True)
    ]


def measured(
    drawn: Sequence[tuple[str, BertArchitecture]], teacher: Encoder, workload: Workload
) -> NDArray[np.float64]:
    """Milliseconds of each; what an earlier run measured is read."""
    config, kind = teacher.model.config, "cpu" if workload.threads else "cuda"
    device = MeasuredDevice(
        TorchRuntime(torch.device(kind)),
        teacher=teacher.model,
        build=lambda shape: build_encoder(student_config(shape, config), seed=0),
    )
    asked = f"{workload.batch}x{workload.length}_{workload.precision}"
    records = Records(f"roofline_{kind}_{asked}_{workload.threads}")
    results: list[Mapping[str, Any]] = []
    for third, shape in drawn:
        job = {"third": third, "architecture": shape.key}
        known = records.find(job)
        if known is None:
            comparison = device.compare(shape, workload)
            facts = {"speedup": comparison.speedup, "teacher_ms": comparison.teacher.median_ms}
            known = records.add(job, facts)
        results.append(known)
    teacher_ms = np.median([known["teacher_ms"] for known in results])
    return np.array([teacher_ms / known["speedup"] for known in results])


def interval(resampled: NDArray[np.float64]) -> str:
    """A 95 % interval of shares."""
    low, high = np.quantile(resampled, (0.025, 0.975))
    return f"({low:+.1%} to {high:+.1%})"


def main() -> None:
    """Measures, predicts, calibrates and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="count", action="store_const", const=14, default=14)
    parser.add_argument("--full", dest="count", action="store_const", const=40)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chip", default="server-cpu", help="its data sheet; a GPU's needs CUDA")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    heading("benchmarks.roofline")
    teacher = load_encoder(minilm_folder())
    config = teacher.model.config
    chip = find_chip(given.chip)
    workload = Workload(
        length=given.length,
        batch=given.batch,
        precision=given.precision,
        threads=given.threads if chip.is_processor else 0,
    )
    device = roofline_device(chip, config, bare=True)
    drawn = of_each_third(device, workload, given.count)
    measured_ms = measured(drawn, teacher, workload)

    whole = device.compare(architecture_of(config), workload).teacher.median_ms
    print(f"{workload.label}; {device.name} tells {whole:.2f} ms for the teacher")
    thirds = np.array([third for third, _ in drawn])
    roofline = [device.compare(shape, workload).student.median_ms for _, shape in drawn]
    flops = [true_flops(shape, config, length=given.length, bare=True) for _, shape in drawn]
    by_layers = [one * shape.layers for one, (_, shape) in zip(flops, drawn, strict=True)]
    is_fitted = np.arange(len(drawn)) // len(THIRDS) % CALIBRATED == 0
    predicted, errors = {}, {}
    for method, raw in zip(METHODS, (roofline, flops, by_layers), strict=True):
        values = np.array(raw, dtype=np.float64)
        fitted = calibrate(values[is_fitted], measured_ms[is_fitted])
        predicted[method] = fitted.apply(values)
        errors[method] = np.abs(predicted[method] / measured_ms - 1)
        print(f"  {method}: scale {fitted.scale:.4g}, overhead {fitted.overhead_ms:.3f} ms")

    print(
        "\nthird    n  method          Spearman                 MAPE    above roofline's"
        f"\n(calibrated on {is_fitted.sum()}, reported on the other {(~is_fitted).sum()})"
    )
    for third in (*THIRDS, "all"):
        (chosen,) = np.nonzero(~is_fitted & ((thirds == third) | (third == "all")))
        places = np.random.default_rng(0).choice(chosen, size=(RESAMPLES, len(chosen)))
        for method in METHODS:
            ranks = spearman(predicted[method][chosen], measured_ms[chosen])
            more = errors[method] - errors[METHODS[0]]
            told = f"{more[chosen].mean():+.1%} {interval(more[places].mean(axis=1))}"
            print(
                f"{third:7}{len(chosen):3}  {method:14}  {ranks:23}  "
                f"{errors[method][chosen].mean():6.1%}  {told if method != METHODS[0] else ''}"
            )


if __name__ == "__main__":
    main()
