"""A step of a supernet against the same four subnets trained as plain models: time and memory.

Both sides compute the same gradients: forward to the last queries, keys and values, relation
loss, backward, and one optimiser step. The plain models each look up their own embeddings; their
memory is that of the largest one alone, trained alone, which any training needs. Sides alternate.

    python -m benchmarks.supernet_cost --small     # MiniLM's sub-spaces
    python -m benchmarks.supernet_cost --full      # a teacher of BERT-base's shape
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

from benchmarks.common import heading
from stillhouse.distill.relations import relations_loss
from stillhouse.model.anatomy import architecture_of
from stillhouse.space.published import autodistil_for
from stillhouse.supernet.sandwich import RelationLesson, draw_subnets
from stillhouse.supernet.skeletons import ProjectionReader
from stillhouse.supernet.subnets import Supernet

TEACHERS = {
    "small": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "full": {},
}
BATCH, LENGTH = 8, 128
ROUNDS = 12
RESAMPLES = 2_000


class Sides:
    """Both ways of training four subnets on one batch."""

    def __init__(self, size: str, space: str) -> None:
        torch.manual_seed(0)
        teacher = BertModel(BertConfig(num_attention_heads=12, **TEACHERS[size])).eval()
        self.supernet = Supernet(
            teacher, list(autodistil_for(architecture_of(teacher.config), space))
        ).train()
        self.subnets = draw_subnets(self.supernet.architectures, random_count=2, seed=0, step=0)
        self.readers = [
            ProjectionReader(self.supernet.extract(one)).train() for one in self.subnets
        ]
        self.lesson = RelationLesson(
            teacher=ProjectionReader(teacher.requires_grad_(requires_grad=False)), heads=12
        )
        self.ids_BT = torch.randint(1000, 30000, (BATCH, LENGTH))
        self.wanted = self.lesson.wanted(self.ids_BT, None)
        self.shared = torch.optim.AdamW(self.supernet.reached(), lr=1e-6)
        self.own = [torch.optim.AdamW(reader.parameters(), lr=1e-6) for reader in self.readers]

    def shared_step(self) -> None:
        """One step of the supernet; the teacher is not asked again."""
        looked_up = self.supernet.words(self.ids_BT)
        words = looked_up.detach().requires_grad_()
        for subnet in self.subnets:
            self.lesson.loss(self.supernet, subnet, words, None, self.wanted).backward()
        torch.autograd.backward(looked_up, words.grad)
        self.shared.step()
        self.shared.zero_grad()

    def plain_step(self, numbers: range) -> None:
        """One step of each of the given plain models."""
        for number in numbers:
            found = self.readers[number](self.ids_BT)
            relations_loss(found, self.wanted, None, heads=12, target="scores").backward()
            self.own[number].step()
            self.own[number].zero_grad()


def seconds(step: Callable[[], None]) -> float:
    start_s = time.perf_counter()
    step()
    return time.perf_counter() - start_s


def peak_mb() -> float:
    """Highest resident memory of this process so far, in 10⁶ bytes; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def measure_memory(size: str, space: str, side: str) -> None:
    """Prints the memory that three steps add, in a process of its own."""
    sides = Sides(size, space)
    if side == "shared":
        sides.readers, sides.own = [], []
    else:
        sides.readers, sides.own = sides.readers[:1], sides.own[:1]
        del sides.supernet, sides.shared
    for _ in range(3):
        sides.shared_step() if side == "shared" else sides.plain_step(range(1))
    print(json.dumps({"peak_mb": peak_mb()}))


def memory_mb(size: str, space: str, side: str) -> float:
    command = [sys.executable, "-m", "benchmarks.supernet_cost", f"--{size}"]
    done = subprocess.run(
        [*command, "--memory", side, "--space", space], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def compare(size: str, space: str) -> None:
    """Prints both sides of one sub-space."""
    sides = Sides(size, space)
    shared, plain = [], []
    for turn in range(ROUNDS + 2):
        both = (seconds(sides.shared_step), seconds(lambda: sides.plain_step(range(4))))
        if turn >= 2:
            shared.append(both[0])
            plain.append(both[1])
    ratios = np.array(shared) / np.array(plain)
    generator = np.random.default_rng(0)
    spread = [np.median(generator.choice(ratios, len(ratios))) for _ in range(RESAMPLES)]
    low, high = np.quantile(spread, (0.025, 0.975))
    memory = [memory_mb(size, space, side) for side in ("shared", "plain")]
    print(
        f"{space:<6} supernet {np.median(shared):.3f} s, plain {np.median(plain):.3f} s: "
        f"{np.median(ratios):.3f}x ({low:.3f} to {high:.3f}), n = {ROUNDS} pairs; peak memory "
        f"{memory[0]:.0f} MB, largest alone {memory[1]:.0f} MB: {memory[0] / memory[1]:.2f}x"
    )


def main() -> None:
    """Compares in every sub-space."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--small", dest="size", action="store_const", const="small", default="small"
    )
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--memory", choices=["shared", "plain"], help="one side, in this process")
    parser.add_argument("--space", default="small")
    given = parser.parse_args()
    if given.memory:
        measure_memory(given.size, given.space, given.memory)
        return
    heading("benchmarks.supernet_cost")
    for space in ("tiny", "small", "base"):
        compare(given.size, space)


if __name__ == "__main__":
    main()
