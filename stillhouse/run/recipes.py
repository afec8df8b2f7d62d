"""Recipes as settings: what a published method changes of the defaults, before the user's word."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

RecipeName: TypeAlias = Literal[
    "plain", "kd-nas", "autodistil", "nas-bert", "autodistill", "general", "layer-map"
]

RECIPE_NAMES: tuple[str, ...] = get_args(RecipeName)
SEARCHING = tuple(name for name in RECIPE_NAMES if name != "general")
"""Recipes of `stillhouse search`; what is left is one of `stillhouse distill`."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "kd-nas": {
        "space": {"base": "kd-nas-wide"},
        "search": {"strategy": "controller"},
        # Soft labels and the hidden-state loss, as the first version of the paper is understood.
        "distill": {"hidden_weight": 1.0, "layer_map": "uniform_last"},
        # Eight are trained to the end, the fewest from which a rank correlation can be told.
        "final": {"students": 4, "controls": 4, "noise_candidates": 8},
    },
    # Supernets and a corpus have sections of their own, whose defaults are this method's.
    "autodistil": {},
    "nas-bert": {},
    # What TinyBERT learns on plain text: everything but the outputs of a head.
    "general": {
        "distill": {
            "logit_weight": 0.0,
            "hidden_weight": 1.0,
            "attention_weight": 1.0,
            "embeddings": True,
        },
    },
    # The same objective, by the map that is searched.
    "layer-map": {
        "distill": {
            "logit_weight": 0.0,
            "hidden_weight": 1.0,
            "attention_weight": 1.0,
            "embeddings": True,
            "layer_map": "search",
        },
    },
    # A head learns from nothing but outputs, so there are these as well.
    "layer-map on a task": {
        "distill": {
            "hidden_weight": 1.0,
            "attention_weight": 1.0,
            "embeddings": True,
            "layer_map": "search",
        },
    },
    # Students learn without dropout, as MobileBERT does; the paper reports seven models.
    "autodistill": {
        "search": {"strategy": "gp"},
        "pretrain": {"dropout": 0.0},
        "final": {"students": 7},
    },
}


def with_recipe(data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings with the defaults of their recipe filled in; what is given wins.

    Args:
        data: Settings as plain data; `recipe` names the recipe. An unknown one changes nothing
            here and is refused where settings are validated.
    """
    name = data.get("recipe", "plain")
    wanted = data.get("layer_map")
    if name == "layer-map" and isinstance(wanted, Mapping) and wanted.get("judge") == "task":
        name = "layer-map on a task"
    defaults = _DEFAULTS.get(name, {}) if isinstance(name, str) else {}
    merged: dict[str, Any] = copy.deepcopy(defaults)
    for key, value in data.items():
        section = merged.get(key)
        both = isinstance(section, dict) and isinstance(value, Mapping)
        merged[key] = {**section, **value} if both and section is not None else value
    return merged
