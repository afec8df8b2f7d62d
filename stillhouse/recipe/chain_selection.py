"""Choosing complete chains for budgets from the table of blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillhouse.distill.losses import label_cross_entropy
from stillhouse.errors import DeviceError
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.limits import BYTES_PER_PARAMETER, size_mb, violations
from stillhouse.search.table_selection import BlockTable, nearest, select_lowest
from stillhouse.space.chain_counts import (
    bridge_flops,
    bridge_parameters,
    count_chain_flops,
    count_chain_parameters,
)
from stillhouse.space.counts import count_flops
from stillhouse.space.nas_bert import embedding_size_for
from stillhouse.supernet.blocks import chain_states

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stillhouse.device.latency import Comparison
    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_blocks import BlockRow
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import LimitSettings
    from stillhouse.space.chain import ChainArchitecture, ChainBlock
    from stillhouse.supernet.blocks import BlockSupernet, DevBatch

SELECTED_FILE = "selected.json"
_PARAMETERS, _LATENCY, _FLOPS = range(3)
_COSTS = ("M parameters", "ms", "of the teacher's FLOPs")
_ROUNDING = 1e-12
"""A count that is over its limit by a smaller fraction is at it: limits have units of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A complete chain out of the table.

    Attributes:
        block_loss: Sum of its blocks' losses, by which it was proposed.
        mlm_loss: Cross-entropy in nats of the complete model at hidden tokens of held-out text,
            with the supernets' weights and the teacher's head, by which it was chosen.
        predicted_ms: Sum of its operations' latencies and its ends'.
    """

    architecture: ChainArchitecture
    block_loss: float
    mlm_loss: float
    predicted_ms: float


class ChainTable:
    """The table of blocks as selection reads it: for one width of the embeddings at a time."""

    def __init__(
        self,
        setup: ChainSetup | ChainNursery,
        operations: OperationTable,
        rows: Sequence[BlockRow],
    ) -> None:
        """Keeps the parts."""
        self._setup, self._operations = setup, operations
        self._ends = replace(ends_of(setup.teacher.encoder.model.config), labels=0)
        self._by_place: list[list[BlockRow]] = [[] for _ in range(setup.space.blocks)]
        for row in rows:
            self._by_place[row.place].append(row)

    @property
    def teacher_ms(self) -> float:
        """Latency of the teacher when the operations were measured."""
        return self._operations.teacher_ms

    @cached_property
    def teacher_flops(self) -> int:
        """Operations of the teacher at the workload's length."""
        teacher = architecture_of(self._setup.teacher.encoder.model.config)
        return count_flops(teacher, self._ends, length=self._setup.workload.length)

    def embedding_sizes(self, limits: LimitSettings) -> list[int]:
        """Tells the widths of the embeddings that a budget allows, the wanted one first.

        It is that of `embedding_size_for`; narrower ones are there in case nothing is left for the
        blocks.
        """
        most = self._bounds(limits)[_PARAMETERS]
        wanted = embedding_size_for(
            self._setup.space,
            vocab_size=self._ends.vocab_size,
            params_limit=None if math.isinf(most) else int(most),
        )
        sizes = self._setup.space.embedding_sizes
        return sorted((size for size in sizes if size <= wanted), reverse=True)

    def select(self, limits: LimitSettings, count: int) -> list[tuple[ChainArchitecture, float]]:
        """Returns the chains of the lowest summed loss within a budget, and that loss.

        All have embeddings of one width, the first of `embedding_sizes` that leaves any chain.

        Raises:
            DeviceError: If none is within it; it names the nearest.
        """
        sizes = self.embedding_sizes(limits)
        for embedding_size in sizes:
            given = self._arguments(embedding_size, limits)
            selected = select_lowest(self._tables, **given, count=count)
            if len(selected.losses):
                return [
                    (self._architecture(row, embedding_size), float(loss))
                    for row, loss in zip(selected.rows, selected.losses, strict=True)
                ]
        raise DeviceError(self._why_none(sizes, limits))

    def parameters(self, architecture: ChainArchitecture) -> int:
        """Counts all parameters of an encoder with its pooler."""
        return count_chain_parameters(architecture, self._ends).total

    def flops(self, architecture: ChainArchitecture) -> int:
        """Counts its operations at the workload's length."""
        length = self._setup.workload.length
        return count_chain_flops(architecture, self._ends, length=length)

    def violations(
        self, limits: LimitSettings, architecture: ChainArchitecture, comparison: Comparison
    ) -> dict[str, float]:
        """Tells by how much a measured chain is over each limit, as `limits.violations` does."""
        return violations(
            limits,
            comparison,
            parameters=self.parameters(architecture),
            flops_fraction=self.flops(architecture) / self.teacher_flops,
        )

    @cached_property
    def _tables(self) -> list[BlockTable]:
        sizes = self._setup.space.block.hidden_sizes
        return [
            BlockTable(
                loss=np.array([row.loss for row in rows]),
                costs=np.array([[row.parameters, row.latency_ms, row.flops] for row in rows]),
                group=np.array([sizes.index(row.block.hidden_size) for row in rows]),
            )
            for rows in self._by_place
        ]

    def _arguments(self, embedding_size: int, limits: LimitSettings) -> dict[str, Any]:
        sizes = self._setup.space.block.hidden_sizes
        length, table = self._setup.workload.length, self._operations
        bridges = [
            [
                (
                    bridge_parameters(before, after),
                    table.bridge_ms(before, after),
                    bridge_flops(before, after, length),
                )
                for after in sizes
            ]
            for before in sizes
        ]
        first = [
            (
                self._ends.rows * embedding_size
                + 2 * embedding_size  # norm
                + bridge_parameters(embedding_size, size),
                table.ends_ms(embedding_size, size),
                bridge_flops(embedding_size, size, length),
            )
            for size in sizes
        ]
        pooler = [(size * size + size, 0.0, 2 * size * size) for size in sizes]
        return {
            "bridges": np.array(bridges, dtype=float),
            "first": np.array(first, dtype=float),
            "last": np.array(pooler, dtype=float),
            "limits": self._bounds(limits),
        }

    def _bounds(self, limits: LimitSettings) -> NDArray[np.float64]:
        given = limits.given()
        bounds = np.full(3, np.inf)
        sizes = {
            "size_mb": 1e6 / BYTES_PER_PARAMETER,
            "parameters": 1.0,
            "params_m": 1e6,
        }
        for name, factor in sizes.items():
            bounds[_PARAMETERS] = min(bounds[_PARAMETERS], given.get(name, math.inf) * factor)
        bounds[_LATENCY] = given.get("latency_ms", math.inf)
        if "speedup" in given:
            fast_ms = self._operations.teacher_ms / given["speedup"]
            bounds[_LATENCY] = min(bounds[_LATENCY], fast_ms)
        bounds[_FLOPS] = given.get("flops_fraction", math.inf) * self.teacher_flops
        return bounds * (1 + _ROUNDING)

    def _architecture(self, row: NDArray[np.int64], embedding_size: int) -> ChainArchitecture:
        blocks = [
            rows[index].block for rows, index in zip(self._by_place, row.tolist(), strict=True)
        ]
        return self._setup.space.architecture(blocks, embedding_size)

    def _why_none(self, embedding_sizes: Sequence[int], limits: LimitSettings) -> str:
        found = {
            size: nearest(self._tables, **self._arguments(size, limits)) for size in embedding_sizes
        }
        bounds = self._bounds(limits)
        size = min(found, key=lambda one: float((found[one].costs[0] / bounds).max()))
        near = self._architecture(found[size].rows[0], size)
        costs = found[size].costs[0] / [1e6, 1.0, self.teacher_flops]
        listed = ", ".join(f"{cost:.3g} {name}" for cost, name in zip(costs, _COSTS, strict=True))
        asked = ", ".join(f"{name}={value:g}" for name, value in limits.given().items())
        return (
            f"no student of this search is within {asked}: the nearest has {listed} "
            f"({near.label}). Loosen the limit, or search smaller hidden sizes "
            "(blocks.hidden_sizes) in another run directory"
        )


