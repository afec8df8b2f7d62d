"""Latency of the single operations of a chain, and of whole chains as their sum.

Source: NAS-BERT (Xu et al., KDD 2021), section 3.4: a look-up table of operations, measured once on
the device. An operation cannot be timed alone on every device, and alone it would be timed with a
warm cache and without its neighbours. So whole chains are timed that hold it few and many times;
the difference over their number is its latency, and what is left is that of the two ends.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.errors import DeviceError
from stillhouse.files import write_text_atomically
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import bridge_flops, operation_flops

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.device.latency import Comparison, Device, Workload
    from stillhouse.space.chain import ChainSpace

FEW, MANY = 2, 8
ENDS = "ends"
"""Row of the table for embeddings and pooler, beside the rows of the operations."""
TEACHER = "teacher"

_COLUMNS = ("operation", "hidden_size", "latency_ms", "refused")
_LEAST_MS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTable:
    """Latencies of operations on one device under one workload.

    Attributes:
        latency_ms: By operation (or `ENDS`) and hidden size.
        teacher_ms: The teacher's latency, median over all comparisons.
        refused: Why the device cannot run an operation, for those that it cannot run.
        ffn_ratio: Inner width of the feed-forward operation over the hidden size.
    """

    latency_ms: Mapping[tuple[str, int], float]
    teacher_ms: float
    refused: Mapping[tuple[str, int], str] = field(default_factory=dict)
    ffn_ratio: int = 4

    def block_ms(self, block: ChainBlock) -> float:
        """Sums up the operations of a block."""
        return sum(self.latency_ms[kind, block.hidden_size] for kind in block.operations)

    def bridge_ms(self, before: int, after: int) -> float:
        """Estimates the projection between two widths; none is needed between equal ones.

        A bridge is a matrix product, as most of a feed-forward operation is: it is taken to run at
        the rate of that operation at the larger of the widths.
        """
        if before == after:
            return 0.0
        sizes = [size for kind, size in self.latency_ms if kind == "F"]
        if not sizes:
            return 0.0
        size = min(sizes, key=lambda one: abs(one - max(before, after)))
        flops = operation_flops("F", size, self.ffn_ratio, length=1)
        return self.latency_ms["F", size] * bridge_flops(before, after, length=1) / flops

    def ends_ms(self, embedding_size: int, hidden_size: int) -> float:
        """Tells what embeddings and pooler take before and behind a chain of a width.

        It is infinite at a width of which the device refuses all operations.
        """
        ends_ms = self.latency_ms.get((ENDS, hidden_size), math.inf)
        return ends_ms + self.bridge_ms(embedding_size, hidden_size)

    def chain_ms(self, architecture: ChainArchitecture) -> float:
        """Predicts the latency of a whole chain as the sum of its parts."""
        blocks = architecture.blocks
        widths = [block.hidden_size for block in blocks]
        return (
            self.ends_ms(architecture.embedding_size, widths[0])
            + sum(self.block_ms(block) for block in blocks)
            + sum(self.bridge_ms(before, after) for before, after in pairwise(widths))
        )

    def write(self, path: Path) -> None:
        """Writes a CSV file with a row for every operation and width."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerow([TEACHER, "", self.teacher_ms, ""])
        for (kind, size), ms in self.latency_ms.items():
            writer.writerow([kind, size, ms, ""])
        for (kind, size), reason in self.refused.items():
            writer.writerow([kind, size, "", reason])
        write_text_atomically(path, text.getvalue())


def read_operations(path: Path, *, ffn_ratio: int) -> OperationTable:
    """Reads what `OperationTable.write` wrote."""
    latency_ms, refused, teacher_ms = {}, {}, float("nan")
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["operation"] == TEACHER:
                teacher_ms = float(row["latency_ms"])
                continue
            key = row["operation"], int(row["hidden_size"])
            if row["latency_ms"]:
                latency_ms[key] = float(row["latency_ms"])
            else:
                refused[key] = row["refused"]
    return OperationTable(
        latency_ms=latency_ms,
        teacher_ms=teacher_ms,
        refused=refused,
        ffn_ratio=ffn_ratio,
    )


def measure_operations(
    device: Device,
    workload: Workload,
    space: ChainSpace,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> OperationTable:
    """Measures every operation at every width of a space.

    A chain is timed in turn with the teacher. The ratio to it is what counts: it survives a machine
    whose speed drifts from one chain to the next; the teacher's median over all makes it
    milliseconds again.

    Args:
        device: Where students will run.
        workload: What they will be asked.
        space: Its operations and widths.
        on_progress: Told the finished fraction, 0..1.

    Raises:
        DeviceError: If the device runs none of the operations.
    """
    found: dict[tuple[str, int], tuple[Comparison, Comparison]] = {}
    refused: dict[tuple[str, int], str] = {}
    wanted = list(product(space.block.operations, space.block.hidden_sizes))
    for done, (kind, size) in enumerate(wanted, start=1):
        try:
            few, many = (
                device.compare(probing_chain(space, kind, size, count), workload)
                for count in (FEW, MANY)
            )
            found[kind, size] = few, many
        except DeviceError as error:
            refused[kind, size] = str(error)
        if on_progress is not None:
            on_progress(done / len(wanted))
    if not found:
        reason = next(iter(refused.values()))
        raise DeviceError(f"{device.name} runs none of the operations; the first said: {reason}")
    teacher_ms = float(
        np.median([one.teacher.median_ms for pair in found.values() for one in pair])
    )
    return OperationTable(
        latency_ms=_differences(found, teacher_ms),
        teacher_ms=teacher_ms,
        refused=refused,
        ffn_ratio=space.ffn_ratio,
    )


def probing_chain(space: ChainSpace, kind: str, size: int, count: int) -> ChainArchitecture:
    """A chain of one operation alone, whose embeddings need no bridge."""
    return ChainArchitecture(
        embedding_size=size,
        blocks=(ChainBlock(hidden_size=size, operations=(kind,) * count),),
        head_size=space.head_size,
        ffn_ratio=space.ffn_ratio,
        activation=space.activation,
    )


def _differences(
    found: Mapping[tuple[str, int], tuple[Comparison, Comparison]], teacher_ms: float
) -> dict[tuple[str, int], float]:
    latency_ms: dict[tuple[str, int], float] = {}
    rests: dict[int, list[float]] = {}
    for (kind, size), (few, many) in found.items():
        few_ms, many_ms = (teacher_ms / one.speedup for one in (few, many))
        each_ms = (many_ms - few_ms) / (MANY - FEW)
        latency_ms[kind, size] = max(each_ms, _LEAST_MS)
        rests.setdefault(size, []).append(few_ms - FEW * each_ms)
    for size, rest_ms in rests.items():
        latency_ms[ENDS, size] = max(float(np.median(rest_ms)), _LEAST_MS)
    return latency_ms
