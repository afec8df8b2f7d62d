"""Selection of the 100 best of 10⁸ combinations under twenty limits: processor time and memory.

Two sets of tables of 4 blocks with 100 candidates each: one drawn from NAS-BERT's space with
parameters, FLOPs and a latency for each operation, whose loss falls with size; and an adverse one,
in which what is small is slow and the lowest losses cost the most. Of the limits, one is met by
under 0.01 % of the combinations and one by none, though each of its parts could be met. The
baseline adds up and compares all combinations, a million at a time. Each figure is of a process of
its own, which knows no torch, on one core.

    python -m benchmarks.table_selection --small   # baseline on 50 candidates a block (6 × 10⁶)
    python -m benchmarks.table_selection --full    # baseline on all
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from stillhouse.search.table_selection import BlockTable, Selected, nearest, select_lowest

BLOCKS, ROWS, COUNT = 4, 100, 100
TARGET_S, TARGET_MB = 2.0, 500.0
BASELINE_ROWS = {"small": 50, "full": ROWS}
KINDS = ("NAS-BERT's space", "adverse")
HIDDEN = np.array([128, 192, 256, 384, 512])
SAMPLED = 4_000_000
RARE = 5e-5
COMMON_LIMITS = [  # quantiles of size, latency and FLOPs; none means no limit
    *((q, None, None) for q in (0.001, 0.01, 0.1, 0.5, 0.9)),
    *((None, q, None) for q in (0.001, 0.01, 0.1, 0.5, 0.9)),
    *((q, q, None) for q in (0.02, 0.1, 0.3, 0.5, 0.9)),
    *((q, q, q) for q in (0.1, 0.4, 0.7)),
]


class Tables:
    """The blocks' tables of one kind."""

    def __init__(self, kind: str, rows: int) -> None:
        drawn = np.random.default_rng(KINDS.index(kind))
        make = _of_space if kind == KINDS[0] else _adverse
        self.blocks = [make(drawn, rows) for _ in range(BLOCKS)]
        macs = np.multiply.outer(HIDDEN, HIDDEN) * (HIDDEN[:, None] != HIDDEN) / 1e6
        self.ways = {
            "bridges": np.stack([macs, macs * 2, macs * 0.256], axis=2),
            "first": np.outer(HIDDEN, [0.002, 0.001, 0.001]),
            "last": np.outer(HIDDEN, [0.001, 0.002, 0.001]),
        }

    def sample(self, seed: int) -> np.ndarray[Any, Any]:
        """Costs of combinations that are drawn uniformly."""
        rows = np.random.default_rng(seed).integers(0, len(self.blocks[0].loss), (BLOCKS, SAMPLED))
        groups = [block.group[own] for block, own in zip(self.blocks, rows, strict=True)]
        costs = self.ways["first"][groups[0]] + self.ways["last"][groups[-1]]
        for block, own in zip(self.blocks, rows, strict=True):
            costs += block.costs[own]
        for before, after in itertools.pairwise(groups):
            costs += self.ways["bridges"][before, after]
        return costs

    def limits(self) -> list[list[float]]:
        """Twenty limits: the last but one for few combinations, the last one for none."""
        costs = self.sample(seed=0)
        found = [
            [np.inf if q is None else float(np.quantile(costs[:, c], q)) for c, q in enumerate(qs)]
            for qs in COMMON_LIMITS
        ]
        scale = costs.mean(axis=0)
        found.append((scale * np.quantile((costs / scale).max(axis=1), RARE)).tolist())
        least = nearest(self.blocks, **self.ways, limits=scale).costs[0]
        return [*found, (scale * (least / scale).max() * 0.9999).tolist()]


def _of_space(drawn: np.random.Generator, rows: int) -> BlockTable:
    """Blocks of one to six operations (attention, feed-forward, convolutions) of one width."""
    group = drawn.integers(0, len(HIDDEN), rows)
    hidden = HIDDEN[group].astype(np.float64)
    counts = drawn.multinomial(1, np.full(5, 0.2), (rows, 6))
    counts *= (np.arange(6) < drawn.integers(1, 7, rows)[:, None])[:, :, None]
    by_kind = counts.sum(axis=1)
    matrices = by_kind @ [4.0, 8.0, 2.0, 2.0, 2.0]
    parameters_m = matrices * hidden**2 / 1e6
    gflops = 0.256 * parameters_m + by_kind[:, 0] * hidden * 128**2 * 4 / 1e9
    slowness = by_kind @ [1.3, 1.0, 2.2, 2.6, 3.0]  # convolutions are small and slow
    latency_ms = slowness * (0.1 + hidden / 800) * drawn.uniform(0.95, 1.05, rows)
    loss = 0.2 / (0.1 + parameters_m) ** 0.4 + drawn.normal(0, 0.03, rows)
    return BlockTable(
        loss=loss, costs=np.stack([parameters_m, latency_ms, gflops], axis=1), group=group
    )


