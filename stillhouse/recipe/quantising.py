"""Quantising a fine-tuned model: it learns from itself to have weights of few bits."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.batching import collate
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.kdlsq import kdlsq_terms, rated_parts
from stillhouse.distill.loop import steps_in, train
from stillhouse.distill.steps import Evaluations
from stillhouse.distill.teacher import cached_teacher
from stillhouse.errors import StillhouseError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, pack_answers
from stillhouse.evaluate.loyalty import loyalty
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics
from stillhouse.export.quantised import QUANTISED_FOLDER, save_quantised
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.inputs import model_inputs
from stillhouse.model.lsq import all_clips, quantise_model
from stillhouse.model.lsq_parts import ACTIVATION_BITS
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.students import set_dropout
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.quantise_bench import (
    SCORE_PRECISION,
    QuantiseBench,
    bench_of_student,
    open_quantise_bench,
)
from stillhouse.recipe.scoring import choose_threshold, own_gold, quality_facts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.task import Task
    from stillhouse.distill.steps import TrainReport
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.distill.terms import Term
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.quantise_settings import QuantiseSettings
    from stillhouse.run.settings import RunSettings

COLLAPSED_FRACTION = 0.01
"""Of a first range, below which it is as good as closed."""
STEP_TIMES = 1.4
"""As long as one in full precision takes a step in few bits, on a processor."""
_RANGE_DRAW = 2
"""Names the draw of the examples that set ranges among those of a run."""


def quantise_checkpoint(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, *, task: Task | None = None
) -> Path:
    """Quantises the checkpoint that the settings name; resumes what the run directory holds.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told what is decided on the way.
        task: A task in memory, instead of the one that the settings name.

    Returns:
        Folder of the quantised model.

    Raises:
        SettingsError: If bits or checkpoint are missing.
        TeacherError: If the checkpoint cannot be loaded, has no trained head for the task, or its
            family cannot be quantised.
        DataError: If its labels are not those of the task.
        RunError: If data or checkpoint changed since the run began.
        TrainingError: If no range can be set, or the training diverges.
    """
    if (run.model / METRICS_FILE).exists():
        return run.model
    with run.timed("data"):
        bench = open_quantise_bench(settings, run, narrator, task=task)
    with run.timed("training"):
        finish_quantised(bench, run.model)
    return run.model


def quantise_students(bench: Workbench, students: Sequence[Path]) -> None:
    """Gives each finished student of a run a quantised form, where the settings ask for bits.

    It lies in the student's folder, below `quantised`. A student that cannot be quantised is told
    and loses nothing.

    Args:
        bench: The run's workbench.
        students: Folders of the finished students.
    """
    if bench.settings.quantise.weight_bits is None:
        return
    with bench.run.timed(QUANTISED_FOLDER):
        for folder in students:
            try:
                one = bench_of_student(bench, folder)
                aside = bench.run.work / QUANTISED_FOLDER / one.model_hash[:20]
                finished = finish_quantised(one, aside)
            except StillhouseError as error:
                bench.narrator.say(f"{folder} has no quantised form: {error}")
                continue
            with folder_written_aside(folder / QUANTISED_FOLDER) as target:
                shutil.copytree(finished, target, dirs_exist_ok=True)


def quantising_passes(wanted: QuantiseSettings) -> float:
    """Tells how many passes in full precision take as long; 0 where no bits are given."""
    return 0.0 if wanted.weight_bits is None else STEP_TIMES * wanted.epochs


def finish_quantised(bench: QuantiseBench, target: Path) -> Path:
    """Quantises, trains, measures and writes a model, resuming what was begun.

    Args:
        bench: What is quantised, and what it learns from.
        target: Folder of the quantised model; nothing is done where it is complete.

    Returns:
        The folder.
    """
    if (target / METRICS_FILE).exists():
        return target
    student = quantised_copy(bench)
    first = {name: abs(clip.item()) for name, clip in all_clips(student).items()}
    checkpoint = CheckpointFolder(
        path=bench.run.work / "quantising" / bench.model_hash[:20], fingerprint=bench.model_hash
    )
    report = _train(bench, student, checkpoint)
    _say_collapsed(bench, student, first)
    told, answers = _measure(bench, student, report)
    save_quantised(
        target,
        student,
        bench.tokenizer,
        lambda sizes: {**told, **sizes},
        files={ANSWERS_FILE: answers},
    )
    checkpoint.clear()
    _say_result(bench, read_metrics(target))
    return target


def _say_collapsed(
    bench: QuantiseBench, student: PreTrainedModel, first: Mapping[str, float]
) -> None:
    """Tells of ranges that training has all but closed: hardly anything passes there."""
    last = {name: abs(clip.item()) for name, clip in all_clips(student).items()}
    closed = [name for name, clip in last.items() if clip < COLLAPSED_FRACTION * first[name]]
    if closed:
        bench.narrator.say(
            f"Training took the range {closed[0]} from {first[closed[0]]:.3g} to "
            f"{last[closed[0]]:.3g}, and {len(closed) - 1} others likewise: lower "
            "quantise.activation_clip_rate or quantise.weight_clip_rate"
        )


def quantised_copy(bench: QuantiseBench) -> PreTrainedModel:
    """Copies the model and quantises the copy; its ranges come from weights and a batch.

    The batch is drawn from the training examples.

    Raises:
        TeacherError: If the model's family cannot be quantised.
        TrainingError: If a range is 0 or not finite.
    """
    copied: Any = copy.deepcopy(bench.model)
    student: PreTrainedModel = copied.requires_grad_(requires_grad=True)
    set_dropout(student, bench.settings.distill.dropout)
    quantise_model(student, weight_bits=bench.weight_bits)
    set_weight_clips(student, bench.wanted.ranges)
    drawn = range_order(bench)[: bench.wanted.batch_size]
    batch = collate(bench.data.train, drawn).to(bench.accelerator.device)
    set_activation_clips(student, model_inputs(student.config, batch), bench.wanted.ranges)
    return student


def range_order(bench: QuantiseBench) -> NDArray[np.int64]:
    """Draws the training examples in an order: ranges are those of the first batch of them."""
    generator = np.random.default_rng([bench.settings.seed, _RANGE_DRAW])
    return generator.permutation(len(bench.data.train))


def _train(
    bench: QuantiseBench, student: PreTrainedModel, checkpoint: CheckpointFolder
) -> TrainReport:
    """Trains a student in place; it ends with the weights that were best on search-validation."""
    settings, examples = bench.train_settings(), bench.data.transfer
    weight, validation = bench.wanted.label_weight, bench.data.validation
    terms = kdlsq_terms(student.config, kind=bench.task.kind, label_weight=weight)
    per_epoch = steps_in(len(examples), replace(settings, epochs=1.0))

    def evaluate(done: int) -> float:
        quality = bench.quality(bench.logits(student, validation), validation)
        bench.narrator.note(
            f"Epoch {done / per_epoch:.2f} in {bench.weight_bits} bits: {bench.metric} "
            f"{quality:.4f} on validation"
        )
        return quality

    evaluations = Evaluations(
        score=evaluate, every_steps=max(1, round(per_epoch * bench.wanted.evaluate_every))
    )
    teacher = _signals(bench, terms)
    logs = bench.run.tensorboard / f"quantised-{bench.model_hash[:8]}"
    title = f"{bench.name} in {bench.weight_bits} bits"
    with watched(bench.narrator, logs, title, checkpoint=checkpoint) as watch:
        return train(
            student,
            examples,
            terms,
            settings,
            accelerator=bench.accelerator,
            teacher=teacher,
            watch=replace(watch, evaluations=evaluations),
            parts=rated_parts(bench.rates()),
        )


def _signals(bench: QuantiseBench, terms: Sequence[Term]) -> TeacherSignals:
    """Returns what terms read of the full-precision model for the training set."""
    bench.narrator.begin("Full precision over the training set", 1.0)
    try:
        return cached_teacher(
            bench.model,
            bench.data.transfer,
            frozenset().union(*(term.teacher_layers for term in terms)),
            attention=frozenset().union(*(term.teacher_attention for term in terms)),
            directory=bench.run.work / "cache",
            teacher_hash=bench.model_hash,
            precision=bench.precision,
            limit_gb=bench.settings.distill.cache_gb,
            on_progress=bench.narrator.advance,
        )
    finally:
        bench.narrator.end()


def _measure(
    bench: QuantiseBench, student: PreTrainedModel, report: TrainReport
) -> tuple[Mapping[str, Any], bytes]:
    """Scores the model trained in few bits, whose answers it packs, untrained, and in full."""
    per_epoch = steps_in(len(bench.data.transfer), replace(bench.train_settings(), epochs=1.0))
    dev, full = bench.data.dev, bench.model
    untrained = quantised_copy(bench)
    found = {one: bench.logits(one, dev) for one in (student, full, untrained)}
    quality = _facts(bench, student, found[student], chooses=True)
    agreement = loyalty(
        found[student],
        found[full],
        own_gold(student, dev),
        seed=bench.settings.seed,
        teacher_gold=own_gold(full, dev),
    )
    architecture = architecture_of(full.config)
    assert report.best_step is not None
    answers = pack_answers(
        bench.task.metrics,
        found[student],
        own_gold(student, dev),
        dev_sha256=bench.task.dev_fingerprint(),
    )
    facts = {
        "task": bench.task.name,
        "task_kind": bench.task.kind,
        "model": bench.name,
        "weight_bits": bench.weight_bits,
        "activation_bits": ACTIVATION_BITS,
        "ranges": bench.wanted.ranges,
        **quality,
        **_named("float", _facts(bench, full, found[full], chooses=False)),
        **_named("post_training", _facts(bench, untrained, found[untrained], chooses=True)),
        "loyalty": agreement.to_dict(),
        "quality_precision": SCORE_PRECISION,
        "epoch": round(report.best_step / per_epoch, 4),
        "evaluations": [
            {"epoch": round(step / per_epoch, 4), "quality": reached}
            for step, reached in report.scores.items()
        ],
        "max_length": bench.max_length,
        "parameters": sum(p.numel() for p in full.parameters()),
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
    }
    return facts, answers


def _facts(
    bench: QuantiseBench, model: PreTrainedModel, dev_logits: NDArray[np.float32], *, chooses: bool
) -> dict[str, Any]:
    """Scores a model on search-validation and on dev; it may choose its threshold before."""
    validation = bench.data.validation
    chosen_on = bench.logits(model, validation)
    if chooses:
        choose_threshold(model, chosen_on, validation)
    gold = own_gold(model, bench.data.dev)
    return {
        **quality_facts(bench.task.metrics, dev_logits, gold, seed=bench.settings.seed),
        "quality_search": bench.quality(chosen_on, validation),
        "quality_search_count": len(validation.gold),
    }


def _named(prefix: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the qualities among facts under the name of what they are of."""
    return {f"{prefix}_{key}": value for key, value in facts.items() if key.startswith("quality")}


def _say_result(bench: QuantiseBench, told: Mapping[str, Any]) -> None:
    bench.narrator.say(
        f"{bench.name} in {told['weight_bits']} bits: {told['metric']} {told['quality']:.4f} on "
        f"{told['quality_count']} dev examples, {told['post_training_quality']:.4f} without "
        f"training, {told['float_quality']:.4f} in full precision; {told['size_mb']:.2f} MB, "
        f"{told['compression']:.1f} times smaller."
    )
