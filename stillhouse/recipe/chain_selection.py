"""Choosing complete chains for budgets from the table of blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillhouse.device.latency import Comparison, told
from stillhouse.distill.losses import label_cross_entropy
from stillhouse.errors import DeviceError, ExportError
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.recipe.chain_memory import MEMORY_ROUNDS, MOST_MEMORIES, bound_memory
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.limits import (
    ROUNDING,
    Weighed,
    bytes_per_parameter,
    compare_finished,
    cost_metrics,
    is_over,
    is_within,
    violations,
    with_any_memory,
    with_memory,
)
from stillhouse.recipe.served import precision_facts
from stillhouse.recipe.served_words import scored_in, served_chains, served_states
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

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_blocks import BlockRow
    from stillhouse.recipe.chain_nursery import ChainNursery, ChainSetup
    from stillhouse.recipe.served import Served
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import LimitSettings
    from stillhouse.space.chain import ChainArchitecture, ChainBlock
    from stillhouse.supernet.blocks import BlockSupernet, DevBatch

SELECTED_FILE = "selected.json"
_PARAMETERS, _LATENCY, _FLOPS = range(3)
_COSTS = ("M parameters", "ms", "of the teacher's FLOPs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A complete chain out of the table.

    Attributes:
        block_loss: Sum of its blocks' losses, by which it was proposed.
        mlm_loss: Cross-entropy in nats of the complete model at hidden tokens of held-out text,
            with the supernets' weights, in 8 bits where the device is, and the teacher's head; by
            which it was chosen.
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

    def embedding_sizes(
        self, limits: LimitSettings, most_parameters: float = math.inf
    ) -> list[int]:
        """Tells the widths of the embeddings that a budget allows, the wanted one first.

        It is that of `embedding_size_for`; narrower ones are there in case nothing is left for the
        blocks.
        """
        most = self._bounds(limits, most_parameters)[_PARAMETERS]
        wanted = embedding_size_for(
            self._setup.space,
            vocab_size=self._ends.vocab_size,
            params_limit=None if math.isinf(most) else int(most),
        )
        sizes = self._setup.space.embedding_sizes
        return sorted((size for size in sizes if size <= wanted), reverse=True)

    def select(
        self, limits: LimitSettings, count: int, most_parameters: float = math.inf
    ) -> list[tuple[ChainArchitecture, float]]:
        """Returns the chains of the lowest summed loss within a budget, and that loss.

        All have embeddings of one width, the first of `embedding_sizes` that leaves any chain.

        Args:
            limits: The budget; memory, which no sum tells, is left out.
            count: Most chains.
            most_parameters: Bound on the parameters beside the budget's own.

        Raises:
            DeviceError: If none is within it; it names the nearest.
        """
        sizes = self.embedding_sizes(limits, most_parameters)
        for embedding_size in sizes:
            given = self._arguments(embedding_size, self._bounds(limits, most_parameters))
            selected = select_lowest(self._tables, **given, count=count)
            if len(selected.losses):
                return [
                    (self._architecture(row, embedding_size), float(loss))
                    for row, loss in zip(selected.rows, selected.losses, strict=True)
                ]
        raise DeviceError(self._why_none(sizes, limits, most_parameters))

    def parameters(self, architecture: ChainArchitecture) -> int:
        """Counts all parameters of an encoder with its pooler."""
        return count_chain_parameters(architecture, self._ends).total

    def flops(self, architecture: ChainArchitecture) -> int:
        """Counts its operations at the workload's length."""
        length = self._setup.workload.length
        return count_chain_flops(architecture, self._ends, length=length)

    def weighed(self, architecture: ChainArchitecture, comparison: Comparison) -> Weighed:
        """Tells the costs of a chain whose latency is known."""
        return Weighed(
            parameters=self.parameters(architecture),
            flops_fraction=self.flops(architecture) / self.teacher_flops,
            precision=self._setup.workload.precision,
            comparison=comparison,
        )

    def predicted(self, architecture: ChainArchitecture) -> Comparison:
        """Tells the latency as the sum of the operations', for a device that knows no more."""
        times_ms = self._operations.chain_ms(architecture), self.teacher_ms
        device, workload = self._setup.device.name, self._setup.workload
        student, teacher = (
            told(ms, how="table", device=device, workload=workload) for ms in times_ms
        )
        return Comparison(student=student, teacher=teacher)

    def smallest(self) -> ChainArchitecture:
        """Returns the chain of the fewest parameters, with the narrowest embeddings."""
        blocks = [min(rows, key=lambda row: row.parameters).block for rows in self._by_place]
        return self._setup.space.architecture(blocks, min(self._setup.space.embedding_sizes))

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

    def _arguments(self, embedding_size: int, bounds: NDArray[np.float64]) -> dict[str, Any]:
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
            "limits": bounds,
        }

    def _bounds(self, limits: LimitSettings, most_parameters: float) -> NDArray[np.float64]:
        given = limits.given()
        bounds = np.full(3, np.inf)
        bounds[_PARAMETERS] = most_parameters
        sizes = {
            "size_mb": 1e6 / bytes_per_parameter(self._setup.workload.precision),
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
        return bounds * (1 + ROUNDING)

    def _architecture(self, row: NDArray[np.int64], embedding_size: int) -> ChainArchitecture:
        blocks = [
            rows[index].block for rows, index in zip(self._by_place, row.tolist(), strict=True)
        ]
        return self._setup.space.architecture(blocks, embedding_size)

    def _why_none(
        self, embedding_sizes: Sequence[int], limits: LimitSettings, most_parameters: float
    ) -> str:
        bounds = self._bounds(limits, most_parameters)
        found = {
            size: nearest(self._tables, **self._arguments(size, bounds)) for size in embedding_sizes
        }
        size = min(found, key=lambda one: float((found[one].costs[0] / bounds).max()))
        near = self._architecture(found[size].rows[0], size)
        costs = found[size].costs[0] / [1e6, 1.0, self.teacher_flops]
        listed = ", ".join(f"{cost:.3g} {name}" for cost, name in zip(costs, _COSTS, strict=True))
        asked = ", ".join(f"{name}={value:g}" for name, value in limits.given().items())
        if not math.isinf(most_parameters):
            asked += f" (its memory leaves {most_parameters / 1e6:.3g} M parameters)"
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
    served = served_chains(nursery)
    dev: list[DevBatch] = []
    folders = []
    for limits in budgets:
        folder = _selected_before(nursery, limits)
        if folder is None:
            dev = dev or nursery.dev()
            selection = _Selection(
                nursery=nursery,
                operations=operations,
                table=table,
                supernets=supernets,
                dev=dev,
                served=served,
            )
            (best, *others), weighed = selection.within(limits)
            facts = _facts(nursery, table, best, weighed, limits)
            count = nursery.settings.select.runners_up
            facts["runners_up"] = [_described(one) for one in others[:count]]
            folder = _note(nursery.run, facts)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """What the students of all budgets are selected with."""

    nursery: ChainNursery
    operations: OperationTable
    table: ChainTable
    supernets: Sequence[BlockSupernet]
    dev: Sequence[DevBatch]
    served: Served | None

    def within(self, limits: LimitSettings) -> tuple[list[Chosen], Weighed]:
        """Measures complete models until one is within the budget; sums are predictions only.

        No sum tells memory. Where it is limited and the first models need more, what was measured
        tells how many parameters it leaves, and others are proposed.

        Returns:
            The student with those of a worse rank behind it, and what the student costs.

        Raises:
            DeviceError: If the device finds every one of them over the budget, or cannot tell what
                is asked.
        """
        rounds, most, measured = 1, math.inf, 0
        memory = None
        if limits.memory_mb is not None:
            memory = bound_memory(self.nursery, self.table, limits.memory_mb)
            rounds, most = MEMORY_ROUNDS, memory.most_parameters
        for _ in range(rounds):
            ranked = self._ranked(limits, most)
            weighed = self._weighed(ranked, limits)
            measured += len(weighed)
            if is_within(limits, violations(limits, weighed[-1])):
                return ranked[len(weighed) - 1 :], weighed[-1]
            if memory is None or not memory.learns_from(weighed):
                break
            most = memory.most_parameters
        raise DeviceError(
            f"{measured} students are within {limits.given()} by the sum of their operations, but "
            "none is as a whole model: loosen the limit a little, or compare more of them "
            "(select.candidates)"
        )

    def _ranked(self, limits: LimitSettings, most_parameters: float) -> list[Chosen]:
        """Proposes chains by the table and orders them by what they do as complete models.

        Raises:
            DeviceError: If the device can serve none of them.
        """
        nursery = self.nursery
        count = nursery.settings.select.candidates
        proposed = self.table.select(limits, count, most_parameters)
        nursery.narrator.begin(f"Comparing {len(proposed)} complete students", 1.0)
        ranked = []
        for done, (architecture, loss) in enumerate(proposed, start=1):
            try:
                ranked.append(self._judged(architecture, loss))
            except ExportError as error:
                nursery.narrator.say(f"{architecture.label} is left out: {error}")
            nursery.narrator.advance(done / len(proposed))
        nursery.narrator.end()
        if not ranked:
            raise DeviceError(
                f"{nursery.device.name} can serve none of the {len(proposed)} students that are "
                "within the limit, for the reasons told: take another device or precision"
            )
        return sorted(ranked, key=lambda one: one.mlm_loss)

    def _judged(self, architecture: ChainArchitecture, block_loss: float) -> Chosen:
        blocks = architecture.blocks
        return Chosen(
            architecture=architecture,
            block_loss=block_loss,
            mlm_loss=mlm_loss(self.nursery, self.supernets, blocks, self.dev, served=self.served),
            predicted_ms=self.operations.chain_ms(architecture),
        )

    def _weighed(self, ranked: Sequence[Chosen], limits: LimitSettings) -> list[Weighed]:
        """Weighs in the order of rank, up to the first that is within, or to enough memories."""
        weighed: list[Weighed] = []
        for chosen in ranked:
            weighed.append(self._weigh(chosen, limits))
            memories = sum(one.memory_mb is not None for one in weighed)
            if memories == MOST_MEMORIES or is_within(limits, violations(limits, weighed[-1])):
                break
        return weighed

    def _weigh(self, chosen: Chosen, limits: LimitSettings) -> Weighed:
        nursery, architecture = self.nursery, chosen.architecture
        if nursery.settings.device.kind == "table":  # it knows operations, not every chain
            comparison = self.table.predicted(architecture)
        else:
            comparison = nursery.device.compare(architecture, nursery.workload)
        weighed = self.table.weighed(architecture, comparison)
        if comparison.student.how == "predicted" and not is_over(violations(limits, weighed)):
            comparison = compare_finished(nursery.device, architecture, nursery.workload)
            weighed = self.table.weighed(architecture, comparison)
        ask = partial(nursery.device.peak_memory_mb, architecture, nursery.workload)
        return with_memory(weighed, limits, ask)


@torch.no_grad()
def mlm_loss(
    nursery: ChainNursery,
    supernets: Sequence[BlockSupernet],
    blocks: Sequence[ChainBlock],
    dev: Sequence[DevBatch],
    *,
    served: Served | None = None,
) -> float:
    """Scores a complete model: its last state, read by the teacher's head for masked words.

    Raises:
        ExportError: If it is served in 8 bits, and cannot be written so.
    """
    head = nursery.teacher.head
    assert head is not None  # `with_mlm_head` gave it one
    states: Iterator[torch.Tensor]
    if served is None:
        states = (chain_states(supernets, blocks, one, precision=nursery.precision) for one in dev)
    else:
        states = served_states(served, supernets, blocks, dev)
    total, count = 0.0, 0
    for batch, state_BTD in zip(dev, states, strict=True):
        chosen_ND = state_BTD.float().flatten(0, 1)[batch.text.places]
        labels_N = batch.text.labels
        total += label_cross_entropy(head(chosen_ND), labels_N).item() * len(labels_N)
        count += len(labels_N)
    return total / count


def _described(chosen: Chosen) -> dict[str, Any]:
    return {
        "architecture": chosen.architecture.to_dict(),
        "architecture_label": chosen.architecture.label,
        "block_loss": chosen.block_loss,
        "mlm_loss": chosen.mlm_loss,
        "predicted_latency_ms": chosen.predicted_ms,
    }


def _facts(
    nursery: ChainNursery,
    table: ChainTable,
    chosen: Chosen,
    weighed: Weighed,
    limits: LimitSettings,
) -> dict[str, Any]:
    assert weighed.comparison is not None
    latencies = latency_metrics(weighed.comparison)
    if nursery.settings.device.kind == "table":
        latencies["latency_how"] = "sum of operations"
    ask = partial(nursery.device.peak_memory_mb, chosen.architecture, nursery.workload)
    return {
        **_described(chosen),
        **precision_facts(scored_in(nursery)),
        **latencies,
        "device": nursery.device.name,
        "workload": asdict(nursery.workload),
        "workload_label": nursery.workload.label,
        "flops": table.flops(chosen.architecture),
        **cost_metrics(limits, with_any_memory(weighed, ask)),
        "candidates": nursery.settings.select.candidates,
    }


def _note(run: RunDirectory, facts: Mapping[str, Any]) -> Path:
    folders = selected_folders(run)
    number = 1 + max((int(folder.name) for folder in folders), default=0)
    folder = run.path / "selected" / str(number)
    with folder_written_aside(folder) as aside:
        text = json.dumps(facts, indent=2)
        (aside / SELECTED_FILE).write_text(text + "\n", encoding="utf-8")
    return folder
