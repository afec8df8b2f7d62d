"""The workbench: everything that candidates and final students of one run share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from stillhouse.data.batching import percentile_length
from stillhouse.data.encoding import EncodedSet, concatenate, encode
from stillhouse.data.labels import abbreviated
from stillhouse.data.proxy import check_proxy, choose_proxy, missing_classes
from stillhouse.device.chips import find_chip
from stillhouse.device.inventory import default_kind
from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Comparison, Device, Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import open_predicted
from stillhouse.device.profile import read_profile
from stillhouse.device.roofline import roofline_device
from stillhouse.device.runtimes import make_runtime, why_unusable
from stillhouse.device.table import read_table
from stillhouse.distill.loop import TrainSettings
from stillhouse.distill.teacher import TeacherSignals, cached_teacher
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.metrics import score
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.predict import predict
from stillhouse.model.students import (
    Initialisation,
    build_student,
    student_config,
)
from stillhouse.recipe.first_weights import first_weights, resolve_loss
from stillhouse.recipe.own_parts import NO_PARTS, OwnParts
from stillhouse.recipe.served import predict_served, served_precision
from stillhouse.space.counts import ParameterCount, count_flops, count_parameters

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.metric_names import TaskKind
    from stillhouse.data.splits import Splits
    from stillhouse.data.task import Task, TaskSettings
    from stillhouse.device.latency import Shape
    from stillhouse.distill.terms import Term
    from stillhouse.model.precision import Precision
    from stillhouse.model.teachers import Teacher
    from stillhouse.run.device_settings import DeviceSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture, BertArchitecture
    from stillhouse.space.counts import Ends

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedTask:
    """A task as token ids.

    Attributes:
        train: Training examples, without the search-validation ones.
        transfer: Training examples and the unlabelled ones, as long as the task asks: what students
            learn from.
        validation: Search-validation examples, as long as the task asks: everything that is chosen
            is chosen on these.
        dev: Examples for reports, read once per finished student.
    """

    train: EncodedSet
    transfer: EncodedSet
    validation: EncodedSet
    dev: EncodedSet


def encode_task(
    task: Task,
    splits: Splits,
    tokenizer: PreTrainedTokenizerBase,
    *,
    settings: TaskSettings,
    longest: int,
) -> EncodedTask:
    """Encodes all sets of a task with one tokeniser.

    Args:
        task: Gives the unlabelled texts.
        splits: The labelled sets.
        tokenizer: Of teacher and students.
        settings: Most tokens of an example, the rest is cut off; fewest of one of `transfer` and
            `validation`, the rest is left out; overlap of the windows of a long passage.
        longest: Most tokens that the model reads.

    Raises:
        DataError: If no example, or none of some class, is as long.
    """

    def encoded(part: Dataset) -> EncodedSet:
        most = min(settings.max_length, longest)
        return encode(part, tokenizer, max_length=most, stride=settings.stride)

    train, validation, dev = map(encoded, (splits.train, splits.validation, splits.dev))
    transfer = train
    if task.unlabelled is not None:
        transfer = concatenate([train, encoded(task.unlabelled)])
    return EncodedTask(
        train=train,
        transfer=at_least(transfer, settings.min_length, task.label_names),
        validation=at_least(validation, settings.min_length, task.label_names),
        dev=dev,
    )


def at_least(encoded: EncodedSet, length: int, names: Sequence[str]) -> EncodedSet:
    """Leaves out the examples that are shorter than `length` tokens.

    Args:
        encoded: Any examples.
        length: Fewest tokens.
        names: Names of the classes.

    Raises:
        DataError: If no example, or none of a class that occurs, is as long.
    """
    long = np.flatnonzero(encoded.lengths >= length)
    if len(long) == len(encoded):
        return encoded
    rule = f"task.min_length {length} leaves no example"
    if not len(long):
        raise DataError(f"{rule}: the longest has {encoded.longest} tokens; lower it")
    if encoded.classes is not None and (gone := missing_classes(encoded.classes, long)):
        raise DataError(f"{rule} of class {abbreviated([names[c] for c in gone])}; lower it")
    return encoded.select(long)


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """What every candidate of a run is made and judged with.

    Attributes:
        source: The teacher with its tokeniser; frozen, fine-tuned and with its outputs in the
            task's order of labels once the workbench is prepared.
        teacher_hash: Identifies its weights; empty before the workbench is prepared.
        precision: Arithmetic of training and prediction.
        workload: What latency is told for.
        own: Parts that the user handed over as objects.
    """

    settings: RunSettings
    run: RunDirectory
    narrator: Narrator
    accelerator: Accelerator
    precision: Precision
    task: Task
    data: EncodedTask
    source: Teacher
    teacher_hash: str
    device: Device
    workload: Workload
    own: OwnParts = NO_PARTS

    @property
    def teacher(self) -> PreTrainedModel:
        """The teacher's network."""
        return self.source.model

    @property
    def teacher_name(self) -> str:
        """Hub id, folder, or what the user called the teacher."""
        return self.source.name

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokeniser of teacher and students."""
        return self.source.tokenizer

    @cached_property
    def teacher_architecture(self) -> BertArchitecture:
        """Shape of the teacher."""
        return architecture_of(self.teacher.config)

    @cached_property
    def proxy(self) -> EncodedSet:
        """The fixed subset on which candidates are compared; each class has an example in it.

        Raises:
            DataError: If there are more classes than examples in it.
        """
        everything = self.data.transfer
        wanted = self.settings.search.proxy_examples
        if wanted >= len(everything):
            return everything
        generator = np.random.default_rng([self.settings.seed, 1])
        labels = everything.classes
        chosen = choose_proxy(labels, total=len(everything), count=wanted, generator=generator)
        if labels is not None:
            check_proxy(labels, chosen, self.task.label_names)
        return everything.select(chosen)

    @property
    def proxy_epochs(self) -> float:
        """How often a candidate passes over the proxy set.

        Where the training set is smaller than the proxy set should be, it is passed over more
        often, so that candidates of any task see as many examples; but not more often than winners
        do. A single pass over MRPC's 3,300 examples leaves most candidates at the level of the most
        frequent class, and then chance ranks them.
        """
        search = self.settings.search
        missing = search.proxy_examples / len(self.proxy)
        return max(search.epochs, min(search.epochs * missing, self.settings.final.epochs))

    def quality(self, model: PreTrainedModel, encoded: EncodedSet) -> dict[str, float]:
        """Scores a model on labelled examples, by metric; the primary metric comes first."""
        logits = predict(model, encoded, precision=self.precision)
        return self.score(logits, encoded)

    def student_logits(self, model: PreTrainedModel, encoded: EncodedSet) -> np.ndarray[Any, Any]:
        """Computes a student's logits as it is served: in 8 bits where the device is.

        They have the shape that `predict` gives.

        Raises:
            ExportError: If it cannot be quantised.
        """
        if served_precision(self.settings.device) is None:
            return predict(model, encoded, precision=self.precision)
        return predict_served(
            model,
            encoded,
            settings=self.settings.device,
            workload=self.workload,
            calibration=self.proxy,
        )

    def score(self, logits: np.ndarray[Any, Any], encoded: EncodedSet) -> dict[str, float]:
        """Scores logits of labelled examples by the task's metrics.

        Questions without an answer are told by the threshold that suits these examples best: a
        figure to choose by, not to report.
        """
        return score(self.task.metrics, logits, encoded.gold)

    @cached_property
    def teacher_dev_logits(self) -> np.ndarray[Any, Any]:
        """The prepared teacher's answers on dev, which students are compared with."""
        teacher = self.teacher.to(self.accelerator.device)
        return predict(teacher, self.data.dev, precision=self.precision)

    def signals(self, encoded: EncodedSet, terms: Sequence[Term], title: str) -> TeacherSignals:
        """Returns what terms read of the teacher for a set, from the run's cache."""
        self.narrator.begin(title, 1.0)
        try:
            return cached_teacher(
                self.teacher.to(self.accelerator.device),
                encoded,
                frozenset().union(*(term.teacher_layers for term in terms)),
                attention=frozenset().union(*(term.teacher_attention for term in terms)),
                directory=self.run.work / "cache",
                teacher_hash=self.teacher_hash,
                precision=self.precision,
                limit_gb=self.settings.distill.cache_gb,
                on_progress=self.narrator.advance,
            )
        finally:
            self.narrator.end()

    def build(self, architecture: Architecture, *, seed: int | None = None) -> PreTrainedModel:
        """Builds a fresh student of the teacher's vocabulary and labels.

        Args:
            architecture: Its shape.
            seed: Of its weights; `None` for the run's.
        """
        config = student_config(
            architecture, self.teacher.config, dropout=self.settings.distill.dropout
        )
        seed = self.settings.seed if seed is None else seed
        return build_student(config, seed=seed, kind=self.task.kind)

    def initialise(self, student: PreTrainedModel) -> Initialisation:
        """Gives a freshly built student its first weights, in place, and tells where from.

        Before the teacher is prepared the neurons of an extract are drawn by chance: nothing is
        trained then, and the importance would be that of other weights.
        """
        settings = self.settings
        if settings.distill.initialisation == "extract" and not self.teacher_hash:
            if settings.extract.loss == "words":  # refused now rather than after the teacher
                resolve_loss(self.source, settings, self.data.train)
            settings = replace(settings, extract=replace(settings.extract, indices="random"))
        return first_weights(
            student,
            self.source,
            settings=settings,
            sample=self.data.train,
            folder=self.run.work,
            seed=self.settings.seed,
            narrator=self.narrator,
        )

    def train_settings(self, epochs: float, *, seed: int | None = None) -> TrainSettings:
        """Returns the settings of one distillation; `seed` decides the order of the examples."""
        distill = self.settings.distill
        return TrainSettings(
            epochs=epochs,
            learning_rate=distill.learning_rate,
            batch_size=distill.batch_size,
            precision=self.precision,
            seed=self.settings.seed if seed is None else seed,
        )

    def counts(self, architecture: Architecture) -> ParameterCount:
        """Counts the parameters of a student of `architecture`."""
        return count_parameters(architecture, self.ends_of(self.teacher.config))

    def ends_of(self, config: PreTrainedConfig) -> Ends:
        """Tells what a model of the task has beside its encoder layers."""
        return ends_of(config, self.task.kind)

    def flops(self, architecture: Architecture) -> int:
        """Counts the operations of one example at the workload's length."""
        ends = self.ends_of(self.teacher.config)
        return count_flops(architecture, ends, length=self.workload.length)

    def compare(self, architecture: Shape, *, length: int | None = None) -> Comparison:
        """Tells a student's latency beside the teacher's, at the workload or at another length."""
        workload = self.workload if length is None else replace(self.workload, length=length)
        return self.device.compare(architecture, workload)


