"""Fine-tuning one checkpoint on a task with labels; the weights of the best evaluation are kept."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from accelerate import Accelerator
from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.data.splits import split_task
from stillhouse.data.task import Task, load_task
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.loop import TrainSettings, steps_in, train
from stillhouse.distill.steps import Evaluations, TrainReport
from stillhouse.distill.terms import LabelTerm
from stillhouse.errors import DataError, TrainingError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, pack_answers
from stillhouse.evaluate.metrics import score
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.model.anatomy import encoder_parameters, label_names, usable_positions
from stillhouse.model.described import described
from stillhouse.model.precision import resolve_precision
from stillhouse.model.predict import predict
from stillhouse.model.students import set_dropout
from stillhouse.model.teachers import (
    hash_weights,
    label_order_by_name,
    load_model,
    load_tokenizer,
    name_labels,
    renew_outputs,
    reorder_outputs,
)
from stillhouse.recipe.limits import size_mb
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.one_model import record_start
from stillhouse.recipe.scoring import choose_threshold, own_gold, quality_facts
from stillhouse.recipe.served import precision_facts
from stillhouse.recipe.teacher import probe_examples
from stillhouse.recipe.workbench import EncodedTask, encode_task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import FinetuneSettings, RunSettings

MOST_FULL_TRIALS = 10_000
"""Training examples up to which every learning rate is trained to the end."""

CHOICES = {
    "validation": "All choices were made on examples held out of the training set, none on dev.",
    "dev": "The epoch was chosen on dev, so the figures on dev are optimistic.",
}
"""What chose, by `finetune.stop_on`."""

CARD = """---
library_name: transformers
tags: [stillhouse]
---

# {architecture_label}

`{model}`, fine-tuned on the task `{task}` with stillhouse.

| measure | value |
| --- | --- |
| {metric} (dev, n = {quality_count}) | {quality:.4f} |
| its 95 % interval | {quality_low:.4f} to {quality_high:.4f} |
| {metric} (held-out training examples, n = {quality_search_count}) | {quality_search:.4f} |
| parameters | {parameters:,} |

Learning rate {learning_rate:g}, weights of epoch {epoch:g} of {epochs_trained:g}. {choice} The
licences of `{model}` and of the training data apply.
"""

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class FinetuneBench:
    """What every learning rate of a run starts from.

    Attributes:
        model: The checkpoint with a head for the task; every training works on a copy.
        has_fresh_head: Whether the last layer of that head has learnt nothing yet.
        model_hash: Identifies the first weights.
        precision: Arithmetic of training and prediction.
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
    has_fresh_head: bool
    model_hash: str

    @property
    def wanted(self) -> FinetuneSettings:
        """The settings of the training."""
        return self.settings.finetune

    @property
    def metric(self) -> str:
        """Name of the task's primary metric."""
        return self.task.metrics[0]

    @property
    def examples(self) -> EncodedSet:
        """The examples to learn from."""
        return self.data.transfer

    def copy_model(self) -> PreTrainedModel:
        """Copies the checkpoint to train it."""
        device: Any = self.accelerator.device
        copied: PreTrainedModel = copy.deepcopy(self.model).to(device)
        return copied

    def quality(self, model: PreTrainedModel, encoded: EncodedSet) -> float:
        """Scores a model by the primary metric."""
        logits = predict(model, encoded, precision=self.precision)
        return score([self.metric], logits, encoded.gold)[self.metric]

    def train_settings(self, rate: float, epochs: float) -> TrainSettings:
        """Returns the settings of one training."""
        return TrainSettings(
            epochs=epochs,
            learning_rate=rate,
            batch_size=self.wanted.batch_size,
            warmup_fraction=self.wanted.warmup_fraction,
            weight_decay=self.wanted.weight_decay,
            precision=self.precision,
            seed=self.settings.seed,
        )


