"""Time and memory of the relation losses against computing them directly.

Directly means: all relation matrices of a batch and kind at once, left to autograd, as public
re-implementations of MiniLMv2 do. Both take queries, keys and values of full-length batches in
float32, 12 relation heads, forward and backward. Every case runs in its own process. Its memory is
the peak of one step above what was there before, inputs included in the latter.

    python -m benchmarks.relation_loss --small     # 3 steps each, some minutes
    python -m benchmarks.relation_loss --full      # 15 steps each
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from benchmarks.common import heading
from stillhouse.distill.relations import QueryKeyValue, RelationTarget, relations_loss

HEADS = 12
TARGETS: tuple[RelationTarget, ...] = ("scores", "probabilities", "kl")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One side of one comparison; the student has 7/12 of the teacher's width, as 7 heads of 12."""

    side: str
    target: RelationTarget
    length: int
    batch: int
    width: int


def direct_relation(projection_BTW: Tensor) -> Tensor:
    """Builds all relation matrices of a batch."""
    width = projection_BTW.shape[-1] // HEADS
    vectors_BTRK = projection_BTW[..., : HEADS * width].unflatten(-1, (HEADS, width))
    vectors_BRTK = vectors_BTRK.transpose(1, 2)
    return vectors_BRTK @ vectors_BRTK.mT / math.sqrt(width)


def direct_loss(student: QueryKeyValue, teacher: QueryKeyValue, target: RelationTarget) -> Tensor:
    """Computes what `relations_loss` does, in the plain way."""
    total = torch.zeros(())
    for student_BTW, teacher_BTW in zip(student, teacher, strict=True):
        student_BRTS = direct_relation(student_BTW)
        teacher_BRTS = direct_relation(teacher_BTW)
        if target == "scores":
            total = total + F.mse_loss(student_BRTS, teacher_BRTS)
        elif target == "probabilities":
            total = total + F.mse_loss(student_BRTS.softmax(-1), teacher_BRTS.softmax(-1))
        else:
            divergence = F.kl_div(
                student_BRTS.log_softmax(-1), teacher_BRTS.softmax(-1), reduction="sum"
            )
            total = total + divergence / student_BRTS[..., 0].numel()
    return total


def projections(case: Case, width: int, *, learns: bool) -> QueryKeyValue:
    """Draws queries, keys and values."""
    return QueryKeyValue(
        *(torch.randn(case.batch, case.length, width).requires_grad_(learns) for _ in range(3))
    )


def step_of(case: Case) -> Callable[[], float]:
    """Makes the inputs of a case and returns a step on them, which gives the loss."""
    torch.manual_seed(0)
    teacher = projections(case, case.width, learns=False)
    student = projections(case, case.width * 7 // 12, learns=True)

    def step() -> float:
        if case.side == "direct":
            loss = direct_loss(student, teacher, case.target)
        else:
            loss = relations_loss(student, teacher, None, heads=HEADS, target=case.target)
        loss.backward()
        for projection in student:
            projection.grad = None
        return loss.item()

    return step


def peak_mb() -> float:
    """Reads the process's peak of resident memory since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def run_case(case: Case, steps: int) -> dict[str, Any]:
    """Measures a case in this process."""
    step_of(Case(**{**asdict(case), "length": 16, "batch": 2}))()  # what the first call ever needs
    step = step_of(case)
    reset = Path("/proc/self/clear_refs")
    reset.write_text("5")  # the peak becomes what is resident now
    before_mb = peak_mb()
    loss = step()
    memory_mb = peak_mb() - before_mb
    times_s = []
    for _ in range(steps):
        start_s = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - start_s)
    return {"loss": loss, "memory_mb": memory_mb, "times_s": times_s}


def measure(case: Case, steps: int) -> dict[str, Any]:
    """Measures a case in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, "--case", json.dumps(asdict(case))]
    command += ["--steps", str(steps), "--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def print_row(target: RelationTarget, sizes: tuple[int, int, int], steps: int) -> None:
    """Measures both sides of a comparison and prints them beside each other."""
    length, batch, width = sizes
    ours, direct = (
        measure(Case(side=side, target=target, length=length, batch=batch, width=width), steps)
        for side in ("ours", "direct")
    )
    if not math.isclose(ours["loss"], direct["loss"], rel_tol=1e-4):
        raise SystemExit(f"the losses differ: {ours['loss']} and {direct['loss']}")
    times = [1e3 * float(np.median(side["times_s"])) for side in (ours, direct)]
    memory = [side["memory_mb"] for side in (ours, direct)]
    print(
        f"{target:<15}{length:>7}{batch:>7}{width:>7}"
        f"{times[0]:>10.0f}{times[1]:>11.0f}{times[1] / times[0]:>8.1f}"
        f"{memory[0]:>10.0f}{memory[1]:>11.0f}{memory[1] / max(memory[0], 1):>8.1f}",
        flush=True,
    )


def main() -> None:
    """Prints times and peaks of all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="3 steps each")
    parser.add_argument("--full", action="store_true", help="15 steps each")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(run_case(Case(**json.loads(arguments.case)), arguments.steps)))
        return
    heading("benchmarks.relation_loss")
    print(
        f"{'target':<15}{'length':>7}{'batch':>7}{'width':>7}"
        f"{'ours ms':>10}{'direct ms':>11}{'ratio':>8}{'ours MB':>10}{'direct MB':>11}{'ratio':>8}"
    )
    for target in TARGETS:
        for sizes in product((128, 512), (8, 32), (384, 768)):
            print_row(target, sizes, 15 if arguments.full else 3)


if __name__ == "__main__":
    main()
