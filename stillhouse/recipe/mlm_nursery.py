"""What recipes share whose students learn masked words from plain text, with a teacher."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from stillhouse.data.corpus import prepare_corpus
from stillhouse.data.corpus_texts import source_state
from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.data.task import IN_MEMORY
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import MaskedText, MlmHeadStep, held_out_mlm
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.errors import SettingsError
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import usable_positions
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
from stillhouse.recipe.logbook import watched_by_main
from stillhouse.recipe.served import say_scored_in_float
from stillhouse.recipe.teacher import SCRATCH
from stillhouse.recipe.workbench import resolve_device, resolve_device_kind, resolve_workload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from accelerate import Accelerator
    from transformers import PreTrainedConfig

    from stillhouse.data.corpus import Corpus
    from stillhouse.device.latency import Device, Workload
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings

HEAD_FILE = "head.safetensors"
HEAD_FACTS_FILE = "mlm.json"


@dataclass(frozen=True, kw_only=True)
class MlmSetup:
    """What is known before the corpus is prepared, which may take hours.

    Attributes:
        teacher: Where it was loaded; not frozen yet.
        device: What tells latency, and `workload` for what.
    """

    settings: RunSettings
    teacher: MlmTeacher
    masker: Masker
    device: Device
    workload: Workload


@dataclass(frozen=True, kw_only=True)
class MlmNursery:
    """What all students of a run share.

    Attributes:
        teacher: Frozen, on the accelerator's device; its head scores masked words.
        precision: Arithmetic of training and scoring.
        device: What tells latency, and `workload` for what.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    teacher: MlmTeacher
    corpus: Corpus
    masker: Masker
    precision: Precision
    device: Device
    workload: Workload

    def text_of(self, batch_size: int) -> MaskedText:
        """Returns the text to train on, in steps of so many sequences."""
        return MaskedText(
            corpus=self.corpus.train,
            masker=self.masker,
            batch_size=batch_size,
            seed=self.settings.seed,
        )


Kind = TypeVar("Kind", bound=MlmNursery)


def load_corpus_teacher(name: str, *, recipe: str) -> MlmTeacher:
    """Loads the teacher; what its checkpoint lacks, such as a pooler, is drawn always alike.

    Raises:
        SettingsError: If none is named.
        TeacherError: If it cannot be loaded.
    """
    if name in (SCRATCH, IN_MEMORY):
        raise SettingsError(
            f"{recipe} needs a trained teacher that it can load, got {name!r}: name a folder or "
            "a hub id with --teacher (teacher.model)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_mlm_teacher(name)


def set_up_mlm(
    settings: RunSettings, teacher: MlmTeacher, *, config_of: Callable[[Any], PreTrainedConfig]
) -> MlmSetup:
    """Makes what the corpus is not needed for, and looks whether there is one.

    Args:
        settings: The run's.
        teacher: As it was loaded.
        config_of: Describes a student of an architecture, for the device to time.

    Raises:
        DataError: If there is no such corpus, or no token can be masked.
        SettingsError: If lengths do not go with the teacher, or the device is not there.
        DeviceError: If a table of latencies cannot be read.
    """
    config = teacher.encoder.model.config
    _check_lengths(settings, usable_positions(config))
    source_state(settings.corpus.name)
    kind = resolve_device_kind(settings.device)
    return MlmSetup(
        settings=settings,
        teacher=teacher,
        masker=Masker(
            teacher.encoder.tokenizer,
            MaskingRule(probability=settings.mlm.probability, whole_word=settings.mlm.whole_word),
        ),
        device=resolve_device(
            settings.device,
            kind,
            teacher=build_encoder(config, seed=0),  # timed, wherever the teacher itself is
            build=lambda shape: build_encoder(config_of(shape), seed=0),
            bare=True,
        ),
        workload=resolve_workload(settings.device, np.array([settings.corpus.length]), kind),
    )


def open_mlm_nursery(
    setup: MlmSetup, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> MlmNursery:
    """Prepares the corpus and everything else that students share; trains nothing.

    Args:
        setup: Its teacher is frozen and put on the accelerator's device.
        run: The run directory.
        narrator: Told the progress.
        accelerator: Device and workers.

    Raises:
        DataError: If the corpus is too small or has changed.
    """
    settings, teacher = setup.settings, setup.teacher
    say_scored_in_float(settings.device, narrator)
    with accelerator.main_process_first():  # it prepares the corpus, the others open it
        narrator.begin("Corpus", 1.0)
        corpus = prepare_corpus(
            settings.corpus, teacher.encoder.tokenizer, run.corpus, on_progress=narrator.advance
        )
        narrator.end()
    teacher.encoder.model.to(accelerator.device).eval().requires_grad_(requires_grad=False)
    return MlmNursery(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        teacher=teacher,
        corpus=corpus,
        masker=setup.masker,
        precision=resolve_precision(settings.distill.precision, accelerator.device),
        device=setup.device,
        workload=setup.workload,
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


def refuse_other_origin(nursery: MlmNursery) -> dict[str, str]:
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


def with_mlm_head(nursery: Kind, text: MaskedText) -> Kind:
    """Returns the nursery with a teacher that scores masked words.

    A teacher without a head gets one that is trained on `text`, on a body that stays as it is.
    It is kept in the run with its accuracy on held-out text.
    """
    folder, head = nursery.run.path / "mlm", nursery.teacher.head
    is_done = (folder / HEAD_FACTS_FILE).exists()
    nursery.accelerator.wait_for_everyone()  # before the main worker may write it
    if is_done:
        head = head or load_mlm_head(folder / HEAD_FILE, nursery.teacher.encoder.model)
    else:
        is_trained_here = head is None
        head = head or _train_head(nursery, text)
        if nursery.accelerator.is_main_process:
            _keep_head(nursery, head, folder, is_trained_here=is_trained_here)
    head.to(nursery.accelerator.device).requires_grad_(requires_grad=False)
    return replace(nursery, teacher=replace(nursery.teacher, head=head))


def _keep_head(nursery: MlmNursery, head: MlmHead, folder: Path, *, is_trained_here: bool) -> None:
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


def _train_head(nursery: MlmNursery, text: MaskedText) -> MlmHead:
    settings, run = nursery.settings, nursery.run
    head = MlmHead(nursery.teacher.encoder.model, seed=settings.seed)
    teacher = replace(nursery.teacher, head=head)
    step = MlmHeadStep(teacher, text, nursery.accelerator, precision=nursery.precision)
    checkpoint = CheckpointFolder(
        path=run.work / "mlm-head", fingerprint=nursery.corpus.fingerprint
    )
    with watched_by_main(
        nursery.accelerator,
        nursery.narrator,
        run.tensorboard / "mlm-head",
        "Head for masked words",
        checkpoint=checkpoint,
        tokens_a_step=step.tokens,
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