def resolve_workload(
    settings: DeviceSettings, lengths: np.ndarray[Any, Any], kind: str
) -> Workload:
    """Fills what the settings leave open: the task's length, all cores of processor or chip.

    A profile has the workload that it was measured for.

    Raises:
        SettingsError: If another one is asked of a profile.
        DeviceError: If the profile cannot be read.
    """
    if settings.profile is not None:
        settings = settings.as_measured()
        kind = settings.kind
    length = settings.length or percentile_length(lengths, q=0.95, multiple=16)
    threads = settings.threads or torch.get_num_threads()
    if settings.chip is not None:
        chip = find_chip(settings.chip)
        threads = (settings.threads or chip.units) if chip.is_processor else 0
    elif kind in MEASURED and MEASURED[kind].is_cuda:
        threads = 0
    assert settings.precision is not None  # the settings filled it
    return Workload(
        batch=settings.batch or 1,
        length=length,
        precision=settings.precision,
        threads=threads,
        padding_fraction=settings.padding_fraction,
    )


def resolve_device_kind(settings: DeviceSettings) -> str:
    """Settles `auto`.

    Raises:
        SettingsError: If the device asked for, or that of a profile, cannot be used here; it says
            why.
        DeviceError: If a profile cannot be read.
    """
    if settings.kind == "auto":
        return default_kind()
    kind = settings.as_measured().kind
    if kind in MEASURED and (reason := why_unusable(kind)) is not None:
        raise SettingsError(
            f"device.kind {kind}: {reason}; `stillhouse devices` tells what can be used"
        )
    return settings.kind


