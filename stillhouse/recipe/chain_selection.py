"""Choosing complete chains for budgets from the table of blocks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from stillhouse.distill.losses import label_cross_entropy
from stillhouse.errors import DeviceError, ExportError, LimitError
from stillhouse.files import folder_written_aside
from stillhouse.recipe.chain_memory import MEMORY_ROUNDS, MOST_MEMORIES, bound_memory
from stillhouse.recipe.chain_table import ChainTable
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.limits import (
    Weighed,
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
from stillhouse.supernet.blocks import chain_states

if TYPE_CHECKING:
    from pathlib import Path

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_nursery import ChainNursery
    from stillhouse.recipe.chain_rows import BlockRow
    from stillhouse.recipe.served import Served
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.space.chain import ChainArchitecture, ChainBlock
    from stillhouse.supernet.blocks import BlockSupernet, DevBatch

SELECTED_FILE = "selected.json"


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
        LimitError: If a budget is met by none; those before it are noted.
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
        raise LimitError(
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
