"""How transformers builds each family of encoders: the one table of names.

A family joins stillhouse by one more `Anatomy` here, or from outside by `add_family`; nothing else
asks how a model is built.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from stillhouse.errors import TeacherError
from stillhouse.model.heads import head_for
from stillhouse.space.architecture import ACTIVATIONS, BertArchitecture
from stillhouse.space.counts import Ends

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.data.metric_names import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What every family has: names of parts around the layers, and its rules for inputs.

    Names of parts are paths from the model with a head. That of a sequence classifier is a
    projection of the width onto itself and one onto the outputs; heads that read every token are
    one onto the outputs alone, which all families call the same.

    Attributes:
        factored_projection: Projection from the width of the embeddings to that of all layers, or
            `None` in a family without it.
        layers: List of the layers, or of the blocks of a chain.
        head_projection: First projection of a sequence classifier.
        head_outputs: Its second one.
        tag_outputs: Projection of every token onto tags.
        span_outputs: Projection of every token onto start and end of an answer.
        activation: Configuration's name of the activation.
        dropouts: Configuration's names of every dropout in a model with a head.
        shared: Configuration's names of what a student takes over from its teacher as it is.
        has_token_types: Whether the model tells the two texts of a pair apart.
        positions_follow_padding: Whether the first token's position is that after `pad_token_id`.
    """

    embeddings: str
    factored_projection: str | None
    layers: str
    head_projection: str
    head_outputs: str
    activation: str
    dropouts: tuple[str, ...]
    shared: tuple[str, ...]
    has_token_types: bool
    positions_follow_padding: bool
    tag_outputs: str = "classifier"
    span_outputs: str = "qa_outputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayeredAnatomy(Anatomy):
    """A family whose layers are all attention and feed-forward: it has teachers and slices.

    Names of layer parts are paths from one encoder layer.

    Attributes:
        ffn_size: Configuration's name of the feed-forward size.
    """

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    ffn_input: str
    ffn_output: str
    ffn_norm: str
    ffn_size: str


BERT = LayeredAnatomy(
    embeddings="bert.embeddings",
    factored_projection=None,
    layers="bert.encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    ffn_input="intermediate.dense",
    ffn_output="output.dense",
    ffn_norm="output.LayerNorm",
    head_projection="bert.pooler.dense",
    head_outputs="classifier",
    ffn_size="intermediate_size",
    activation="hidden_act",
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    shared=(
        "vocab_size",
        "max_position_embeddings",
        "type_vocab_size",
        "pad_token_id",
        "layer_norm_eps",
    ),
    has_token_types=True,
    positions_follow_padding=False,
)

ROBERTA = replace(
    BERT,
    embeddings="roberta.embeddings",
    layers="roberta.encoder.layer",
    head_projection="classifier.dense",
    head_outputs="classifier.out_proj",
    shared=(*BERT.shared, "bos_token_id", "eos_token_id"),
    positions_follow_padding=True,
)

ELECTRA = replace(
    BERT,
    embeddings="electra.embeddings",
    factored_projection="electra.embeddings_project",
    layers="electra.encoder.layer",
    head_projection="classifier.dense",
    head_outputs="classifier.out_proj",
)

DISTILBERT = LayeredAnatomy(
    embeddings="distilbert.embeddings",
    factored_projection=None,
    layers="distilbert.transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    ffn_input="ffn.lin1",
    ffn_output="ffn.lin2",
    ffn_norm="output_layer_norm",
    head_projection="pre_classifier",
    head_outputs="classifier",
    ffn_size="hidden_dim",
    activation="activation",
    dropouts=("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"),
    shared=("vocab_size", "max_position_embeddings", "pad_token_id", "sinusoidal_pos_embds"),
    has_token_types=False,
    positions_follow_padding=False,
)

CHAIN = Anatomy(
    embeddings=BERT.embeddings,
    factored_projection=None,
    layers="bert.encoder.block",
    head_projection=BERT.head_projection,
    head_outputs=BERT.head_outputs,
    activation=BERT.activation,
    dropouts=BERT.dropouts,
    shared=BERT.shared,
    has_token_types=True,
    positions_follow_padding=False,
)

MOBILEBERT = replace(
    CHAIN,
    embeddings="mobilebert.embeddings",
    layers="mobilebert.encoder.layer",
    head_projection="mobilebert.pooler.dense",
    shared=("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id"),
)
"""Without the pooler's projection, which the published model has not, the head reads the first
state as it is."""

FAMILIES: dict[str, Anatomy] = {
    "bert": BERT,
    "camembert": ROBERTA,
    "chain_bert": CHAIN,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "free_head_bert": BERT,
    "mobilebert": MOBILEBERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
}
"""Anatomy by `config.model_type`."""
_ONLY_STUDENTS = {
    "chain_bert": "is a chain of operations",
    "mobilebert": "has its layers in bottlenecks",
}


