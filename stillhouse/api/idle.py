"""Settings that a job does not read are refused, where a user may expect it to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillhouse.errors import SettingsError
from stillhouse.run.settings import (
    RunSettings,
    settings_from_dict,
)

IDLE_WITHOUT_TRIALS = (
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "search.ask",
    "search.objectives",
    "transfer.rungs",
    "distill.initialisation",
    "distill.kept_layers",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.embeddings",
    "distill.layer_map",
    "quantise.weight_bits",
    "compare",
)
IDLE_IN_PLAIN_JOBS = (
    "distill.logit_weight",
    "distill.temperature",
    "distill.label_weight",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.learning_rate",
    "distill.batch_size",
    "finetune.epochs",
    "final.epochs",
    "search.epochs",
)
IDLE_ON_TASKS = ("transfer.rungs", "transfer.reduction")
IDLE_WITHOUT_REWARD = ("search.alpha", "search.beta")
IDLE_ON_TEXT = (
    "search.quality",
    "search.proxy_examples",
    "search.epochs",
    "final.epochs",
    "final.controls",
    "final.noise_candidates",
    "space.base",
    "space.size_fraction",
    "space.size_count",
    "pretrain.start",
    "distill.initialisation",
    "distill.kept_layers",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.embeddings",
    "distill.layer_map",
    "quantise.weight_bits",
)
IDLE_WITHOUT_TASK = (
    "task.name",
    "task.text",
    "task.label",
    "task.dev",
    "task.metric",
    "task.unlabelled",
    "teacher.finetune",
    "teacher.epochs",
    "teacher.learning_rates",
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "search.proxy_examples",
    "search.epochs",
    "search.ask",
    "search.objectives",
    "search.quality",
    "search.alpha",
    "search.beta",
    "final.students",
    "final.controls",
    "final.noise_candidates",
    "distill.temperature",
    "quantise.weight_bits",
    "compare",
)
_IDLE_ON_ITS_TASK = (
    "layer_map.sequences",
    "layer_map.epochs",
    "layer_map.tasks",
    "layer_map.directory",
    "layer_map.task_examples",
    "layer_map.task_validation",
    "layer_map.task_epochs",
    "layer_map.task_learning_rate",
    "layer_map.task_batch_size",
    "layer_map.task_max_length",
)
IDLE_WITHOUT_PROXY_TASKS = (
    "corpus.name",
    *_IDLE_ON_ITS_TASK,
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "search.ask",
    "search.objectives",
    "search.quality",
    "search.alpha",
    "search.beta",
    "final.students",
    "final.controls",
    "final.noise_candidates",
    "compare",
)
"""Settings that a recipe does not read, of those that a user may expect it to."""


def refuse_idle_settings(
    settings: RunSettings, names: Sequence[str], why: str, *, job: str | None = None
) -> None:
    """Refuses settings that would do nothing in a recipe, or in a job that is none.

    Args:
        settings: Those of the run.
        names: Paths such as `search.epochs` that the recipe does not read.
        why: What it does instead, for the message.
        job: Its name, where that is not the recipe's.
    """
    given, default = (
        one.to_dict() for one in (settings, settings_from_dict({"recipe": settings.recipe}))
    )
    different = {name: _at(given, name) for name in names if _at(given, name) != _at(default, name)}
    idle = [
        f"{name} = {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in different.items()
    ]
    if idle:
        raise SettingsError(
            f"{job or settings.recipe} has no use for {', '.join(idle)}: {why}. Leave that out"
        )


def refuse_idle_parts(settings: RunSettings, *, job: str | None = None) -> None:
    """Refuses settings of a part of the objective, or of a search for maps, that is not in use."""
    if not settings.distill.hidden_weight and settings.search.quality != "hidden":
        refuse_idle_settings(
            settings,
            ("distill.embeddings",),
            "embeddings are compared among the hidden states, whose distill.hidden_weight is 0",
            job=job,
        )
    if settings.distill.layer_map == "search" and settings.recipe != "layer-map":
        refuse_idle_settings(
            settings,
            ("layer_map.judge", *_IDLE_ON_ITS_TASK),
            "on a task, layer maps are judged on the task itself (search.proxy_examples, "
            "search.epochs); on text and proxy tasks `stillhouse search layer-map` does it",
            job=job,
        )


def _at(data: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        data = data[key]
    return data
