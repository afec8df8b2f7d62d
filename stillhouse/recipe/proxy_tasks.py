"""Proxy tasks: what an encoder that learnt from text is worth, by short fine-tunings."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.encoding import encode
from stillhouse.data.labels import abbreviated
from stillhouse.data.proxy import choose_proxy, missing_classes
from stillhouse.data.splits import split_task
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.data.task_names import form_of
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.terms import LabelTerm
from stillhouse.errors import DataError, RunError, SettingsError
from stillhouse.evaluate.metrics import constant_quality, score
from stillhouse.model.predict import predict
from stillhouse.model.students import build_student
from stillhouse.model.teachers import name_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.task import Task
    from stillhouse.distill.steps import Watch
    from stillhouse.model.precision import Precision
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.layer_map_settings import LayerMapSettings

KINDS = ("classes", "multi_label", "scores")
"""Kinds of tasks that a text, or a pair of texts, has one answer to."""
_FINGERPRINTS = "proxy_tasks_sha256"
_FORMS_OF_TOKENS = ("squad", "questions", "columns", "conllu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProxyTask:
    """A task that encoders are fine-tuned on briefly.

    Attributes:
        name: What the settings call it.
        task: The whole task.
        train: Examples to learn from, the same for every encoder.
        validation: Examples to score on, held out of the training set: dev stays unread.
    """

    name: str
    task: Task
    train: EncodedSet
    validation: EncodedSet

    @property
    def metric(self) -> str:
        """What the task is scored by."""
        return self.task.metrics[0]

    @property
    def constant(self) -> float:
        """Score of the best answer that is the same for every example."""
        gold, classes = self.validation.gold, self.task.output_count
        return constant_quality(self.metric, gold, classes=classes)

    @property
    def fingerprint(self) -> str:
        """Identifies the examples that are learnt from and scored on, a SHA-256."""
        parts = (self.train.fingerprint(), self.validation.fingerprint())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def score(self, model: PreTrainedModel, *, precision: Precision) -> float:
        """Scores a model of the task on search-validation by its primary metric, higher better."""
        logits = predict(model, self.validation, precision=precision)
        return score([self.metric], logits, self.validation.gold)[self.metric]


def load_proxy_tasks(settings: LayerMapSettings) -> dict[str, Task]:
    """Loads the proxy tasks by the names that the settings have for them; learns nothing.

    Raises:
        SettingsError: If one does not exist, or is neither a classification nor a regression.
        DataError: If one cannot be loaded.
    """
    return {name: _load(name, settings) for name in settings.tasks}


def _load(name: str, settings: LayerMapSettings) -> Task:
    asked = f"proxy task {name!r} (layer_map.tasks)"
    refusal = SettingsError(
        f"{asked} has tags of words or questions on passages: name tasks with one answer to a "
        "whole text, classifications or regressions"
    )
    try:
        form = form_of(name)
        if form in _FORMS_OF_TOKENS:  # known before anything is read
            raise refusal
        directory = settings.directory if form == "glue" else None
        task = load_task(TaskSettings(name=name, directory=directory))
    except DataError as error:
        raise DataError(
            f"{asked}: {error}. layer_map.directory names the folder of the GLUE tasks, "
            "layer_map.tasks other tasks, such as a table"
        ) from error
    if task.kind not in KINDS:
        raise refusal
    return task


def encode_proxy_task(
    name: str,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    settings: LayerMapSettings,
    *,
    longest: int,
    seed: int,
) -> ProxyTask:
    """Splits a proxy task and encodes what encoders learn from and are scored on.

    Args:
        name: What the settings call it.
        task: As loaded.
        tokenizer: Of teacher and students.
        settings: How many examples of each, and how long.
        longest: Most tokens that the students read.
        seed: Of the choice of examples.

    Raises:
        DataError: If the examples chosen lack a class.
    """
    splits = split_task(task, seed)
    most = min(settings.task_max_length, longest)

    def some(part: Dataset, count: int) -> EncodedSet:
        encoded = encode(part, tokenizer, max_length=most)
        chosen = choose_proxy(
            encoded.classes,
            total=len(encoded),
            count=min(count, len(encoded)),
            generator=np.random.default_rng([seed, 1]),
        )
        if missing := missing_classes(encoded.classes, chosen):
            raise DataError(
                f"{len(chosen)} examples of proxy task {name!r} hold none of class "
                f"{abbreviated([task.label_names[number] for number in missing])}: raise "
                "layer_map.task_examples and layer_map.task_validation"
            )
        return encoded.select(chosen)

    return ProxyTask(
        name=name,
        task=task,
        train=some(splits.train, settings.task_examples),
        validation=some(splits.validation, settings.task_validation),
    )


def refuse_other_tasks(run: RunDirectory, tasks: Sequence[ProxyTask]) -> None:
    """Compares the examples of proxy tasks with those that earlier maps were judged on.

    Raises:
        RunError: If they changed since.
    """
    found = {task.name: task.fingerprint for task in tasks}
    before = run.state().get(_FINGERPRINTS, found)
    changed = [name for name in found if before.get(name) != found[name]]
    if changed:
        raise RunError(
            f"run directory {run.path} has judged layer maps on other examples of "
            f"{', '.join(changed)} (layer_map.tasks): give the same data to resume it, or another "
            "directory with --run"
        )
    run.update_state({_FINGERPRINTS: found})


def finetuned_score(
    proxy: ProxyTask,
    encoder: PreTrainedModel,
    settings: TrainSettings,
    *,
    accelerator: Accelerator,
    watch: Watch,
) -> float:
    """Fine-tunes a copy of an encoder under a fresh head, and scores it on search-validation.

    Args:
        proxy: The task.
        encoder: A classifier, whose head is left behind; it stays as it is.
        settings: Of the fine-tuning; the seed draws the head as well.
        accelerator: Where it is trained.
        watch: Progress and the time limit.

    Returns:
        The task's primary metric, higher better.

    Raises:
        TrainingError: If the loss is not finite, or the deadline passed.
    """
    model = with_fresh_head(encoder, proxy.task, seed=settings.seed)
    train(
        model,
        proxy.train,
        [LabelTerm(kind=proxy.task.kind)],
        settings,
        accelerator=accelerator,
        watch=watch,
    )
    return proxy.score(model, precision=settings.precision)


def with_fresh_head(encoder: PreTrainedModel, task: Task, *, seed: int) -> PreTrainedModel:
    """Copies an encoder under a fresh head for a task.

    Args:
        encoder: A model with any head; it stays as it is.
        task: Gives kind and labels.
        seed: First weights of the head.
    """
    config = copy.deepcopy(encoder.config)
    config.num_labels = task.output_count
    model = build_student(config, seed=seed, kind=task.kind)
    # Families after RoBERTa have no pooler in a classifier.
    model.base_model.load_state_dict(encoder.base_model.state_dict(), strict=False)
    name_labels(model, task.label_names, kind=task.kind)
    return model


def proxy_training(settings: LayerMapSettings, *, precision: Precision, seed: int) -> TrainSettings:
    """Returns how proxy tasks are fine-tuned on."""
    return TrainSettings(
        epochs=settings.task_epochs,
        learning_rate=settings.task_learning_rate,
        batch_size=settings.task_batch_size,
        precision=precision,
        seed=seed,
    )