def add_family(model_type: str, anatomy: Anatomy) -> None:
    """Lets models of a further family be teachers and students, in this process.

    Args:
        model_type: What their `config.model_type` says.
        anatomy: Where the family keeps its parts; often another one's with some names replaced.

    Raises:
        TeacherError: If there is another anatomy for it.
    """
    if FAMILIES.setdefault(model_type, anatomy) != anatomy:
        raise TeacherError(
            f"model type {model_type!r} has another anatomy already: a family is added once"
        )


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


def layered_anatomy_of(config: PreTrainedConfig) -> LayeredAnatomy:
    """Returns the anatomy of a family that teachers and slices can be of.

    Raises:
        TeacherError: If the family is not in the table, or is one of students only.
    """
    anatomy = anatomy_of(config)
    if not isinstance(anatomy, LayeredAnatomy):
        layered = [name for name, one in FAMILIES.items() if isinstance(one, LayeredAnatomy)]
        raise TeacherError(
            f"model type {config.model_type!r} {_ONLY_STUDENTS[config.model_type]}: it can be "
            "fine-tuned and evaluated, but not be a teacher or be cut into students, whose layers "
            f"are plain ones, all alike; use one of: {', '.join(sorted(layered))}"
        )
    return anatomy


def architecture_of(config: PreTrainedConfig) -> BertArchitecture:
    """Returns the architecture that `config` describes.

    Raises:
        TeacherError: If the family is not in the table or is one of students only, or no student
            can have the activation.
    """
    anatomy = layered_anatomy_of(config)
    activation = getattr(config, anatomy.activation)
    if activation not in ACTIVATIONS:
        raise TeacherError(
            f"activation {activation!r} is not supported; a teacher and its students have one of: "
            f"{', '.join(ACTIVATIONS)}"
        )
    return BertArchitecture(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        head_size=getattr(config, "head_size", None),
        ffn_size=getattr(config, anatomy.ffn_size),
        activation=activation,
    )


def head_paths(config: PreTrainedConfig, kind: TaskKind) -> tuple[str, ...]:
    """Returns where the parts of a task's head are in its models, that onto the outputs last."""
    anatomy = anatomy_of(config)
    match head_for(kind):
        case "classes":
            return (anatomy.head_projection, anatomy.head_outputs)
        case "tags":
            return (anatomy.tag_outputs,)
        case "spans":
            return (anatomy.span_outputs,)


def ends_of(config: PreTrainedConfig, kind: TaskKind = "classes") -> Ends:
    """Returns what a model has beside its encoder layers, and its students have as well.

    Args:
        config: Of the model; it does not say which head it has.
        kind: Task that the head is for.
    """
    has_types = anatomy_of(config).has_token_types
    return Ends(
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        token_types=config.type_vocab_size if has_types else 0,
        labels=label_count(config),
        factored_size=factored_size(config),
        answers_tokens=head_for(kind) != "classes",
    )


def factored_size(config: PreTrainedConfig) -> int | None:
    """Returns the width of embeddings that are projected to that of the layers, else `None`."""
    if anatomy_of(config).factored_projection is None:
        return None
    size: int = config.embedding_size
    return None if size == config.hidden_size else size


def first_position(config: PreTrainedConfig) -> int:
    """Returns the row of the position table that is a text's first token's.

    In the families after RoBERTa the rows up to that of the padding are never a token's.
    """
    if anatomy_of(config).positions_follow_padding:
        after: int = config.pad_token_id + 1
        return after
    offset: int = getattr(config, "position_offset", 0)
    return offset


def usable_positions(config: PreTrainedConfig) -> int:
    """Returns the number of tokens that a model can read at once."""
    rows: int = config.max_position_embeddings
    return rows - first_position(config)


def label_count(config: PreTrainedConfig) -> int:
    """Returns the number of outputs of the head: classes, 1 for a score, 2 for start and end."""
    assert config.num_labels is not None
    return config.num_labels


def label_names(config: PreTrainedConfig) -> list[str]:
    """Returns the names of the outputs, in their order."""
    names = config.id2label or {}
    return [str(name) for _, name in sorted((int(index), name) for index, name in names.items())]


def encoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Returns the layers of a model with a head, or a chain's blocks, in order."""
    layers = model.get_submodule(anatomy_of(model.config).layers)
    return list(layers.children())


def encoder_parameters(model: PreTrainedModel) -> int:
    """Counts the parameters of the encoder layers: no embeddings, no pooler, no classifier.

    The bridges of a chain count: its blocks begin with them.
    """
    return sum(p.numel() for layer in encoder_layers(model) for p in layer.parameters())