def resolve_device(
    settings: DeviceSettings,
    kind: str,
    *,
    teacher: PreTrainedModel,
    build: Callable[[Any], PreTrainedModel],
    bare: bool = False,
    task: TaskKind = "classes",
) -> Device:
    """Makes the device that the settings name.

    Args:
        settings: The device's.
        kind: As `resolve_device_kind` told it.
        teacher: Reference of every comparison.
        build: Makes the student of an architecture.
        bare: Whether teacher and students are encoders without a projection onto outputs.
        task: What their outputs are otherwise.

    Raises:
        DeviceError: If a table or profile cannot be read or is not for this machine, or the runtime
            cannot be used here.
    """
    if settings.profile is not None:
        path = Path(settings.profile)
        profile = read_profile(path)
        runtime = make_runtime(profile.subject.kind)
        return open_predicted(profile, path, runtime, teacher=teacher, build=build)
    if settings.table is not None:
        return read_table(Path(settings.table))
    if settings.chip is not None:
        return roofline_device(find_chip(settings.chip), teacher.config, bare=bare, task=task)
    return MeasuredDevice(make_runtime(kind), teacher=teacher, build=build)


def latency_facts(comparison: Comparison) -> Mapping[str, object]:
    """Returns both latencies as plain data for the trial record."""
    return {
        "latency": comparison.student.to_dict(),
        "teacher_latency_ms": comparison.teacher.median_ms,
        "speedup": comparison.speedup,
        "noise_fraction": comparison.noise_fraction,
    }