def select_students(
    nursery: ChainNursery,
    operations: OperationTable,
    rows: Sequence[BlockRow],
    supernets: Sequence[BlockSupernet],
    budgets: Sequence[LimitSettings],
) -> list[Path]:
    """Chooses a student for each budget and notes it in the run; one noted before stays.

    Returns:
        Folders of the selected, one for each budget.

    Raises:
        DeviceError: If a budget is met by none; those before it are noted.
    """
    table = ChainTable(nursery, operations, rows)
    dev: list[DevBatch] = []
    folders = []
    for limits in budgets:
        folder = _selected_before(nursery, limits)
        if folder is None:
            dev = dev or nursery.dev()
            ranked = _ranked(nursery, operations, table, supernets, dev, limits)
            best, comparison = _first_within(nursery, table, ranked, limits)
            others = [one for one in ranked if one is not best]
            told = _told(nursery, table, best, comparison, limits)
            count = nursery.settings.select.runners_up
            told["runners_up"] = [_described(one) for one in others[:count]]
            folder = _note(nursery.run, told)
        folders.append(folder)
    return folders


def selected_folders(run: RunDirectory) -> list[Path]:
    """Returns the folders of what was selected in a run, by their number."""
    found = [file.parent for file in (run.path / "selected").glob(f"*/{SELECTED_FILE}")]
    ranked = [folder for folder in found if folder.name.isdecimal()]
    return sorted(ranked, key=lambda folder: int(folder.name))


def read_selected(folder: Path) -> dict[str, Any]:
    """Reads what is known of a selected student."""
    return dict(json.loads((folder / SELECTED_FILE).read_text(encoding="utf-8")))


