"""Rows of the table of blocks: what each candidate of a block costs and loses."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.files import write_text_atomically
from stillhouse.space.chain import ChainBlock
from stillhouse.space.chain_counts import operation_flops, operation_parameters
from stillhouse.supernet.blocks import BlockSupernet, block_losses

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup

SHRINKING_FILE = "shrinking.json"
BLOCKS_FILE = "blocks.csv"
_COLUMNS = ("block", "hidden_size", "operations", "parameters", "flops", "latency_ms", "loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """A candidate of one block that shrinking left.

    Attributes:
        place: Number of the block, from 0.
        parameters: Of its operations.
        flops: Of its operations, at the workload's length.
        latency_ms: Sum of its operations' latencies.
        loss: Against the teacher's state, on held-out text.
    """

    place: int
    block: ChainBlock
    parameters: int
    flops: int
    latency_ms: float
    loss: float


def open_rows(
    nursery: ChainNursery, table: OperationTable, supernets: Sequence[BlockSupernet]
) -> list[BlockRow]:
    """Scores the candidates that are left in every block, or reads what was scored before."""
    file = nursery.run.path / BLOCKS_FILE
    if not file.exists():
        dev = nursery.dev()
        rows = []
        for place, supernet in enumerate(supernets):
            shrunk = json.loads((nursery.supernet_folder(place) / SHRINKING_FILE).read_text())
            alive = [nursery.space.block[index] for index in shrunk["alive"]]
            losses = block_losses(supernet, place, alive, dev, precision=nursery.precision)
            rows += [
                block_row(nursery, table, place, block, loss)
                for block, loss in zip(alive, losses, strict=True)
            ]
        _write_rows(file, rows)
    return read_rows(file)


def block_row(
    setup: ChainSetup | ChainNursery,
    table: OperationTable,
    place: int,
    block: ChainBlock,
    loss: float,
) -> BlockRow:
    """Tells what is known of a candidate whose loss is known."""
    size, ratio, length = block.hidden_size, setup.space.ffn_ratio, setup.workload.length
    return BlockRow(
        place=place,
        block=block,
        parameters=sum(operation_parameters(kind, size, ratio) for kind in block.operations),
        flops=sum(operation_flops(kind, size, ratio, length) for kind in block.operations),
        latency_ms=table.block_ms(block),
        loss=loss,
    )


def _write_rows(file: Path, rows: Sequence[BlockRow]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        operations = " ".join(row.block.operations)
        counts = row.parameters, row.flops, row.latency_ms, row.loss
        writer.writerow([row.place + 1, row.block.hidden_size, operations, *counts])
    write_text_atomically(file, text.getvalue())


def read_rows(file: Path) -> list[BlockRow]:
    """Reads the table of candidates that a run wrote."""
    with file.open(newline="", encoding="utf-8") as opened:
        return [
            BlockRow(
                place=int(row["block"]) - 1,
                block=ChainBlock(
                    hidden_size=int(row["hidden_size"]),
                    operations=tuple(row["operations"].split()),
                ),
                parameters=int(row["parameters"]),
                flops=int(row["flops"]),
                latency_ms=float(row["latency_ms"]),
                loss=float(row["loss"]),
            )
            for row in csv.DictReader(opened)
        ]
