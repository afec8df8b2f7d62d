"""The one family of ours: BERT with a free head size, and how its code travels with checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from stillhouse.model import modeling_free_head_bert as code
from stillhouse.model.modeling_free_head_bert import FreeHeadBertConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CLASSES = {
    AutoModel: code.FreeHeadBertModel,
    AutoModelForMaskedLM: code.FreeHeadBertForMaskedLM,
    AutoModelForQuestionAnswering: code.FreeHeadBertForQuestionAnswering,
    AutoModelForSequenceClassification: code.FreeHeadBertForSequenceClassification,
    AutoModelForTokenClassification: code.FreeHeadBertForTokenClassification,
}

AutoConfig.register(FreeHeadBertConfig.model_type, FreeHeadBertConfig)
for _auto_class, _model_class in _CLASSES.items():
    _auto_class.register(FreeHeadBertConfig, _model_class)


def needs_code(config: PreTrainedConfig) -> bool:
    """Tells whether transformers alone could not load a model of this configuration."""
    return isinstance(config, FreeHeadBertConfig)


def add_code(folder: Path) -> None:
    """Puts the modelling file into a written checkpoint and names it in its `config.json`.

    The checkpoint then loads with `trust_remote_code=True` where stillhouse is not installed.
    """
    source = Path(code.__file__)
    shutil.copyfile(source, folder / source.name)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["auto_map"] = {
        "AutoConfig": f"{source.stem}.{FreeHeadBertConfig.__name__}",
        **{
            auto_class.__name__: f"{source.stem}.{model_class.__name__}"
            for auto_class, model_class in _CLASSES.items()
        },
    }
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
