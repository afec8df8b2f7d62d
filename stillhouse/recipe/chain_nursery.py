"""What every block of a NAS-BERT run is trained, timed and judged with."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillhouse.data.corpus import prepare_corpus
from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.task import IN_MEMORY
from stillhouse.device.operations import OperationTable, measure_operations, read_operations
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import MaskedText, MlmHeadStep, held_out_mlm
from stillhouse.distill.steps import Schedule, Watch, run_steps
from stillhouse.errors import SettingsError
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import build_encoder
from stillhouse.model.mlm_teachers import (
    MlmHead,
    MlmTeacher,
    load_mlm_head,
    load_mlm_teacher,
    save_mlm_head,
)
from stillhouse.model.precision import resolve_precision
from stillhouse.model.teachers import hash_weights
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.teacher import SCRATCH
from stillhouse.recipe.workbench import resolve_device, resolve_device_kind, resolve_workload
from stillhouse.space.nas_bert import nas_bert_for
from stillhouse.supernet.blocks import BorderReader, DevBatch, dev_batches

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from stillhouse.data.corpus import Corpus
    from stillhouse.device.latency import Device, Workload
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.chain import ChainSpace

OPERATIONS_FILE = "operations.csv"
HEAD_FILE = "head.safetensors"
HEAD_FACTS_FILE = "mlm.json"
MOST_BLOCKS = 4
LAYERS_A_BLOCK = 3
"""Of the teacher, as published: four blocks of twelve layers."""
_DEV_SEED = 1


@dataclass(frozen=True, kw_only=True)
class ChainNursery:
    """What the blocks of a run share.

    Attributes:
        teacher: Frozen, on the accelerator's device; its head scores masked words.
        space: All students.
        reader: Asks the teacher for its states at the blocks' borders.
        precision: Arithmetic of training and scoring.
        device: What tells latency, and `workload` for what.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    teacher: MlmTeacher
    space: ChainSpace
    corpus: Corpus
    masker: Masker
    reader: BorderReader
    precision: Precision
    device: Device
    workload: Workload

    @property
    def text(self) -> MaskedText:
        """What the blocks are trained on."""
        return MaskedText(
            corpus=self.corpus.train,
            masker=self.masker,
            batch_size=self.settings.blocks.batch_size,
            seed=self.settings.seed,
        )

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
    """Loads the teacher; what its checkpoint lacks, such as a pooler, is drawn always alike.

    Raises:
        SettingsError: If none is named.
        TeacherError: If it cannot be loaded.
    """
    if name in (SCRATCH, IN_MEMORY):
        raise SettingsError(
            f"nas-bert needs a trained teacher that it can load, got {name!r}: name a folder or "
            "a hub id with --teacher (teacher.model)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_mlm_teacher(name)


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


def open_chain_nursery(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    teacher: MlmTeacher,
    accelerator: Accelerator,
) -> ChainNursery:
    """Prepares the corpus and everything that blocks share; trains nothing.

    Raises:
        DataError: If the corpus is too small or has changed, or no token can be masked.
        SettingsError: If lengths do not go with the teacher.
    """
    space = chain_space(settings, teacher)
    config = teacher.encoder.model.config
    _check_lengths(settings, usable_positions(config))
    masker = Masker(
        teacher.encoder.tokenizer,
        MaskingRule(probability=settings.mlm.probability, whole_word=settings.mlm.whole_word),
    )
    with accelerator.main_process_first():  # it prepares the corpus, the others open it
        narrator.begin("Corpus", 1.0)
        corpus = prepare_corpus(
            settings.corpus, teacher.encoder.tokenizer, run.corpus, on_progress=narrator.advance
        )
        narrator.end()
    model = teacher.encoder.model.to(accelerator.device).eval()
    model.requires_grad_(requires_grad=False)
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    kind = resolve_device_kind(settings.device)
    reference = build_encoder(config, seed=0)  # timed, wherever the teacher itself is
    return ChainNursery(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        teacher=teacher,
        space=space,
        corpus=corpus,
        masker=masker,
        reader=BorderReader(model, space.blocks, precision=precision),
        precision=precision,
        device=resolve_device(
            settings.device,
            kind,
            teacher=reference,
            build=lambda shape: build_encoder(chain_config(shape, config), seed=0),
        ),
        workload=resolve_workload(settings.device, np.array([settings.corpus.length]), kind),
    )


def _check_lengths(settings: RunSettings, positions: int) -> None:
    wanted = {"corpus.length": settings.corpus.length, "device.length": settings.device.length}
    for name, length in wanted.items():
        if length is not None and length > positions:
            raise SettingsError(
                f"{name} {length} is above the teacher's {positions} positions; set it lower"
            )
    if settings.corpus.held_out < 1:
        raise SettingsError("corpus.held_out must be at least 1: students are chosen on that text")


def refuse_other_origin(nursery: ChainNursery) -> dict[str, str]:
    """Compares corpus and teacher with those that the run began with.

    Returns:
        What they are known by, as provenance.

    Raises:
        RunError: If one changed since.
    """
    data, weights = nursery.corpus.fingerprint, hash_weights(nursery.teacher.encoder.model)
    nursery.run.refuse_other_data(data)
    nursery.run.refuse_other_teacher(weights)
    return {"teacher_sha256": weights, "data_sha256": data}


def open_operations(nursery: ChainNursery) -> OperationTable:
    """Measures the operations on the device, or reads what an earlier start measured."""
    file = nursery.run.path / OPERATIONS_FILE
    if not file.exists():
        nursery.narrator.begin("Timing operations", 1.0)
        try:
            table = measure_operations(
                nursery.device,
                nursery.workload,
                nursery.space,
                on_progress=nursery.narrator.advance,
            )
        finally:
            nursery.narrator.end()
        table.write(file)
        for (kind, size), reason in table.refused.items():
            nursery.narrator.say(f"{kind} of {size} is left out, the device refuses it: {reason}")
    return read_operations(file, ffn_ratio=nursery.space.ffn_ratio)


def with_mlm_head(nursery: ChainNursery) -> ChainNursery:
    """Returns the nursery with a teacher that scores masked words.

    A teacher without a head gets one that is trained on the corpus, on a body that stays as it is.
    It is kept in the run with its accuracy on held-out text.
    """
    folder, head = nursery.run.path / "mlm", nursery.teacher.head
    is_done = (folder / HEAD_FACTS_FILE).exists()
    nursery.accelerator.wait_for_everyone()  # before the main worker may write it
    if is_done:
        head = head or load_mlm_head(folder / HEAD_FILE, nursery.teacher.encoder.model)
    else:
        is_trained_here = head is None
        head = head or _train_head(nursery)
        if nursery.accelerator.is_main_process:
            _keep_head(nursery, head, folder, is_trained_here=is_trained_here)
    head.to(nursery.accelerator.device).requires_grad_(requires_grad=False)
    return replace(nursery, teacher=replace(nursery.teacher, head=head))


def _keep_head(
    nursery: ChainNursery, head: MlmHead, folder: Path, *, is_trained_here: bool
) -> None:
    score = held_out_mlm(
        replace(nursery.teacher, head=head),
        nursery.corpus.held_out,
        nursery.masker,
        precision=nursery.precision,
    )
    facts = {"is_trained_here": is_trained_here, **asdict(score)}
    with folder_written_aside(folder) as aside:
        save_mlm_head(head, aside / HEAD_FILE)
        (aside / HEAD_FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    nursery.narrator.say(
        f"Teacher's head for masked words: {score.accuracy_fraction:.1%} of "
        f"{score.chosen_count:,} held-out tokens right."
    )


def _train_head(nursery: ChainNursery) -> MlmHead:
    settings, run = nursery.settings, nursery.run
    head = MlmHead(nursery.teacher.encoder.model, seed=settings.seed)
    teacher = replace(nursery.teacher, head=head)
    step = MlmHeadStep(teacher, nursery.text, nursery.accelerator, precision=nursery.precision)
    checkpoint = CheckpointFolder(
        path=run.work / "mlm-head", fingerprint=nursery.corpus.fingerprint
    )
    is_main = nursery.accelerator.is_main_process
    with (
        watched(
            nursery.narrator,
            run.tensorboard / "mlm-head",
            "Head for masked words",
            checkpoint=checkpoint,
            tokens_a_step=step.tokens,
        )
        if is_main
        else nullcontext(Watch(checkpoint=checkpoint))  # it writes no curves
    ) as watch:
        run_steps(
            head,
            step,
            Schedule(
                steps=settings.mlm.head_steps,
                learning_rate=settings.mlm.head_learning_rate,
                warmup_fraction=0.1,
            ),
            accelerator=nursery.accelerator,
            watch=watch,
        )
    return head
