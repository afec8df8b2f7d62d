"""Training the blocks' supernets while their candidates shrink, and the table of what is left."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.files import folder_written_aside
from stillhouse.model.chains import chain_config
from stillhouse.recipe.chain_rows import SHRINKING_FILE
from stillhouse.recipe.logbook import watched
from stillhouse.search.shrinking import (
    LeftOut,
    Shrinking,
    ShrinkRule,
    bins_of,
    left_out,
    planned_epochs,
)
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import operation_parameters
from stillhouse.supernet.blocks import NO_CLIPPING, BlockStep, BlockSupernet, block_losses

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from stillhouse.device.operations import OperationTable
    from stillhouse.recipe.chain_nursery import ChainNursery
    from stillhouse.space.chain import ChainSpace
    from stillhouse.supernet.blocks import DevBatch

WEIGHTS_FILE = "weights.safetensors"
FACTS_FILE = "supernet.json"
FEW_FRACTION = 0.2
CHECKPOINT_EVERY_S = 120.0
"""Supernets of blocks are large: their checkpoints take seconds each."""


def candidate_costs(
    space: ChainSpace, table: OperationTable
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tells parameters and latency of every candidate of a block, in the order of the space.

    Returns:
        Parameters `[N]` and milliseconds `[N]` of the operations alone; the latency of what the
        device refuses is infinite.
    """
    kinds, sizes = space.block.operations, space.block.hidden_sizes
    parameters, latency_ms = (np.zeros((len(sizes), len(kinds) + 1)) for _ in "pl")
    for (row, size), (column, kind) in product(enumerate(sizes), enumerate(kinds)):
        parameters[row, column] = operation_parameters(kind, size, space.ffn_ratio)
        latency_ms[row, column] = table.latency_ms.get((kind, size), math.inf)
    hidden_N, operations_NM = space.block.columns()
    places = hidden_N[:, None], operations_NM  # -1, no operation, is the last column of zeros
    return parameters[places].sum(axis=1), latency_ms[places].sum(axis=1)


def begin_shrinking(nursery: ChainNursery, table: OperationTable) -> tuple[Shrinking, ...]:
    """Sorts the candidates of every block into bins; says how many fit none, and why.

    Raises:
        SpaceError: If none fits.
    """
    wanted = nursery.settings.blocks
    bins_N, out = _sorted_into_bins(nursery, table)
    rule = ShrinkRule(
        bins=wanted.bins,
        sampled=wanted.sampled,
        kept=wanted.kept,
        warm_epochs=wanted.warm_epochs,
    )
    seeds = np.random.SeedSequence([nursery.settings.seed, 4]).generate_state(nursery.space.blocks)
    _say_bins(
        nursery,
        bins_N,
        out,
        planned_epochs(np.bincount(bins_N[bins_N >= 0], minlength=wanted.bins), rule),
    )
    return tuple(Shrinking(bins_N, rule, seed=int(seed)) for seed in seeds)


def _sorted_into_bins(
    nursery: ChainNursery, table: OperationTable
) -> tuple[NDArray[np.int64], LeftOut]:
    """Returns the bin of every candidate of a block, and how many are in none."""
    parameters_N, latency_ms_N = candidate_costs(nursery.space, table)
    runs_N = np.isfinite(latency_ms_N)
    largest, wanted = int(np.argmax(np.where(runs_N, parameters_N, 0))), nursery.settings.blocks
    if wanted.bins_by == "size":
        latency_ms_N = np.where(runs_N, parameters_N, np.inf)
    return (
        bins_of(parameters_N, latency_ms_N, largest=largest, bins=wanted.bins),
        left_out(parameters_N, latency_ms_N, largest=largest, bins=wanted.bins),
    )


def _say_bins(nursery: ChainNursery, bins_N: NDArray[np.int64], out: LeftOut, epochs: int) -> None:
    space, settings = nursery.space, nursery.settings.blocks
    fitting = int((bins_N >= 0).sum())
    others = f"{out.beyond_largest:,} are refused by the device"
    if settings.bins_by == "size_and_latency":
        others = (
            f"{out.other_latency_bin:,} are in another bin by latency than by size, "
            f"{out.beyond_largest:,} are slower than the largest"
        )
    nursery.narrator.say(
        f"{space.blocks} blocks of {space.block.size:,} candidates; {fitting:,} fit a bin of "
        f"{settings.bins_by.replace('_', ' ')}, {others}. {epochs} epochs of "
        f"{settings.steps_per_epoch:,} steps until {settings.kept} are left in each bin."
    )
    if fitting < FEW_FRACTION * space.block.size:
        nursery.narrator.say(
            f"Under {FEW_FRACTION:.0%} of the candidates fit: on {nursery.device.name} latency "
            f"goes little with size ({nursery.workload.label}). blocks.bins_by=size keeps them "
            "all, and leaves latency to the selection."
        )