def _adverse(drawn: np.random.Generator, rows: int) -> BlockTable:
    """Blocks that are small or fast but not both, and the worse the cheaper they are."""
    group = drawn.integers(0, len(HIDDEN), rows)
    size = drawn.uniform(0.5, 9.5, rows)
    latency = 10 - size + drawn.uniform(0, 2, rows)
    costs = np.stack([size, latency, drawn.uniform(1, 2, rows) + np.abs(size - 5)], axis=1)
    return BlockTable(loss=4 - 0.1 * costs.sum(axis=1), costs=costs, group=group)


def brute_force(tables: Tables, limits: np.ndarray[Any, Any]) -> Selected:
    """Adds up every combination, those of one first row at a time."""
    one, two, three, four = tables.blocks
    bridges, shape = tables.ways["bridges"], [len(block.loss) for block in tables.blocks]
    rest = bridges[three.group][:, four.group] + four.costs + tables.ways["last"][four.group]
    rest = bridges[two.group][:, three.group][:, :, None] + three.costs[:, None] + rest
    losses = np.empty(0)
    keys = np.empty(0, dtype=np.int64)
    for row in range(shape[0]):
        group = one.group[row]
        before = tables.ways["first"][group] + one.costs[row] + bridges[group, two.group]
        costs = rest + (before + two.costs)[:, None, None]
        loss = one.loss[row] + two.loss[:, None, None] + three.loss[:, None] + four.loss
        met = np.flatnonzero((costs <= limits).all(axis=-1))
        keys = np.concatenate([keys, met + row * loss.size])
        losses = np.concatenate([losses, loss.ravel()[met]])
        order = np.argsort(losses, kind="stable")[:COUNT]
        losses, keys = losses[order], keys[order]
    return Selected(
        losses=losses,
        rows=np.stack(np.unravel_index(keys, shape), axis=1),
        costs=np.empty((0, len(limits))),
    )


def measure(side: str, kind: str, rows: int, limits: list[float]) -> None:
    """Prints processor time and peak memory of one selection in this process, and its result."""
    tables, limits_C = Tables(kind, rows), np.array(limits)
    start_s = time.process_time()
    if side == "brute force":
        found = brute_force(tables, limits_C)
    elif side == "nearest":
        found = nearest(tables.blocks, **tables.ways, limits=limits_C)
    else:
        found = select_lowest(tables.blocks, **tables.ways, limits=limits_C, count=COUNT)
    cpu_s = time.process_time() - start_s
    lines = Path("/proc/self/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"cpu_s": cpu_s, "mb": peak_kib * 1024 / 1e6, "rows": found.rows.tolist()}))


def measured(side: str, kind: str, rows: int, limits: list[float]) -> dict[str, Any]:
    """Measures in a process of its own."""
    task = json.dumps([side, kind, rows, limits])
    command = [sys.executable, "-m", "benchmarks.table_selection", "--one", task]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def compare(kind: str, baseline_rows: int) -> None:
    """Prints all limits of one kind of tables, and the baseline for two of them."""
    tables = Tables(kind, ROWS)
    every = tables.limits()
    costs = tables.sample(seed=1)
    results = []
    print(f"{kind}: {ROWS}^{BLOCKS} combinations, {COUNT} selected")
    print("limit  share of combinations    found   CPU s   peak MB")
    for number, limits in enumerate(every, start=1):
        share = float((costs <= np.array(limits)).all(axis=1).mean())
        result = measured("select", kind, ROWS, limits)
        results.append(result)
        print(
            f"{number:5}  {share:21.4%}  {len(result['rows']):7}  {result['cpu_s']:6.3f}  "
            f"{result['mb']:8.0f}"
        )
    print(
        f"worst: {max(one['cpu_s'] for one in results):.3f} s (target {TARGET_S:g} s), "
        f"{max(one['mb'] for one in results):.0f} MB (target {TARGET_MB:g} MB)"
    )
    told = measured("nearest", kind, ROWS, every[-1])
    print(f"nearest to limit 20: {told['cpu_s']:.3f} s, {told['mb']:.0f} MB")
    for number in (14, 19):
        limits = every[number - 1]
        plain = measured("brute force", kind, baseline_rows, limits)
        ours = measured("select", kind, baseline_rows, limits)
        print(
            f"limit {number} on {baseline_rows}^{BLOCKS}: brute force {plain['cpu_s']:.2f} s, "
            f"{plain['mb']:.0f} MB; ours {ours['cpu_s']:.3f} s, {ours['mb']:.0f} MB; "
            f"{len(ours['rows'])} found, equal: {plain['rows'] == ours['rows']}"
        )
    print()


def main() -> None:
    """Compares with both kinds of tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--small", dest="size", action="store_const", const="small", default="small"
    )
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--one", help="one measurement, in this process")
    given = parser.parse_args()
    if given.one:
        measure(*json.loads(given.one))
        return
    from benchmarks.common import heading  # noqa: PLC0415  loads torch

    heading("benchmarks.table_selection")
    for kind in KINDS:
        compare(kind, BASELINE_ROWS[given.size])


if __name__ == "__main__":
    main()
