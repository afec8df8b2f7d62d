"""Pre-training a selected chain on plain text, from scratch, with its teacher.

Source: NAS-BERT (Xu et al., KDD 2021), section 3.4: the supernets' weights are thrown away, and the
loss is half that of the hidden tokens, half that against the teacher's logits. Starting from the
supernets instead (`pretrain.start`) is ours.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.masked_lm import MaskedLmLesson, MaskedLmStep, MaskedText, held_out_mlm
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.errors import RunError
from stillhouse.export.card import pretrained_card
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.chains import chain_config
from stillhouse.recipe.chain_blocks import load_blocks
from stillhouse.recipe.chain_nursery import (
    load_chain_teacher,
    open_chain_nursery,
    set_up_chains,
)
from stillhouse.recipe.chain_selection import read_selected
from stillhouse.recipe.logbook import watched_by_main
from stillhouse.recipe.mlm_nursery import HEAD_FACTS_FILE, refuse_other_origin, with_mlm_head
from stillhouse.recipe.served import precision_facts
from stillhouse.recipe.served_words import score_words
from stillhouse.run.settings_file import difference
from stillhouse.space.chain import chain_from_dict

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator
    from torch import Tensor
    from transformers import PreTrainedModel

    from stillhouse.recipe.chain_nursery import ChainNursery
    from stillhouse.recipe.mlm_nursery import MlmNursery
    from stillhouse.run.chain_settings import PretrainSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.chain import ChainArchitecture

PRETRAIN_FOLDER = "pretrain"
"""Where checkpoints lie, below the run's `work`."""


def pretrain_selected(
    selected: Path,
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    accelerator: Accelerator,
) -> Path:
    """Pre-trains one selected student; resumes what was begun.

    Args:
        selected: Its folder in the run, with `selected.json`.
        settings: The run's, with the `pretrain` section to follow.
        run: The run that selected it.
        narrator: Told the progress.
        accelerator: Device and workers; all of them call it.

    Returns:
        Folder of the checkpoint, a model of masked words: `students/N` for `selected/N`.

    Raises:
        RunError: If it is pre-trained already in another way, or teacher or corpus have changed.
    """
    folder = run.student(int(selected.name))
    if (folder / METRICS_FILE).exists():
        _refuse_other_training(folder, settings.pretrain)
    else:
        told = read_selected(selected)
        setup = set_up_chains(settings, load_chain_teacher(settings.teacher.model))
        nursery = open_chain_nursery(setup, run, narrator, accelerator)
        refuse_other_origin(nursery)
        nursery = with_mlm_head(nursery, nursery.text)
        student = fresh_student(nursery, chain_from_dict(told["architecture"]))
        train_student(nursery, student, selected.name)
        if accelerator.is_main_process:
            _export(nursery, student, told, folder)
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _clear_checkpoints(run, selected.name)
    return folder


def _refuse_other_training(folder: Path, wanted: PretrainSettings) -> None:
    before, asked = read_metrics(folder)["pretrain"], asdict(wanted)
    now = {name: asked.get(name, value) for name, value in before.items()}
    changed = difference(before, now, "pretrain.")
    if changed:
        listed = "\n  ".join(changed)
        raise RunError(
            f"{folder} was pre-trained with other settings:\n  {listed}\nGive the same settings, "
            "or move it away to pre-train the student anew."
        )


def _clear_checkpoints(run: RunDirectory, name: str) -> None:
    """Removes those of a finished student; others that were begun keep theirs."""
    shutil.rmtree(run.work / PRETRAIN_FOLDER / name, ignore_errors=True)
    with suppress(OSError):  # another student's are there, or there never were any
        (run.work / PRETRAIN_FOLDER).rmdir()


