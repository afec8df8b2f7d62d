"""What every block of a NAS-BERT run is trained, timed and judged with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stillhouse.device.operations import OperationTable, measure_operations, read_operations
from stillhouse.distill.masked_lm import MaskedText
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.chains import chain_config
from stillhouse.recipe.mlm_nursery import (
    MlmNursery,
    MlmSetup,
    load_corpus_teacher,
    open_mlm_nursery,
    set_up_mlm,
)
from stillhouse.space.nas_bert import nas_bert_for
from stillhouse.supernet.blocks import BorderReader, DevBatch, dev_batches

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from stillhouse.model.mlm_teachers import MlmTeacher
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.chain import ChainSpace

OPERATIONS_FILE = "operations.csv"
MOST_BLOCKS = 4
LAYERS_A_BLOCK = 3
"""Of the teacher, as published: four blocks of twelve layers."""
_DEV_SEED = 1


@dataclass(frozen=True, kw_only=True)
class ChainSetup(MlmSetup):
    """What is known of a run's chains before the corpus is prepared.

    Attributes:
        space: All students.
    """

    space: ChainSpace


@dataclass(frozen=True, kw_only=True)
class ChainNursery(MlmNursery):
    """What the blocks of a run share.

    Attributes:
        space: All students.
        reader: Asks the teacher for its states at the blocks' borders.
    """

    space: ChainSpace
    reader: BorderReader

    @property
    def text(self) -> MaskedText:
        """What the blocks are trained on."""
        return self.text_of(self.settings.blocks.batch_size)

    def dev(self) -> list[DevBatch]:
        """Returns the held-out batches that all candidates are compared on."""
        blocks = self.settings.blocks
        size = min(blocks.batch_size, len(self.corpus.held_out))
        held_out = MaskedText(
            corpus=self.corpus.held_out, masker=self.masker, batch_size=size, seed=_DEV_SEED
        )
        count = min(blocks.dev_batches, len(self.corpus.held_out) // size)
        return dev_batches(self.reader, held_out, count, self.accelerator.device)

    def supernet_folder(self, place: int) -> Path:
        """Where the supernet of a block is kept; `place` counts from 0."""
        return self.run.supernets / f"block-{place + 1}"


def load_chain_teacher(name: str) -> MlmTeacher:
    """Loads the teacher of a nas-bert run, as `load_corpus_teacher` does."""
    return load_corpus_teacher(name, recipe="nas-bert")


def chain_space(settings: RunSettings, teacher: MlmTeacher) -> ChainSpace:
    """Returns the space in the teacher's proportions, changed as the settings ask."""
    whole, wanted = architecture_of(teacher.encoder.model.config), settings.blocks
    count = default_blocks(whole.layers) if wanted.count is None else wanted.count
    space = nas_bert_for(whole, blocks=count)
    block = replace(space.block, most_operations=wanted.operations)
    if wanted.hidden_sizes:
        block = replace(block, hidden_sizes=tuple(sorted(wanted.hidden_sizes)))
    return replace(space, block=block)


def default_blocks(layers: int) -> int:
    """Returns blocks of three layers, or the most blocks below five that divide the layers."""
    if layers % LAYERS_A_BLOCK == 0 and layers // LAYERS_A_BLOCK <= MOST_BLOCKS:
        return layers // LAYERS_A_BLOCK
    return max(count for count in range(1, MOST_BLOCKS + 1) if layers % count == 0)


def set_up_chains(settings: RunSettings, teacher: MlmTeacher) -> ChainSetup:
    """Settles the space, and makes what the corpus is not needed for, as `set_up_mlm` does.

    Raises:
        SpaceError: If the blocks do not divide the teacher's layers.
        StillhouseError: As `set_up_mlm` does.
    """
    space, config = chain_space(settings, teacher), teacher.encoder.model.config
    shared = set_up_mlm(settings, teacher, config_of=lambda shape: chain_config(shape, config))
    return ChainSetup(**vars(shared), space=space)


def open_chain_nursery(
    setup: ChainSetup, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> ChainNursery:
    """Prepares the corpus and everything that blocks share; trains nothing.

    Raises:
        DataError: If the corpus is too small or has changed.
    """
    shared = open_mlm_nursery(setup, run, narrator, accelerator)
    model, space = shared.teacher.encoder.model, setup.space
    reader = BorderReader(model, space.blocks, precision=shared.precision)
    return ChainNursery(**vars(shared), space=space, reader=reader)


def time_operations(setup: ChainSetup | ChainNursery, narrator: Narrator) -> OperationTable:
    """Measures the operations on the device.

    Raises:
        DeviceError: If it runs none of them.
    """
    narrator.begin("Timing operations", 1.0)
    try:
        return measure_operations(
            setup.device, setup.workload, setup.space, on_progress=narrator.advance
        )
    finally:
        narrator.end()


def open_operations(
    nursery: ChainNursery, measured: OperationTable | None = None
) -> OperationTable:
    """Measures the operations on the device, or reads what an earlier start measured.

    Args:
        nursery: The run's.
        measured: Those that this start has measured before, if any.
    """
    file = nursery.run.path / OPERATIONS_FILE
    if not file.exists():
        table = measured or time_operations(nursery, nursery.narrator)
        table.write(file)
        for (kind, size), reason in table.refused.items():
            nursery.narrator.say(f"{kind} of {size} is left out, the device refuses it: {reason}")
    return read_operations(file, ffn_ratio=nursery.space.ffn_ratio)
