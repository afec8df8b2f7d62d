"""stillhouse: search student architectures with distillation as the judge, under a device limit.

The public names load their modules at first use, so that importing the package is quick and has
no effects.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse import benchmark
    from stillhouse.api import (
        FinetuneResult,
        SearchResult,
        Student,
        evaluate,
        export_onnx,
        finetune,
        measure,
        search,
    )
    from stillhouse.data.task import Task, load_task, task_from_dataset
    from stillhouse.device.latency import Device, Latency, Workload
    from stillhouse.distill.terms import Term
    from stillhouse.errors import StillhouseError
    from stillhouse.export.word_tagger import load_word_tagger
    from stillhouse.model.anatomy import add_family
    from stillhouse.recipe.exporting import OnnxExport
    from stillhouse.recipe.measuring import MeasureSettings
    from stillhouse.recipe.own_parts import OwnParts
    from stillhouse.search.optuna_strategy import OptunaStrategy
    from stillhouse.search.pareto import pareto_front
    from stillhouse.search.strategy import Strategy
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import BertArchitecture
    from stillhouse.space.default import default_space
    from stillhouse.space.search_space import Dimension, SearchSpace

__all__ = [
    "BertArchitecture",
    "Device",
    "Dimension",
    "FinetuneResult",
    "Latency",
    "MeasureSettings",
    "OnnxExport",
    "OptunaStrategy",
    "OwnParts",
    "SearchResult",
    "SearchSpace",
    "StillhouseError",
    "Strategy",
    "Student",
    "Task",
    "Term",
    "Trial",
    "Workload",
    "add_family",
    "benchmark",
    "default_space",
    "evaluate",
    "export_onnx",
    "finetune",
    "load_task",
    "load_word_tagger",
    "measure",
    "pareto_front",
    "search",
    "task_from_dataset",
]

_HOMES = {
    "BertArchitecture": "space.architecture",
    "Device": "device.latency",
    "Dimension": "space.search_space",
    "FinetuneResult": "api",
    "Latency": "device.latency",
    "MeasureSettings": "recipe.measuring",
    "OnnxExport": "recipe.exporting",
    "OptunaStrategy": "search.optuna_strategy",
    "OwnParts": "recipe.own_parts",
    "SearchResult": "api",
    "SearchSpace": "space.search_space",
    "StillhouseError": "errors",
    "Strategy": "search.strategy",
    "Student": "api",
    "Task": "data.task",
    "Term": "distill.terms",
    "Trial": "search.trial",
    "Workload": "device.latency",
    "add_family": "model.anatomy",
    "default_space": "space.default",
    "evaluate": "api",
    "export_onnx": "api",
    "finetune": "api",
    "load_task": "data.task",
    "load_word_tagger": "export.word_tagger",
    "measure": "api",
    "pareto_front": "search.pareto",
    "search": "api",
    "task_from_dataset": "data.task",
}


_ROOMS = ("benchmark",)
"""Rooms that are public as a whole."""


class _Package(ModuleType):
    """This package, in which `search` and `evaluate` are the functions, not the rooms so named.

    Python makes an imported submodule an attribute of its package, which would hide the function.
    `from stillhouse.search.trial import Trial` finds the room without the attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        """Leaves out what would hide a public name."""
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Loads a public name at its first use."""
    if name in _ROOMS:
        return import_module(f"stillhouse.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'stillhouse' has no attribute {name!r}")
    return getattr(import_module(f"stillhouse.{_HOMES[name]}"), name)
