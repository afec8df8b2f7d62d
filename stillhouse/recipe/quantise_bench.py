"""What a model that is to have few bits learns from: itself, a task, and the settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from stillhouse.data.splits import split_task
from stillhouse.data.task import Task, load_task
from stillhouse.distill.kdlsq import ACTIVATION_CLIP_RATE, WEIGHT_CLIP_RATE, Rates
from stillhouse.distill.loop import TrainSettings
from stillhouse.errors import DataError, SettingsError, TeacherError
from stillhouse.evaluate.metrics import score
from stillhouse.export.checkpoint import known_max_length
from stillhouse.model.anatomy import architecture_of, ends_of, label_names, usable_positions
from stillhouse.model.lsq import check_family
from stillhouse.model.packing_bits import count_packed
from stillhouse.model.precision import resolve_precision
from stillhouse.model.predict import predict
from stillhouse.model.teachers import (
    hash_weights,
    label_order_by_name,
    load_model,
    load_tokenizer,
    name_labels,
    reorder_outputs,
)
from stillhouse.recipe.one_model import record_start
from stillhouse.recipe.workbench import EncodedTask, encode_task

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.precision import Precision
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.quantise_settings import QuantiseSettings
    from stillhouse.run.settings import RunSettings


SCORE_PRECISION: Precision = "float32"
"""Arithmetic of all answers that are scored."""


@dataclass(frozen=True, kw_only=True)
class QuantiseBench:
    """A model that is to have few bits, and what it learns from.

    Attributes:
        model: The model in full precision, frozen, with outputs in the task's order of labels.
        name: What the user called it.
        model_hash: Identifies its weights.
        precision: Arithmetic of the training.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    precision: Precision
    task: Task
    data: EncodedTask
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    model_hash: str

    @property
    def wanted(self) -> QuantiseSettings:
        """The settings of the training."""
        return self.settings.quantise

    @property
    def weight_bits(self) -> int:
        """Bits of the weights; whoever makes the bench has seen that they are given."""
        assert self.wanted.weight_bits is not None
        return self.wanted.weight_bits

    @property
    def metric(self) -> str:
        """Name of the task's primary metric."""
        return self.task.metrics[0]

    @property
    def max_length(self) -> int:
        """Most tokens of an example."""
        return known_max_length(self.name, self.settings.task.max_length)

    def logits(self, model: PreTrainedModel, encoded: EncodedSet) -> NDArray[np.float32]:
        """Computes a model's logits of a set, in float32.

        Whole numbers are multiplied exactly where such a model is served; bfloat16 would round
        them once more.
        """
        return predict(model, encoded, precision=SCORE_PRECISION)

    def quality(self, logits: NDArray[np.float32], encoded: EncodedSet) -> float:
        """Scores logits by the primary metric."""
        return score([self.metric], logits, encoded.gold)[self.metric]

    def train_settings(self) -> TrainSettings:
        """Returns the settings of the training.

        The gradient has no largest norm: those of clips are sums over whole tensors, and one norm
        over all would scale the weights' gradient by theirs.
        """
        wanted = self.wanted
        return TrainSettings(
            epochs=wanted.epochs,
            learning_rate=wanted.learning_rate,
            batch_size=wanted.batch_size,
            warmup_fraction=0.0,
            weight_decay=0.0 if self.task.kind == "spans" else wanted.weight_decay,
            clip_norm=math.inf,
            precision=self.precision,
            seed=self.settings.seed,
        )

    def rates(self) -> Rates:
        """Returns the peaks of all learning rates; of questions they are one, without decay."""
        wanted, one = self.wanted, self.task.kind == "spans"
        usual = Rates(
            weights=wanted.learning_rate,
            weight_clips=wanted.learning_rate if one else WEIGHT_CLIP_RATE,
            activation_clips=wanted.learning_rate if one else ACTIVATION_CLIP_RATE,
        )
        if one:
            usual = replace(usual, weight_clip_decay=0.0, activation_clip_decay=0.0)
        return replace(
            usual,
            weight_clips=wanted.weight_clip_rate or usual.weight_clips,
            activation_clips=wanted.activation_clip_rate or usual.activation_clips,
        )


