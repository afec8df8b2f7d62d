"""Latency of whole chains: the sum of their operations, and FLOPs, against measurement.

The table of operations is measured as a search measures it. Then chains of MiniLM's space are
drawn: a third of them uniformly from each third of the range of predicted latencies. Each is timed
beside the teacher, and the ratio to it is what counts. FLOPs are calibrated on what the table was
made from: a line through the same probing chains, by relative error.

    python -m benchmarks.operation_sum --small     # 14 chains of each third
    python -m benchmarks.operation_sum --full      # 40 chains of each third
"""

from __future__ import annotations

import argparse
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks.common import Records, heading, minilm_folder
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.operations import (
    FEW,
    MANY,
    OperationTable,
    measure_operations,
    probing_chain,
    read_operations,
)
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.errors import SpaceError
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import Encoder, build_encoder, load_encoder
from stillhouse.space.chain import ChainArchitecture, ChainSpace
from stillhouse.space.chain_counts import count_chain_flops
from stillhouse.space.nas_bert import nas_bert_for

THIRDS = ("fast", "middle", "slow")
RESAMPLES = 2_000


def drawn(space: ChainSpace, count: int, seed: int) -> list[ChainArchitecture]:
    """Chains whose blocks and embeddings are drawn uniformly."""
    generator = np.random.default_rng(seed)
    chains = []
    for _ in range(count):
        blocks = [space.block[int(n)] for n in generator.integers(space.block.size, size=2)]
        chains.append(space.architecture(blocks, int(generator.choice(space.embedding_sizes))))
    return chains


def of_each_third(
    space: ChainSpace, table: OperationTable, count: int
) -> list[list[ChainArchitecture]]:
    """Chains drawn until every third of the range of predicted latencies has its number."""
    many = drawn(space, 4_000, seed=0)
    predicted = np.array([table.chain_ms(chain) for chain in many])
    borders = np.linspace(predicted.min(), predicted.max(), len(THIRDS) + 1)
    thirds = np.clip(np.searchsorted(borders, predicted, side="right") - 1, 0, len(THIRDS) - 1)
    found = [
        [many[n] for n in np.flatnonzero(thirds == third)[:count]] for third in range(len(THIRDS))
    ]
    if min(map(len, found)) < count:
        raise SpaceError("too few chains were drawn to fill every third of the latencies")
    return found


def calibrated_flops(
    space: ChainSpace, table: OperationTable, teacher: Encoder, length: int
) -> tuple[float, float]:
    """A line from FLOPs to milliseconds through the probing chains, by relative error."""
    ends = ends_of(teacher.model.config)
    chains = [
        probing_chain(space, kind, size, count)
        for kind, size, count in product(
            space.block.operations, space.block.hidden_sizes, (FEW, MANY)
        )
    ]
    flops = np.array([count_chain_flops(chain, ends, length=length) for chain in chains])
    ms = np.array([table.chain_ms(chain) for chain in chains])
    design = np.stack([np.ones_like(ms), flops], axis=1) / ms[:, None]
    (rest, slope), *_ = np.linalg.lstsq(design, np.ones_like(ms), rcond=None)
    return float(rest), float(slope)


def spearman(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> str:
    """Rank correlation with its bootstrap interval over chains."""
    generator = np.random.default_rng(0)
    count = len(predicted)
    resampled = [
        stats.spearmanr(predicted[places], measured[places]).statistic
        for places in generator.integers(count, size=(RESAMPLES, count))
    ]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    value = stats.spearmanr(predicted, measured).statistic
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Measures, predicts and compares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", dest="count", action="store_const", const=14, default=14)
    parser.add_argument("--full", dest="count", action="store_const", const=40)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    heading("benchmarks.operation_sum")
    teacher = load_encoder(minilm_folder())
    space = nas_bert_for(architecture_of(teacher.model.config), blocks=2)
    workload = Workload(length=given.length, batch=given.batch, threads=torch.get_num_threads())
    device = MeasuredDevice(
        TorchRuntime(torch.device("cpu")),
        teacher=teacher.model,
        build=lambda shape: build_encoder(chain_config(shape, teacher.model.config), seed=0),
    )
    records = Records(f"operation_sum_{given.batch}x{given.length}")
    file = records.folder / "operations.csv"
    if not file.exists():
        measure_operations(device, workload, space).write(file)
    table = read_operations(file, ffn_ratio=space.ffn_ratio)
    print(f"{workload.label}; teacher {table.teacher_ms:.2f} ms; operations in ms:")
    for kind in space.block.operations:
        row = ", ".join(f"{s}: {table.latency_ms[kind, s]:.3f}" for s in space.block.hidden_sizes)
        print(f"  {kind:3}{row}")
    rest, slope = calibrated_flops(space, table, teacher, given.length)
    ends = ends_of(teacher.model.config)
    rows = []
    for third, chains in zip(THIRDS, of_each_third(space, table, given.count), strict=True):
        for chain in chains:
            job = {"third": third, "chain": chain.key}
            known = records.find(job)
            if known is None:
                speedup = device.compare(chain, workload).speedup
                known = records.add(job, {"measured_ms": table.teacher_ms / speedup})
            by_flops = rest + slope * count_chain_flops(chain, ends, length=given.length)
            rows.append((third, known["measured_ms"], table.chain_ms(chain), by_flops))
    print("\nthird    n  method      Spearman                 median error  largest error")
    for third in (*THIRDS, "all"):
        chosen = [row for row in rows if third in (row[0], "all")]
        measured, by_sum, by_flops = (np.array([row[n] for row in chosen]) for n in (1, 2, 3))
        for method, predicted in (("operations", by_sum), ("FLOPs", by_flops)):
            error = np.abs(predicted / measured - 1)
            print(
                f"{third:7}{len(chosen):3}  {method:10}  {spearman(predicted, measured):23}  "
                f"{np.median(error):11.1%}  {error.max():12.1%}"
            )


if __name__ == "__main__":
    main()
