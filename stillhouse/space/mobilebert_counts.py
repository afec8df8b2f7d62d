"""Closed-form parameter and FLOP counts of MobileBERTs.

Letters in names: h hidden size, b bottleneck size, f feed-forward size, e embedding size.
"""

from stillhouse.space.mobilebert import MobileBertArchitecture

_TRIGRAM = 3
"""Neighbouring tokens whose embeddings are projected to one state."""
_NORM = 2
"""Numbers of a norm per dimension: a factor and a shift."""


def embedding_parameters(
    architecture: MobileBertArchitecture, *, vocab_size: int, positions: int, token_types: int
) -> int:
    """Count the token table, the projection of three neighbours, and what is added to it.

    MobileBERT always adds a token type; where the teacher has none it is the same one everywhere.
    """
    h, e = architecture.hidden_size, architecture.embedding_size
    projection = _TRIGRAM * e * h + h
    return vocab_size * e + projection + (positions + max(1, token_types) + _NORM) * h


def layer_parameters(architecture: MobileBertArchitecture) -> int:
    """Count weights and biases of one layer with its bottlenecks."""
    h, b, f = architecture.hidden_size, architecture.bottleneck_size, architecture.ffn_size
    down = _linear(h, b) + _NORM * b
    value = _linear(b if architecture.bottleneck_attention else h, b)
    attention = 2 * _linear(b, b) + value + _linear(b, b) + _NORM * b
    feed_forward = _linear(b, f) + _linear(f, b) + _NORM * b
    up = _linear(b, h) + _NORM * h
    downs = 1 if architecture.bottleneck_attention else 2
    return downs * down + attention + architecture.ffn_count * feed_forward + up


def layer_multiply_adds(architecture: MobileBertArchitecture, length: int) -> int:
    """Count the multiply-adds of one layer's matrix products for an example of `length` tokens."""
    h, b, f = architecture.hidden_size, architecture.bottleneck_size, architecture.ffn_size
    downs = 1 if architecture.bottleneck_attention else 2
    value = (b if architecture.bottleneck_attention else h) * b
    a_token = downs * h * b + 3 * b * b + value + architecture.ffn_count * 2 * b * f + b * h
    return length * a_token + 2 * length * length * b


def embedding_multiply_adds(architecture: MobileBertArchitecture, length: int) -> int:
    """Count the multiply-adds of the projection from embeddings to the residual stream."""
    return length * _TRIGRAM * architecture.embedding_size * architecture.hidden_size


def _linear(from_size: int, to_size: int) -> int:
    return from_size * to_size + to_size
