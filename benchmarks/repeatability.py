"""Whether measured ratios can be trusted: the same architectures in two processes, an hour apart.

Ten students of the KD-NAS space in MiniLM's proportions, each timed in turn with the teacher, in
PyTorch and in ONNX Runtime (float32 and int8), batch 1, length 128, one thread. The first call
measures; a call at least an hour later measures again and compares.

    python -m benchmarks.repeatability --small    # ten architectures; again an hour later
    python -m benchmarks.repeatability --full     # forty
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.common import Records, heading, minilm_folder
from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.runtimes import make_runtime
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.encoders import build_encoder, load_encoder
from stillhouse.model.students import student_config
from stillhouse.space.published import kd_nas_for

APART_S = 3_600
WANTED_FRACTION = 0.05
KINDS = ("cpu", "onnxruntime-cpu")


def main() -> None:
    """Measures what this pass has not measured yet, and compares it with the first pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="count", action="store_const", const=10, default=10)
    parser.add_argument("--full", dest="count", action="store_const", const=40)
    count = parser.parse_args().count
    heading("benchmarks.repeatability")
    records = Records(f"repeatability_{count}")
    teacher = load_encoder(minilm_folder()).model
    space = kd_nas_for(architecture_of(teacher.config))
    everything = list(space)
    drawn = np.random.default_rng(0).choice(len(everything), size=count, replace=False)
    architectures = [everything[int(n)] for n in drawn]
    first = records.find({"pass": 1}) or records.add({"pass": 1}, {"begun": time.time()})
    number = 1 if time.time() - float(first["begun"]) < APART_S else 2
    for kind in KINDS:
        device = MeasuredDevice(
            make_runtime(kind),
            teacher=teacher,
            build=lambda shape: build_encoder(student_config(shape, teacher.config), seed=0),
        )
        for precision in [one for one in MEASURED[kind].precisions if one in ("float32", "int8")]:
            workload = Workload(length=128, precision=precision, threads=1)
            for one in architectures:
                job = {"pass": number, "device": kind, "precision": precision, "key": one.key}
                if records.find(job) is None:
                    comparison = device.compare(one, workload)
                    records.add(
                        job,
                        {
                            "ratio": comparison.speedup,
                            "ms": comparison.student.median_ms,
                            "teacher_ms": comparison.teacher.median_ms,
                            "noise": comparison.noise_fraction,
                        },
                    )
            report(records, kind, precision, [one.key for one in architectures])
    if number == 1:
        print("measured once; run the same command again in an hour")


def report(records: Records, kind: str, precision: str, keys: list[str]) -> None:
    """Prints how far the ratios of two passes lie apart, where there are two."""
    job = {"device": kind, "precision": precision}
    pairs = [
        [records.find({"pass": number, **job, "key": key}) for number in (1, 2)] for key in keys
    ]
    both = [(one, two) for one, two in pairs if one is not None and two is not None]
    if len(both) < len(keys):
        return
    ratios = np.array([two["ratio"] / one["ratio"] - 1 for one, two in both])
    times = np.array([two["ms"] / one["ms"] - 1 for one, two in both])
    noise = max(float(one["noise"]) for pair in both for one in pair)
    within = int((np.abs(ratios) <= WANTED_FRACTION).sum())
    print(
        f"{kind} {precision}: ratios to the teacher differ by {np.abs(ratios).mean():.1%} in the "
        f"mean, {np.abs(ratios).max():.1%} at most; {within} of {len(both)} within "
        f"{WANTED_FRACTION:.0%}; milliseconds by {np.abs(times).mean():.1%} and "
        f"{np.abs(times).max():.1%}; largest noise {noise:.1%}",
        flush=True,
    )


if __name__ == "__main__":
    main()