def _selected_before(nursery: ChainNursery, limits: LimitSettings) -> Path | None:
    """Finds what was selected for a budget, out of as many complete models."""
    asked = {"limits": limits.given(), "candidates": nursery.settings.select.candidates}
    for folder in selected_folders(nursery.run):
        known = read_selected(folder)
        if all(known.get(name) == value for name, value in asked.items()):
            return folder
    return None


def _ranked(
    nursery: ChainNursery,
    operations: OperationTable,
    table: ChainTable,
    supernets: Sequence[BlockSupernet],
    dev: Sequence[DevBatch],
    limits: LimitSettings,
) -> list[Chosen]:
    """Proposes chains by the table and orders them by what they do as complete models."""
    proposed = table.select(limits, nursery.settings.select.candidates)
    nursery.narrator.begin(f"Comparing {len(proposed)} complete students", 1.0)
    ranked = []
    for done, (architecture, loss) in enumerate(proposed, start=1):
        chosen = Chosen(
            architecture=architecture,
            block_loss=loss,
            mlm_loss=mlm_loss(nursery, supernets, architecture.blocks, dev),
            predicted_ms=operations.chain_ms(architecture),
        )
        ranked.append(chosen)
        nursery.narrator.advance(done / len(proposed))
    nursery.narrator.end()
    return sorted(ranked, key=lambda one: one.mlm_loss)


@torch.no_grad()
def mlm_loss(
    nursery: ChainNursery,
    supernets: Sequence[BlockSupernet],
    blocks: Sequence[ChainBlock],
    dev: Sequence[DevBatch],
) -> float:
    """Scores a complete model: its last state, read by the teacher's head for masked words."""
    head = nursery.teacher.head
    assert head is not None  # `with_mlm_head` gave it one
    total, count = 0.0, 0
    for batch in dev:
        state_BTD = chain_states(supernets, blocks, batch, precision=nursery.precision)
        chosen_ND = state_BTD.float().flatten(0, 1)[batch.text.places]
        labels_N = batch.text.labels
        total += label_cross_entropy(head(chosen_ND), labels_N).item() * len(labels_N)
        count += len(labels_N)
    return total / count


def _first_within(
    nursery: ChainNursery, table: ChainTable, ranked: Sequence[Chosen], limits: LimitSettings
) -> tuple[Chosen, Comparison | None]:
    """Measures complete models until one is within the budget; the sum is a prediction only.

    Raises:
        DeviceError: If the device finds every one of them too slow.
    """
    if nursery.settings.device.kind == "table":  # it knows operations, not every chain
        return ranked[0], None
    for chosen in ranked:
        comparison = nursery.device.compare(chosen.architecture, nursery.workload)
        over = table.violations(limits, chosen.architecture, comparison)
        if all(amount <= 0 for amount in over.values()):
            return chosen, comparison
    raise DeviceError(
        f"{len(ranked)} students are within {limits.given()} by the sum of their operations, but "
        "none is as a whole model: loosen the limit a little, or compare more of them "
        "(select.candidates)"
    )


def _described(chosen: Chosen) -> dict[str, Any]:
    return {
        "architecture": chosen.architecture.to_dict(),
        "architecture_label": chosen.architecture.label,
        "block_loss": chosen.block_loss,
        "mlm_loss": chosen.mlm_loss,
        "predicted_latency_ms": chosen.predicted_ms,
    }


def _told(
    nursery: ChainNursery,
    table: ChainTable,
    chosen: Chosen,
    comparison: Comparison | None,
    limits: LimitSettings,
) -> dict[str, Any]:
    parameters = table.parameters(chosen.architecture)
    flops = table.flops(chosen.architecture)
    predicted = {
        "latency_ms": chosen.predicted_ms,
        "latency_how": "sum of operations",
        "teacher_latency_ms": table.teacher_ms,
        "speedup": table.teacher_ms / chosen.predicted_ms,
    }
    return {
        **_described(chosen),
        **(predicted if comparison is None else latency_metrics(comparison)),
        "device": nursery.device.name,
        "workload": asdict(nursery.workload),
        "workload_label": nursery.workload.label,
        "parameters": parameters,
        "size_mb": size_mb(parameters),
        "flops": flops,
        "flops_fraction": flops / table.teacher_flops,
        "limits": limits.given(),
        "candidates": nursery.settings.select.candidates,
        "within_limit": True,
    }


def _note(run: RunDirectory, told: Mapping[str, Any]) -> Path:
    folders = selected_folders(run)
    number = 1 + max((int(folder.name) for folder in folders), default=0)
    folder = run.path / "selected" / str(number)
    with folder_written_aside(folder) as aside:
        text = json.dumps(told, indent=2)
        (aside / SELECTED_FILE).write_text(text + "\n", encoding="utf-8")
    return folder