def finetune_checkpoint(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, *, task: Task | None = None
) -> Path:
    """Fine-tunes the checkpoint that the settings name; resumes what the run directory holds.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told what is decided on the way.
        task: A task in memory, instead of the one that the settings name.

    Returns:
        Folder of the fine-tuned model.

    Raises:
        DataError: If the task has no labels.
        TeacherError: If the checkpoint cannot be loaded, or its family is not supported.
        RunError: If data or checkpoint changed since the run began.
        TrainingError: If no learning rate gives finite weights.
    """
    if (run.model / METRICS_FILE).exists():
        return run.model
    with run.timed("data"):
        bench = open_bench(settings, run, narrator, task=task)
    with run.timed("training"):
        finished = try_rates(bench, rates_to_finish(bench), lambda rate: finish_rate(bench, rate))
    with run.timed("evaluation"):
        return export_best(bench, list(finished.values()))


def open_bench(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, *, task: Task | None = None
) -> FinetuneBench:
    """Loads data and checkpoint; trains nothing.

    Raises:
        StillhouseError: As `finetune_checkpoint`.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    task = load_task(settings.task) if task is None else task
    _check_labels(task)
    if task.unlabelled is not None:
        narrator.say("Texts without labels teach nothing here: task.unlabelled is left out.")
        task = replace(task, unlabelled=None)
    splits = split_task(task, settings.seed)
    run.refuse_other_data(task.fingerprint())
    model, has_fresh_head = _load_checkpoint(settings, task, narrator)
    name = _checkpoint_name(settings)
    tokenizer = load_tokenizer(name, trust_remote_code=settings.finetune.trust_remote_code)
    data = encode_task(
        task,
        splits,
        tokenizer,
        settings=settings.task,
        longest=usable_positions(model.config),
    )
    bench = FinetuneBench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        precision=precision,
        task=task,
        data=data,
        model=model,
        tokenizer=tokenizer,
        has_fresh_head=has_fresh_head,
        model_hash=hash_weights(model),
    )
    record_start(
        run,
        settings,
        name=name,
        model_hash=bench.model_hash,
        task=task,
        precision=precision,
    )
    return bench


def rates_to_finish(bench: FinetuneBench) -> Sequence[float]:
    """Returns the learning rates that are trained to the end.

    All of them where the training set is small; else the best one after a tenth of the examples.
    """
    rates = bench.wanted.learning_rates
    if len(rates) == 1 or len(bench.examples) <= MOST_FULL_TRIALS:
        return rates
    known = bench.run.state().get("learning_rate")
    if known is None:
        known = _best_rate(bench, rates)
        bench.run.update_state({"learning_rate": known})
    return (float(known),)


def try_rates(
    bench: FinetuneBench, rates: Sequence[float], attempt: Callable[[float], Outcome]
) -> dict[float, Outcome]:
    """Makes an attempt with every rate; one that diverges is left out if another does not.

    Raises:
        TrainingError: If all of them diverge.
    """
    outcomes: dict[float, Outcome] = {}
    for rate in rates:
        try:
            outcomes[rate] = attempt(rate)
        except TrainingError as error:
            if not outcomes and rate == rates[-1]:
                raise
            bench.narrator.say(f"Learning rate {rate:g} is left out: {error}")
    return outcomes


def finish_rate(bench: FinetuneBench, rate: float) -> Path:
    """Trains to the end at one learning rate, resuming what was begun.

    Returns:
        Folder of the model below the run's `work`, complete, with what the training was.
    """
    folder = bench.run.work / "finished" / str(rate)
    if (folder / METRICS_FILE).exists():
        return folder
    model = bench.copy_model()
    checkpoint = CheckpointFolder(
        path=bench.run.work / "training" / str(rate), fingerprint=bench.model_hash
    )
    report = _train(bench, model, rate, checkpoint)
    validation = bench.data.validation
    logits = predict(model, validation, precision=bench.precision)
    choose_threshold(model, logits, validation)
    per_epoch = _steps_an_epoch(bench)
    assert report.best_step is not None
    facts = {
        "learning_rate": rate,
        "epoch": round(report.best_step / per_epoch, 4),
        "epochs_trained": round(report.steps / per_epoch, 4),
        "evaluations": [
            {"epoch": round(step / per_epoch, 4), "quality": quality}
            for step, quality in report.scores.items()
        ],
        "quality_search": score([bench.metric], logits, validation.gold)[bench.metric],
        "quality_search_count": len(validation.gold),
    }
    save_checkpoint(folder, model, bench.tokenizer, metrics=facts, card="")
    checkpoint.clear()
    return folder


def export_best(bench: FinetuneBench, finished: Sequence[Path]) -> Path:
    """Writes the best of the finished models with its measures; dev is read here.

    Args:
        bench: The run's bench.
        finished: Folders of `finish_rate`, in the order of the rates; of equals the first wins.
    """
    facts = [read_metrics(folder) for folder in finished]
    best = max(range(len(finished)), key=lambda place: facts[place]["quality_search"])
    model, _ = load_model(
        str(finished[best]),
        kind=bench.task.kind,
        trust_remote_code=bench.wanted.trust_remote_code,
    )
    model.to(bench.accelerator.device)
    choice = CHOICES[bench.wanted.stop_on]
    quality, answers = _dev_quality(bench, model)
    metrics = {
        "task": bench.task.name,
        "model": _checkpoint_name(bench.settings),
        **quality,
        **precision_facts(bench.precision),
        **facts[best],
        "stop_on": bench.wanted.stop_on,
        "is_optimistic": bench.wanted.stop_on == "dev",
        "choice": choice,
        "rates": [
            {key: one[key] for key in ("learning_rate", "epoch", "quality_search")} for one in facts
        ],
        "has_fresh_head": bench.has_fresh_head,
        "max_length": bench.settings.task.max_length,
        **_size(model),
    }
    card = CARD.format(**metrics)
    save_checkpoint(
        bench.run.model,
        model,
        bench.tokenizer,
        metrics=metrics,
        card=card,
        files={ANSWERS_FILE: answers},
    )
    bench.narrator.say(
        f"Learning rate {metrics['learning_rate']:g}, epoch {metrics['epoch']:g} of "
        f"{metrics['epochs_trained']:g}: {bench.metric} {metrics['quality']:.4f} on "
        f"{metrics['quality_count']} dev examples. {choice}"
    )
    return bench.run.model


def _check_labels(task: Task) -> None:
    if task.kind in ("tags", "spans"):  # told from columns that hold the answers
        return
    for name, part in (("training", task.train), ("dev", task.dev)):
        if "label" not in part.column_names:
            raise DataError(
                f"fine-tuning needs labels, but the {name} set of {task.name} has the columns "
                f"{part.column_names}: add a column 'label'"
            )


def _checkpoint_name(settings: RunSettings) -> str:
    assert settings.finetune.model is not None  # the caller has checked
    return settings.finetune.model


def _load_checkpoint(
    settings: RunSettings, task: Task, narrator: Narrator
) -> tuple[PreTrainedModel, bool]:
    """Loads the checkpoint with a head for the task; tells whether its last layer is fresh."""
    name = _checkpoint_name(settings)
    model, has_head = load_model(
        name,
        labels=task.output_count,
        kind=task.kind,
        seed=settings.seed,
        trust_remote_code=settings.finetune.trust_remote_code,
    )
    described(model.config)  # refuses what has no figures before it is trained
    theirs, order = label_names(model.config), label_order_by_name(model, task.label_names)
    if not has_head:
        narrator.say(
            f"{name} has no trained head of {task.output_count} outputs for {task.name}: it gets a "
            f"fresh one (seed {settings.seed})."
        )
    elif task.label_names and order is None:
        renew_outputs(model, seed=settings.seed)
        narrator.say(
            f"The head of {name} names {theirs}, the task {task.name} {list(task.label_names)}: "
            f"its last layer is drawn anew (seed {settings.seed})."
        )
        has_head = False
    elif order is not None:
        reorder_outputs(model, order)
    name_labels(model, task.label_names, kind=task.kind)
    set_dropout(model, settings.finetune.dropout)
    return model, not has_head


def _best_rate(bench: FinetuneBench, rates: Sequence[float]) -> float:
    """Trains one epoch on a part of the examples at each rate; the best validation score wins."""
    part = probe_examples(bench.examples, bench.settings.seed)

    def attempt(rate: float) -> float:
        model = bench.copy_model()
        logs = bench.run.tensorboard / f"probe-{rate}"
        with watched(bench.narrator, logs, f"Trying rate {rate:g}") as watch:
            train(
                model,
                part,
                [LabelTerm(kind=bench.task.kind)],
                bench.train_settings(rate, 1.0),
                accelerator=bench.accelerator,
                watch=watch,
            )
        return bench.quality(model, bench.data.validation)

    scores = try_rates(bench, rates, attempt)
    best = max(scores, key=lambda rate: scores[rate])
    listed = ", ".join(f"{rate:g}: {value:.4f}" for rate, value in scores.items())
    bench.narrator.say(
        f"Learning rate {best:g} ({bench.metric} on held-out examples after {len(part)} examples: "
        f"{listed})."
    )
    return best


def _train(
    bench: FinetuneBench, model: PreTrainedModel, rate: float, checkpoint: CheckpointFolder
) -> TrainReport:
    wanted, per_epoch = bench.wanted, _steps_an_epoch(bench)
    judged = bench.data.dev if wanted.stop_on == "dev" else bench.data.validation
    logs = bench.run.tensorboard / f"rate-{rate}"
    title = f"{wanted.epochs:g} epochs at rate {rate:g}"
    with (
        SummaryWriter(str(logs / "evaluations")) as curves,
        watched(bench.narrator, logs, title, checkpoint=checkpoint) as watch,
    ):

        def evaluate(done: int) -> float:
            quality = bench.quality(model, judged)
            curves.add_scalar(f"{wanted.stop_on}/{bench.metric}", quality, done)
            bench.narrator.note(
                f"Epoch {done / per_epoch:.2f} at rate {rate:g}: {bench.metric} {quality:.4f} on "
                f"{wanted.stop_on}"
            )
            return quality

        evaluations = Evaluations(
            score=evaluate,
            every_steps=max(1, round(per_epoch * wanted.evaluate_every)),
            patience=wanted.patience,
        )
        return train(
            model,
            bench.examples,
            [LabelTerm(kind=bench.task.kind)],
            bench.train_settings(rate, wanted.epochs),
            accelerator=bench.accelerator,
            watch=replace(watch, evaluations=evaluations),
        )


def _steps_an_epoch(bench: FinetuneBench) -> int:
    return steps_in(len(bench.examples), bench.train_settings(rate=1.0, epochs=1.0))


def _dev_quality(bench: FinetuneBench, model: PreTrainedModel) -> tuple[Mapping[str, Any], bytes]:
    """Scores a model on dev, and packs its answers."""
    task, dev = bench.task, bench.data.dev
    logits = predict(model, dev, precision=bench.precision)
    gold = own_gold(model, dev)
    facts = quality_facts(task.metrics, logits, gold, seed=bench.settings.seed)
    return facts, pack_answers(task.metrics, logits, gold, dev_sha256=task.dev_fingerprint())


def _size(model: PreTrainedModel) -> Mapping[str, Any]:
    architecture = described(model.config)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "parameters": parameters,
        "parameters_encoder": encoder_parameters(model),
        "size_mb": size_mb(parameters),
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
        "weights_sha256": hash_weights(model),
    }
