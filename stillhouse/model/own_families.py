"""The families of ours, registered with transformers, and how their code travels with checkpoints.

They are BERT with a free head size, and chains of operations.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from stillhouse.model import modeling_chain_bert as chains
from stillhouse.model import modeling_free_head_bert as free_heads

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """One modelling file and what stands in it.

    Attributes:
        source: The file.
        config_class: Its configuration.
        classes: Its model for each class of transformers that loads models of any family.
    """

    source: Path
    config_class: type[PreTrainedConfig]
    classes: dict[Any, type]


_FREE_HEADS = _Family(
    source=Path(free_heads.__file__),
    config_class=free_heads.FreeHeadBertConfig,
    classes={
        AutoModel: free_heads.FreeHeadBertModel,
        AutoModelForMaskedLM: free_heads.FreeHeadBertForMaskedLM,
        AutoModelForQuestionAnswering: free_heads.FreeHeadBertForQuestionAnswering,
        AutoModelForSequenceClassification: free_heads.FreeHeadBertForSequenceClassification,
        AutoModelForTokenClassification: free_heads.FreeHeadBertForTokenClassification,
    },
)

_CHAINS = _Family(
    source=Path(chains.__file__),
    config_class=chains.ChainBertConfig,
    classes={
        AutoModel: chains.ChainBertModel,
        AutoModelForMaskedLM: chains.ChainBertForMaskedLM,
        AutoModelForQuestionAnswering: chains.ChainBertForQuestionAnswering,
        AutoModelForSequenceClassification: chains.ChainBertForSequenceClassification,
        AutoModelForTokenClassification: chains.ChainBertForTokenClassification,
    },
)

_FAMILIES = {family.config_class.model_type: family for family in (_FREE_HEADS, _CHAINS)}

for _family in _FAMILIES.values():
    AutoConfig.register(_family.config_class.model_type, _family.config_class)
    for _auto_class, _model_class in _family.classes.items():
        _auto_class.register(_family.config_class, _model_class)


def needs_code(config: PreTrainedConfig) -> bool:
    """Tells whether transformers alone could not load a model of this configuration."""
    return config.model_type in _FAMILIES


def add_code(folder: Path) -> None:
    """Puts the modelling file into a written checkpoint and names it in its `config.json`.

    The checkpoint then loads with `trust_remote_code=True` where stillhouse is not installed.

    Args:
        folder: A checkpoint of a model that needs code.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    family = _FAMILIES[config["model_type"]]
    shutil.copyfile(family.source, folder / family.source.name)
    module = family.source.stem
    config["auto_map"] = {
        "AutoConfig": f"{module}.{family.config_class.__name__}",
        **{
            auto_class.__name__: f"{module}.{model_class.__name__}"
            for auto_class, model_class in family.classes.items()
        },
    }
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
