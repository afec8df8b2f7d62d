"""Where each family of encoders keeps its layers and projections: the one table of names.

A family joins stillhouse by one more `Anatomy` here; nothing else asks how a model is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from stillhouse.errors import TeacherError
from stillhouse.space.architecture import Architecture, BertArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """Names of the parts of one family.

    Names of whole-model parts are paths from the sequence-classification model; names of layer
    parts are paths from one encoder layer.
    """

    base: str
    embeddings: str
    word_embeddings: str
    layers: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_input: str
    ffn_output: str
    ffn_norm: str
    pooler: str
    classifier: str


BERT = Anatomy(
    base="bert",
    embeddings="bert.embeddings",
    word_embeddings="bert.embeddings.word_embeddings",
    layers="bert.encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_norm="output.LayerNorm",
    pooler="bert.pooler.dense",
    classifier="classifier",
)

FAMILIES: dict[str, Anatomy] = {"bert": BERT}
"""Anatomy by `config.model_type`."""


def anatomy_of(config: PreTrainedConfig) -> Anatomy:
    """Returns the anatomy of the family that `config` belongs to.

    Raises:
        TeacherError: If the family is not in the table.
    """
    anatomy = FAMILIES.get(config.model_type)
    if anatomy is None:
        raise TeacherError(
            f"model type {config.model_type!r} is not supported; use one of: "
            f"{', '.join(sorted(FAMILIES))} (MiniLM checkpoints of BERT shape are 'bert')"
        )
    return anatomy


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """Returns the architecture that `config` describes."""
    anatomy_of(config)
    return BertArchitecture(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        ffn_size=config.intermediate_size,
        activation=config.hidden_act,
    )


def label_count(config: PreTrainedConfig) -> int:
    """Returns the number of outputs of the head: classes, or 1 for a score."""
    assert config.num_labels is not None
    return config.num_labels


def label_names(config: PreTrainedConfig) -> list[str]:
    """Returns the names of the outputs, in their order."""
    names = config.id2label or {}
    return [str(name) for _, name in sorted((int(index), name) for index, name in names.items())]


def encoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the encoder layers of a sequence-classification model, first to last."""
    layers = model.get_submodule(anatomy_of(model.config).layers)
    return list(layers.children())


def encoder_parameters(model: PreTrainedModel) -> int:
    """Counts the parameters of the encoder layers: no embeddings, no pooler, no classifier."""
    return sum(p.numel() for layer in encoder_layers(model) for p in layer.parameters())