class ShrinkingStep:
    """A step of some blocks' supernets; at the end of an epoch their candidates shrink first.

    What is left is a function of the weights, so that a resumed training drops what an unbroken one
    would have dropped. The state after each epoch is kept on the disk, for a checkpoint may be
    younger than the end of the last epoch.

    Attributes:
        epochs: Epochs until every block has shrunk.
    """

    def __init__(
        self,
        nursery: ChainNursery,
        supernets: Sequence[BlockSupernet],
        places: Sequence[int],
        shrinkings: Sequence[Shrinking],
    ) -> None:
        """Keeps the parts.

        Args:
            nursery: What blocks share.
            supernets: Trained in place.
            places: Number of each one's block, from 0.
            shrinkings: Candidates of each one.
        """
        self._nursery, self._supernets, self._places = nursery, supernets, places
        self._shrinkings = list(shrinkings)
        self.epochs = max(planned_epochs(one.counts_B, one.rule) for one in shrinkings)
        self._is_restored = False
        self._dev: list[DevBatch] | None = None
        self._step = BlockStep(
            supernets,
            places,
            nursery.reader,
            nursery.text,
            self._draw,
            precision=nursery.precision,
        )

    @property
    def tokens(self) -> int:
        """Tokens that a step reads."""
        return self._nursery.text.tokens

    @property
    def shrinkings(self) -> Sequence[Shrinking]:
        """Candidates of each block."""
        return self._shrinkings

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step; returns the blocks' losses."""
        self.end_epochs(step)
        return self._step(step)

    def end_epochs(self, step: int) -> None:
        """Ends the epochs that `step` steps make, but those that ended before."""
        steps = self._nursery.settings.blocks.steps_per_epoch
        if not self._is_restored:
            self._restore(max(step - 1, 0) // steps)
        while self._shrinkings[0].epoch < step // steps:
            self._end_epoch()

    def _draw(self, place: int, step: int) -> ChainBlock:
        shrinking = self._shrinkings[self._places.index(place)]
        return self._nursery.space.block[shrinking.draw(step)]

    def _end_epoch(self) -> None:
        for place, supernet, shrinking in zip(
            self._places, self._supernets, self._shrinkings, strict=True
        ):
            sampled = [self._nursery.space.block[index] for index in shrinking.sample()]
            losses = self._losses(place, supernet, sampled) if sampled else []
            shrinking.drop(np.array(losses))
            self._keep(place, shrinking)

    def _losses(
        self, place: int, supernet: BlockSupernet, sampled: Sequence[ChainBlock]
    ) -> list[float]:
        if self._dev is None:
            self._dev = self._nursery.dev()
        return block_losses(supernet, place, sampled, self._dev, precision=self._nursery.precision)

    def _file(self, place: int, epoch: int) -> Path:
        return self._nursery.run.work / "shrinking" / f"block-{place + 1}-epoch-{epoch}.npz"

    def _keep(self, place: int, shrinking: Shrinking) -> None:
        file = self._file(place, shrinking.epoch)
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".tmp")
        with aside.open("wb") as opened:
            np.savez_compressed(opened, allow_pickle=False, **shrinking.to_arrays())
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)

    def _restore(self, epoch: int) -> None:
        self._is_restored = True
        if epoch == 0:
            return
        for number, place in enumerate(self._places):
            with np.load(self._file(place, epoch)) as arrays:
                self._shrinkings[number] = Shrinking.from_arrays(dict(arrays))


def train_blocks(nursery: ChainNursery, table: OperationTable) -> list[BlockSupernet]:
    """Trains the supernets of all blocks, or loads what an earlier start trained.

    Workers of a training in several processes share out the blocks and never wait for each other
    but at the end.
    """
    world = nursery.accelerator.num_processes
    places = range(nursery.space.blocks)[nursery.accelerator.process_index :: world]
    supernets = {place: fresh_block(nursery, place) for place in places}
    todo = [p for p in places if not (nursery.supernet_folder(p) / WEIGHTS_FILE).exists()]
    if todo:
        _train(nursery, table, {place: supernets[place] for place in todo})
    nursery.accelerator.wait_for_everyone()
    return load_blocks(nursery)


