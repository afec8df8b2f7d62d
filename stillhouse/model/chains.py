"""Chains as models: from an architecture to a configuration and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.model.anatomy import (
    first_position,
    label_names,
    layered_anatomy_of,
)
from stillhouse.model.modeling_chain_bert import ChainBertConfig
from stillhouse.space.chain import ChainArchitecture, ChainBlock

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


_LAYER_NORM_EPS = 1e-12
"""That of families whose configuration does not name it."""


def chain_config(
    architecture: ChainArchitecture, teacher: PreTrainedConfig, *, dropout: float = 0.0
) -> ChainBertConfig:
    """Describes a chain with the teacher's vocabulary, positions, token types and labels.

    Args:
        architecture: Shape of the chain.
        teacher: The teacher's configuration, the source of everything that is not shape.
        dropout: Probability in hidden states and attention while training, 0..1.

    Raises:
        TeacherError: If the teacher's family is not supported, or it is a chain itself.
    """
    has_types = layered_anatomy_of(teacher).has_token_types
    names = label_names(teacher)
    return ChainBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        position_offset=first_position(teacher),
        type_vocab_size=teacher.type_vocab_size if has_types else 0,
        pad_token_id=teacher.pad_token_id,
        bos_token_id=teacher.bos_token_id,
        eos_token_id=teacher.eos_token_id,
        layer_norm_eps=getattr(teacher, "layer_norm_eps", _LAYER_NORM_EPS),
        embedding_size=architecture.embedding_size,
        blocks=[
            {"hidden_size": block.hidden_size, "operations": list(block.operations)}
            for block in architecture.blocks
        ],
        head_size=architecture.head_size,
        ffn_ratio=architecture.ffn_ratio,
        hidden_act=architecture.activation,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        classifier_dropout=dropout,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=teacher.problem_type,
    )


def chain_of(config: ChainBertConfig) -> ChainArchitecture:
    """Returns the architecture that `config` describes.

    Raises:
        SpaceError: If no chain of ours has such a shape or activation.
    """
    return ChainArchitecture(
        embedding_size=config.embedding_size,
        blocks=tuple(
            ChainBlock(hidden_size=block["hidden_size"], operations=tuple(block["operations"]))
            for block in config.blocks
        ),
        head_size=config.head_size,
        ffn_ratio=config.ffn_ratio,
        activation=config.hidden_act,
    )
