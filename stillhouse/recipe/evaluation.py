"""Scoring a finished checkpoint on a task's dev set, alone or beside its teacher."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from stillhouse.data.encoding import encode
from stillhouse.errors import DataError
from stillhouse.evaluate.loyalty import loyalty
from stillhouse.export.checkpoint import known_max_length
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.heads import head_for
from stillhouse.model.predict import predict
from stillhouse.model.teachers import label_order_by_name, load_model, load_tokenizer
from stillhouse.recipe.scoring import own_gold, quality_facts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from stillhouse.data.answers import Gold
    from stillhouse.data.task import Task, TaskSettings
    from stillhouse.evaluate.loyalty import LogBase, Loyalty
    from stillhouse.model.heads import TaskHead

_WITH: dict[TaskHead, str] = {
    "classes": "of whole texts (ForSequenceClassification)",
    "tags": "of every word (ForTokenClassification)",
    "spans": "of first and last words of answers (ForQuestionAnswering)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a checkpoint.

    Attributes:
        task: Name of the task.
        scores: By metric; the primary one comes first.
        low: Lower end of the primary metric's 95 % bootstrap interval.
        high: Upper end of it.
        count: Examples, sentences or questions scored.
        labels: Of a tagging task precision, recall and F1 of every label, as plain data.
        loyalty: Agreement with the teacher's answers, where one was given.
    """

    task: str
    scores: Mapping[str, float]
    low: float
    high: float
    count: int
    labels: Sequence[Mapping[str, Any]] = field(default=())
    loyalty: Loyalty | None = None


def evaluate_checkpoint(
    name: str,
    task: Task,
    *,
    settings: TaskSettings,
    teacher: str | None = None,
    base: LogBase = "e",
) -> Evaluation:
    """Scores a checkpoint folder or hub id on the task's dev set, in float32.

    Args:
        name: The checkpoint.
        task: The task.
        settings: Most tokens of an example (fewer are read where the checkpoint was trained on
            fewer), and the overlap of the windows of a long passage.
        teacher: Checkpoint whose answers those of `name` are compared with.
        base: Of the logarithm in the probability loyalty.

    Raises:
        DataError: If the checkpoint's labels cannot be those of the task, or the teacher reads
            other tokens.
    """
    longest = known_max_length(name, settings.max_length)
    if teacher is not None:
        longest = min(longest, known_max_length(teacher, settings.max_length))
    logits, gold = _answers(name, task, settings=settings, longest=longest)
    facts = quality_facts(task.metrics, logits, gold, seed=0)
    agreement = None
    if teacher is not None:
        _check_same_tokens(name, teacher)
        theirs, teacher_gold = _answers(teacher, task, settings=settings, longest=longest)
        agreement = loyalty(logits, theirs, gold, seed=0, base=base, teacher_gold=teacher_gold)
    return Evaluation(
        task=task.name,
        scores=facts["scores"],
        low=facts["quality_low"],
        high=facts["quality_high"],
        count=facts["quality_count"],
        labels=facts.get("labels", ()),
        loyalty=agreement,
    )


def _answers(
    name: str, task: Task, *, settings: TaskSettings, longest: int
) -> tuple[NDArray[np.float32], Gold]:
    """Runs a checkpoint over dev; its outputs come in the task's order of labels."""
    model, has_head = load_model(name, kind=task.kind)
    labels = task.output_count
    if not has_head:
        raise DataError(
            f"{name} has no trained head for {task.name}, which takes a model "
            f"{_WITH[head_for(task.kind)]}: evaluate it on its own task, or fine-tune it first"
        )
    if model.config.num_labels != labels:
        raise DataError(
            f"{name} has {model.config.num_labels} outputs, the task {task.name} needs {labels}: "
            "evaluate it on its own task"
        )
    module: nn.Module = model
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    most = min(longest, usable_positions(model.config))
    dev = encode(task.dev, load_tokenizer(name), max_length=most, stride=settings.stride)
    logits = predict(model, dev)
    if task.label_names:
        order = label_order_by_name(model, task.label_names)
        if order is None:
            raise DataError(
                f"{name} has the labels {label_names(model.config)}, the task "
                f"{task.name} has {list(task.label_names)}: evaluate it on its own task"
            )
        logits = logits[:, list(order)]
    return logits, own_gold(model, dev)


def _check_same_tokens(name: str, teacher: str) -> None:
    if load_tokenizer(name).get_vocab() != load_tokenizer(teacher).get_vocab():
        raise DataError(
            f"{name} and {teacher} have other vocabularies, so that their answers to the same "
            "tokens cannot be compared: give the teacher that it was distilled from"
        )
