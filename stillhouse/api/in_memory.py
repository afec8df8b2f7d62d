"""Teachers and tasks that are objects in memory, as settings and for a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.data.task import (
    IN_MEMORY,
    Task,
    task_from_dataset,
    usual_length,
)
from stillhouse.errors import SettingsError
from stillhouse.model.teachers import Teacher

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def with_usual_length(settings: Mapping[str, Any], task: Task | None) -> Mapping[str, Any]:
    """Lets examples of a task in memory be as long as is usual for its kind, unless it is said."""
    if task is None:
        return settings
    length = {"max_length": usual_length(task.kind)}
    return {**settings, "task": {**length, **settings.get("task", {})}}


def task_overrides(
    task: str | Task | Dataset | None, text: tuple[str, ...], label: str | None
) -> dict[str, Any]:
    """Says the task in settings; the columns of one in memory are no setting."""
    named = isinstance(task, str)
    overrides: dict[str, Any] = {}
    if task is not None:
        overrides["task.name"] = task if named else IN_MEMORY
    if (named or task is None) and text:
        overrides["task.text"] = list(text)
    if (named or task is None) and label is not None:
        overrides["task.label"] = label
    return overrides


def teacher_in_memory(
    model: str | PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None
) -> Teacher | None:
    """Returns a teacher that is an object, ready to be asked; nothing of a name.

    Raises:
        SettingsError: If it has no tokeniser, or is no classifier.
    """
    if model is None or isinstance(model, str):
        return None
    if tokenizer is None:
        raise SettingsError("a teacher in memory needs its tokenizer: pass tokenizer=...")
    if not hasattr(model, "classifier"):
        raise SettingsError(
            f"a teacher in memory must be a sequence-classification model, got "
            f"{type(model).__name__}"
        )
    # A copy, because a teacher is frozen, and its outputs may be put into another order.
    return Teacher(
        name=IN_MEMORY, model=copy.deepcopy(model), tokenizer=tokenizer, has_trained_head=True
    )


def task_in_memory(
    task: str | Task | Dataset | None, text: tuple[str, ...], label: str | None
) -> Task | None:
    """Returns a task that is an object, ready to be used; nothing of a name.

    Raises:
        SettingsError: If it is a dataset, and its columns are not named.
    """
    if task is None or isinstance(task, str):
        return None
    if isinstance(task, Task):
        return task
    if not text or label is None:
        raise SettingsError(
            "a Dataset as task needs its columns: pass text=('sentence',), label='label', for tags "
            "text=('tokens',), label='ner_tags', for questions text=('question', 'context'), "
            f"label='answers'; it has {task.column_names}"
        )
    return task_from_dataset(task, text=text, label=label)
