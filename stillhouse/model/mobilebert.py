"""MobileBERTs as models: from an architecture to a configuration and back."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import MobileBertConfig, MobileBertForMaskedLM

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import first_position, label_names, layered_anatomy_of
from stillhouse.space.mobilebert import MobileBertArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def mobilebert_config(
    architecture: MobileBertArchitecture, teacher: PreTrainedConfig, *, dropout: float = 0.0
) -> MobileBertConfig:
    """Describes a MobileBERT with the teacher's vocabulary, positions, token types and labels.

    As in the published student, norms keep no statistics and the pooler has no projection. Where
    the attention is in the bottleneck, transformers would build a shared bottleneck that nothing
    reads; it is left out.

    Args:
        architecture: Shape of the student.
        teacher: The teacher's configuration, the source of everything that is not shape.
        dropout: Probability in hidden states and attention while training, 0..1.

    Raises:
        TeacherError: If the teacher's positions begin after its padding (RoBERTa and its kin):
            MobileBERT's begin at 0.
    """
    has_types = layered_anatomy_of(teacher).has_token_types
    if first_position(teacher):
        raise TeacherError(
            f"a teacher of {teacher.model_type} counts positions from {first_position(teacher)}, "
            "MobileBERT from 0: take a teacher after BERT"
        )
    names = label_names(teacher)
    return MobileBertConfig(
        vocab_size=teacher.vocab_size,
        max_position_embeddings=teacher.max_position_embeddings,
        type_vocab_size=teacher.type_vocab_size if has_types else 1,
        pad_token_id=teacher.pad_token_id,
        num_hidden_layers=architecture.layers,
        hidden_size=architecture.hidden_size,
        intra_bottleneck_size=architecture.bottleneck_size,
        num_attention_heads=architecture.heads,
        intermediate_size=architecture.ffn_size,
        num_feedforward_networks=architecture.ffn_count,
        embedding_size=architecture.embedding_size,
        use_bottleneck_attention=architecture.bottleneck_attention,
        key_query_shared_bottleneck=not architecture.bottleneck_attention,
        hidden_act=architecture.activation,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        classifier_dropout=dropout,
        classifier_activation=False,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type=teacher.problem_type,
    )


def build_mobilebert(
    config: MobileBertConfig, teacher: PreTrainedModel, *, seed: int
) -> MobileBertForMaskedLM:
    """Builds a student that scores masked words, with fresh weights but for its word embeddings.

    These begin as the teacher's, turned to their principal components, of which the student keeps
    as many as its embeddings are wide.

    Args:
        config: As `mobilebert_config` describes it.
        teacher: A bare encoder of the same vocabulary.
        seed: Of what is fresh.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Where embeddings are as wide as the layers, transformers' head has a part of no size.
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        torch.manual_seed(seed)
        student = MobileBertForMaskedLM(config)
    table, words = student.get_input_embeddings(), teacher.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    assert isinstance(words, nn.Embedding)
    with torch.no_grad():
        table.weight.copy_(_principal(words.weight.detach().cpu().double(), config.embedding_size))
    return student


def _principal(words_VD: Tensor, width: int) -> Tensor:
    """Turns a table so that its first columns say most, and keeps these; missing ones are 0."""
    _, axes_DD = torch.linalg.eigh(words_VD.T @ words_VD)  # the largest comes last
    kept_DE = axes_DD.flip(1)[:, :width]
    return F.pad(words_VD @ kept_DE, (0, width - kept_DE.shape[1]))


def mobilebert_of(config: MobileBertConfig) -> MobileBertArchitecture:
    """Returns the architecture that `config` describes.

    Raises:
        TeacherError: If it describes a network that is no student of ours, such as MobileBERT's own
            teacher, whose layers have no bottleneck for queries and keys.
        SpaceError: If its sizes break a rule.
    """
    expected: dict[str, object] = {
        "use_bottleneck": True,
        "trigram_input": True,
        "normalization_type": "no_norm",
        "hidden_act": MobileBertArchitecture.activation,
    }
    if not config.use_bottleneck_attention:
        expected["key_query_shared_bottleneck"] = True
    other = {name: getattr(config, name) for name in expected}
    if other != expected:
        told = ", ".join(
            f"{name} {other[name]!r} instead of {value!r}"
            for name, value in expected.items()
            if other[name] != value
        )
        raise TeacherError(f"this MobileBERT is of another build than students are: {told}")
    return MobileBertArchitecture(
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        bottleneck_size=config.intra_bottleneck_size,
        heads=config.num_attention_heads,
        ffn_size=config.intermediate_size,
        ffn_count=config.num_feedforward_networks,
        embedding_size=config.embedding_size,
        bottleneck_attention=config.use_bottleneck_attention,
    )
