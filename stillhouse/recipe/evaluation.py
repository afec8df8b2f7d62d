"""Scoring a finished checkpoint on a task's dev set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from stillhouse.data.encoding import encode
from stillhouse.errors import DataError
from stillhouse.evaluate.metrics import bootstrap, score
from stillhouse.export.checkpoint import known_max_length
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.predict import predict
from stillhouse.model.teachers import label_order_by_name, load_model, load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stillhouse.data.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a checkpoint.

    Attributes:
        task: Name of the task.
        scores: By metric; the primary one comes first.
        low: Lower end of the primary metric's 95 % bootstrap interval.
        high: Upper end of it.
        count: Examples scored.
    """

    task: str
    scores: Mapping[str, float]
    low: float
    high: float
    count: int


def evaluate_checkpoint(name: str, task: Task, *, max_length: int) -> Evaluation:
    """Scores a checkpoint folder or hub id on the task's dev set, in float32.

    Args:
        name: The checkpoint.
        task: The task.
        max_length: Most tokens of an example; fewer where the checkpoint was trained on fewer.

    Raises:
        DataError: If the checkpoint's labels cannot be those of the task.
    """
    model, has_head = load_model(name)
    labels = task.output_count
    if not has_head or model.config.num_labels != labels:
        raise DataError(
            f"{name} has {'no trained head' if not has_head else model.config.num_labels} "
            f"outputs, the task {task.name} needs {labels}: evaluate it on its own task"
        )
    module: nn.Module = model
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    longest = min(known_max_length(name, max_length), usable_positions(model.config))
    dev = encode(task.dev, load_tokenizer(name), max_length=longest)
    logits_NC = predict(model, dev)
    if task.label_names:
        order = label_order_by_name(model, task.label_names)
        if order is None:
            raise DataError(
                f"{name} has the labels {label_names(model.config)}, the task "
                f"{task.name} has {list(task.label_names)}: evaluate it on its own task"
            )
        logits_NC = logits_NC[:, list(order)]
    assert dev.labels is not None
    low, high = bootstrap(task.metrics[0], logits_NC, dev.labels, seed=0)
    return Evaluation(
        task=task.name,
        scores=score(task.metrics, logits_NC, dev.labels),
        low=low,
        high=high,
        count=len(dev),
    )