def open_quantise_bench(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, *, task: Task | None = None
) -> QuantiseBench:
    """Loads data and checkpoint; trains nothing.

    Raises:
        StillhouseError: As `quantise_checkpoint`.
    """
    name = settings.quantise.model
    if name is None:
        raise SettingsError("quantise.model is missing: give a checkpoint's folder or hub id")
    if settings.quantise.weight_bits is None:
        raise SettingsError("quantise.weight_bits is missing: give 2 to 8 bits, such as 8, 4 or 2")
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    task = load_task(settings.task) if task is None else task
    run.refuse_other_data(task.fingerprint())
    model = _load_trained(name, task)
    tokenizer = load_tokenizer(name)
    positions = usable_positions(model.config)
    bench = QuantiseBench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        precision=resolve_precision(settings.distill.precision, accelerator.device),
        task=task,
        data=encode_task(
            task,
            split_task(task, settings.seed),
            tokenizer,
            settings=settings.task,
            longest=known_max_length(name, positions),
        ),
        model=_frozen(model, accelerator),
        tokenizer=tokenizer,
        name=name,
        model_hash=hash_weights(model),
    )
    record_start(
        run,
        settings,
        name=name,
        model_hash=bench.model_hash,
        task=task,
        precision=bench.precision,
    )
    _say_size(bench)
    return bench


def check_quantisable(wanted: QuantiseSettings, config: PreTrainedConfig) -> None:
    """Refuses students that cannot have the bits that are asked for, before they are trained.

    Args:
        wanted: With bits or without.
        config: Of a student.

    Raises:
        SettingsError: If it is of a family that cannot be quantised.
    """
    if wanted.weight_bits is None:
        return
    try:
        check_family(config)
    except TeacherError as error:
        raise SettingsError(
            f"quantise.weight_bits is {wanted.weight_bits}, but {error}; leave it out to keep "
            "students in full precision"
        ) from error


def bench_of_student(bench: Workbench, folder: Path) -> QuantiseBench:
    """Makes the bench of a finished student of a run.

    Raises:
        TeacherError: If its family cannot be quantised.
    """
    model, _ = load_model(str(folder), kind=bench.task.kind)
    check_family(model.config)
    return QuantiseBench(
        settings=bench.settings,
        run=bench.run,
        narrator=bench.narrator,
        accelerator=bench.accelerator,
        precision=bench.precision,
        task=bench.task,
        data=bench.data,
        model=_frozen(model, bench.accelerator),
        tokenizer=bench.tokenizer,
        name=f"student {folder.name}",
        model_hash=hash_weights(model),
    )


def _load_trained(name: str, task: Task) -> PreTrainedModel:
    """Loads a checkpoint whose head is trained for the task.

    Raises:
        TeacherError: If it has none, or cannot be quantised.
        DataError: If the labels of its head are not those of the task.
    """
    model, has_head = load_model(name, labels=task.output_count, kind=task.kind)
    check_family(model.config)
    if not has_head:
        raise TeacherError(
            f"{name} has no trained head of {task.output_count} outputs for {task.name}: only a "
            f"fine-tuned model can be quantised, `stillhouse finetune {name} --task {task.name}` "
            "makes one"
        )
    if task.label_names:
        order = label_order_by_name(model, task.label_names)
        if order is None:
            raise DataError(
                f"{name} has the labels {label_names(model.config)}, the task {task.name} has "
                f"{list(task.label_names)}: quantise it on its own task"
            )
        reorder_outputs(model, order)
    name_labels(model, task.label_names, kind=task.kind)
    return model


def _frozen(model: PreTrainedModel, accelerator: Accelerator) -> PreTrainedModel:
    module: Any = model
    frozen: PreTrainedModel = module.to(accelerator.device).requires_grad_(requires_grad=False)
    return frozen


def _say_size(bench: QuantiseBench) -> None:
    """Tells what the weights will take, before they are trained."""
    config = bench.model.config
    packed = count_packed(architecture_of(config), ends_of(config, bench.task.kind))
    bench.narrator.say(
        f"In {bench.weight_bits} bits the weights of {bench.name} take about "
        f"{packed.size_bytes(bench.weight_bits) / 1e6:.2f} MB, in float32 "
        f"{4 * sum(p.numel() for p in bench.model.parameters()) / 1e6:.2f} MB."
    )