def fresh_block(nursery: ChainNursery, place: int) -> BlockSupernet:
    """Builds the supernet of a block with fresh weights, where it will be trained."""
    teacher = nursery.teacher.encoder.model.config
    blocks = [ChainBlock(hidden_size=nursery.space.block.hidden_sizes[0], operations=("M",))]
    shape = ChainArchitecture(
        embedding_size=nursery.space.embedding_sizes[0],
        blocks=tuple(blocks),
        head_size=nursery.space.head_size,
        ffn_ratio=nursery.space.ffn_ratio,
        activation=nursery.space.activation,
    )  # only what is no shape is read of it
    config = chain_config(shape, teacher, dropout=nursery.settings.blocks.dropout)
    (seed,) = np.random.SeedSequence([nursery.settings.seed, 5, place]).generate_state(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        supernet = BlockSupernet(nursery.space.block, width=teacher.hidden_size, config=config)
    return supernet.to(nursery.accelerator.device)


def load_blocks(nursery: ChainNursery) -> list[BlockSupernet]:
    """Loads the trained supernets of all blocks."""
    supernets = []
    for place in range(nursery.space.blocks):
        supernet = fresh_block(nursery, place)
        supernet.load_state_dict(load_file(nursery.supernet_folder(place) / WEIGHTS_FILE))
        supernets.append(supernet)
    return supernets


def _train(
    nursery: ChainNursery, table: OperationTable, supernets: Mapping[int, BlockSupernet]
) -> None:
    settings, places = nursery.settings.blocks, list(supernets)
    shrinkings = begin_shrinking(nursery, table)
    step = ShrinkingStep(
        nursery, list(supernets.values()), places, [shrinkings[place] for place in places]
    )
    name = "-".join(str(place + 1) for place in places)
    checkpoint = CheckpointFolder(
        path=nursery.run.work / "blocks" / name,
        fingerprint=nursery.corpus.fingerprint,
        every_s=CHECKPOINT_EVERY_S,
    )
    steps = step.epochs * settings.steps_per_epoch
    with watched(
        nursery.narrator,
        nursery.run.tensorboard / f"blocks-{name}",
        f"Blocks {name.replace('-', ', ')} ({step.epochs} epochs)",
        checkpoint=checkpoint,
        tokens_a_step=step.tokens,
    ) as watch:
        report = run_steps(
            nn.ModuleList(supernets.values()),
            step,
            Schedule(
                steps=steps,
                learning_rate=settings.learning_rate,
                warmup_fraction=settings.warmup_fraction,
                weight_decay=settings.weight_decay,
                clip_norm=NO_CLIPPING,
            ),
            accelerator=nursery.accelerator,
            watch=watch,
            has_own_work=True,
        )
    step.end_epochs(steps)
    _, out = _sorted_into_bins(nursery, table)
    losses = report.losses or [None] * len(places)  # none is known if all steps were done before
    with ExitStack() as stack:  # all are written before the first one counts as trained
        for place, shrinking, loss in zip(places, step.shrinkings, losses, strict=True):
            aside = stack.enter_context(folder_written_aside(nursery.supernet_folder(place)))
            facts = {"steps": steps, "tokens": steps * step.tokens, "loss": loss}
            _save(aside, supernets[place], shrinking, out, facts)
    checkpoint.clear()


def _save(
    folder: Path,
    supernet: BlockSupernet,
    shrinking: Shrinking,
    out: LeftOut,
    facts: Mapping[str, object],
) -> None:
    """Writes a trained supernet with its candidates and how they came to be left."""
    told = {
        "alive": shrinking.alive.tolist(),
        "left_in_bins": shrinking.counts_B.tolist(),
        "left_out": asdict(out),
        "records": [asdict(record) for record in shrinking.records],
    }
    weights = {name: t.contiguous() for name, t in supernet.state_dict().items()}
    save_file(weights, folder / WEIGHTS_FILE)
    (folder / SHRINKING_FILE).write_text(json.dumps(told) + "\n")
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n")