def fresh_student(nursery: ChainNursery, architecture: ChainArchitecture) -> PreTrainedModel:
    """Builds a student with its first weights, where it will be trained."""
    settings = nursery.settings
    config = chain_config(
        architecture, nursery.teacher.encoder.model.config, dropout=settings.pretrain.dropout
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        student: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    if settings.pretrain.start == "supernet":
        _copy_supernets(nursery, student, architecture)
    student.to(nursery.accelerator.device)
    return student


@torch.no_grad()
def _copy_supernets(
    nursery: ChainNursery, student: PreTrainedModel, architecture: ChainArchitecture
) -> None:
    """Copies the operations, and makes bridges of the projections between two blocks.

    Embeddings and head stay fresh: no supernet has any.
    """
    supernets, blocks = load_blocks(nursery), architecture.blocks
    weights: dict[str, Tensor] = {}
    for number, (supernet, block) in enumerate(zip(supernets, blocks, strict=True)):
        for place in range(len(block.operations)):
            state = supernet.operation(block, place).state_dict()
            prefix = f"encoder.block.{number}.operation.{place}"
            weights |= {f"{prefix}.{name}": tensor for name, tensor in state.items()}
    for number, ((before, after), (block, following)) in enumerate(
        zip(pairwise(supernets), pairwise(blocks), strict=True), start=1
    ):
        if block.hidden_size == following.hidden_size:
            continue
        out, back = before.outputs[str(block.hidden_size)], after.inputs[str(following.hidden_size)]
        assert isinstance(out, nn.Linear)
        assert isinstance(back, nn.Linear)
        weights[f"encoder.block.{number}.bridge.weight"] = back.weight @ out.weight
        weights[f"encoder.block.{number}.bridge.bias"] = back.weight @ out.bias + back.bias
    _, unknown = student.base_model.load_state_dict(weights, strict=False)
    assert not unknown


def train_student(nursery: MlmNursery, student: PreTrainedModel, name: str) -> None:
    """Trains a student in place as the `pretrain` section says.

    Args:
        nursery: Teacher, corpus and settings.
        student: Model of masked words.
        name: That of its checkpoints and curves.
    """
    wanted, run = nursery.settings.pretrain, nursery.run
    text = MaskedText(
        corpus=nursery.corpus.train,
        masker=nursery.masker,
        batch_size=wanted.batch_size,
        seed=nursery.settings.seed,
    )
    lesson = MaskedLmLesson(
        teacher=nursery.teacher, weight=wanted.teacher_weight, precision=nursery.precision
    )
    step = MaskedLmStep(student, lesson, text, nursery.accelerator)
    checkpoint = CheckpointFolder(
        path=run.work / PRETRAIN_FOLDER / name, fingerprint=f"{nursery.corpus.fingerprint} {wanted}"
    )
    with watched_by_main(
        nursery.accelerator,
        nursery.narrator,
        run.tensorboard / f"pretrain-{name}",
        f"Pre-training of student {name}",
        checkpoint=checkpoint,
        tokens_a_step=step.tokens,
    ) as watch:
        run_steps(
            student,
            step,
            Schedule(
                steps=wanted.steps,
                learning_rate=wanted.learning_rate,
                warmup_fraction=wanted.warmup_fraction,
                weight_decay=wanted.weight_decay,
            ),
            accelerator=nursery.accelerator,
            watch=watch,
        )


def _word_metrics(nursery: ChainNursery, student: PreTrainedModel) -> dict[str, Any]:
    """Scores a student on held-out text as the device serves its encoder."""
    text = nursery.corpus.held_out
    scored = score_words(nursery, student, [text])
    [score] = scored.scores
    metrics = {
        "mlm_accuracy_fraction": score.accuracy_fraction,
        "mlm_cross_entropy_nats": score.cross_entropy_nats,
        "mlm_count": score.chosen_count,
        **precision_facts(scored.precision),
    }
    if scored.is_served:
        before = held_out_mlm(student, text, nursery.masker, precision=nursery.precision)
        metrics["mlm_accuracy_before_8_bits_fraction"] = before.accuracy_fraction
    return metrics


def _export(
    nursery: ChainNursery, student: PreTrainedModel, told: dict[str, Any], folder: Path
) -> None:
    """Writes the checkpoint with what is known of it; a student without a task has no quality."""
    settings, run = nursery.settings, nursery.run
    teacher = json.loads((run.path / "mlm" / HEAD_FACTS_FILE).read_text(encoding="utf-8"))
    metrics = {
        **told,
        **_word_metrics(nursery, student),
        "teacher_mlm_accuracy_fraction": teacher["accuracy_fraction"],
        "teacher_mlm_cross_entropy_nats": teacher["cross_entropy_nats"],
        "teacher_parameters": sum(p.numel() for p in nursery.teacher.encoder.model.parameters()),
        "teacher_architecture": architecture_of(nursery.teacher.encoder.model.config).to_dict(),
        "initialisation": {"kind": settings.pretrain.start, "layers": []},
        "pretrain": {
            **asdict(settings.pretrain),
            "tokens": settings.pretrain.steps
            * settings.pretrain.batch_size
            * nursery.corpus.train.length,
        },
    }
    card = pretrained_card(
        metrics,
        how="a chain of attention, feed-forward and convolution operations, found by block-wise "
        "search",
        teacher=nursery.teacher.encoder.name,
        corpus=settings.corpus.name,
        has_code=True,
    )
    save_checkpoint(folder, student, nursery.teacher.encoder.tokenizer, metrics=metrics, card=card)
