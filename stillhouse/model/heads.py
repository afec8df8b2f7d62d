"""Heads of tasks: the class of transformers that has one, how to tell it, and what it puts out.

Letters in names: B batch, T tokens, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

import stillhouse.model.own_families  # noqa: F401  registers them

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stillhouse.data.metric_names import TaskKind

TaskHead: TypeAlias = Literal["classes", "tags", "spans"]
"""What a head answers: a whole text, every token, or every token's being first and last."""

_OF_ENDINGS: dict[str, TaskHead] = {
    "ForSequenceClassification": "classes",
    "ForTokenClassification": "tags",
    "ForQuestionAnswering": "spans",
}


def head_for(kind: TaskKind) -> TaskHead:
    """Returns the head that models of a task have: classes, sets of them and scores share one."""
    match kind:
        case "classes" | "multi_label" | "scores":
            return "classes"
        case "tags" | "spans":
            return kind
        case _:
            assert_never(kind)


def auto_class_of(kind: TaskKind) -> Any:
    """Returns the class of transformers that builds and loads a task's models of any family."""
    match head_for(kind):
        case "classes":
            return AutoModelForSequenceClassification
        case "tags":
            return AutoModelForTokenClassification
        case "spans":
            return AutoModelForQuestionAnswering


def head_named(name: str) -> TaskHead | None:
    """Tells the head of a class of models by the class's name; `None` where it is no task's."""
    for ending, head in _OF_ENDINGS.items():
        if name.endswith(ending):
            return head
    return None


def head_of(model: nn.Module) -> TaskHead | None:
    """Tells the head of a model; `None` where it has none, or one that is no task's."""
    found = (head_named(one.__name__) for one in type(model).__mro__)
    return next((head for head in found if head is not None), None)


def answers_tokens(model: nn.Module) -> bool:
    """Tells whether a model's outputs are of every token, `[B, T, C]`, not of a text, `[B, C]`."""
    return head_of(model) in ("tags", "spans")


def outputs_of(output: Any) -> Tensor:
    """Returns what a model with a head gave, as one tensor.

    Args:
        output: What the model returned.

    Returns:
        Logits `[B, C]`, or `[B, T, C]` of every token; those of an answer's start and end are
        `[B, T, 2]`.
    """
    logits: Tensor | None = getattr(output, "logits", None)
    if logits is not None:
        return logits
    return torch.stack((output.start_logits, output.end_logits), dim=-1)
