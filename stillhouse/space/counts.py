"""Closed-form parameter and FLOP counts of encoders with a head.

Attention may be narrower or wider than the layers: its projections lead from `hidden_size` to
`attention_width` and back.
"""

from dataclasses import dataclass

from stillhouse.space.architecture import Architecture
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.mobilebert_counts import (
    embedding_multiply_adds,
    embedding_parameters,
    layer_multiply_adds,
    layer_parameters,
)

_FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Trainable numbers by part: embeddings, encoder layers, and the projections of the head.

    A projection from narrower embeddings to the hidden size counts as embeddings.
    """

    embeddings: int
    encoder: int
    head: int

    @property
    def total(self) -> int:
        """All parameters of the model."""
        return self.embeddings + self.encoder + self.head


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """What a model has beside its encoder layers: embeddings before, the head behind.

    Attributes:
        vocab_size: Rows of the word embedding.
        positions: Rows of the position embedding.
        token_types: Rows of the token type embedding; 0 where there is none.
        labels: Outputs of the head (1 for regression, 2 for start and end of an answer; 0 for an
            encoder and its pooler alone).
        factored_size: Width of the embeddings where it need not be the hidden size; they are then
            projected to it. `None` for embeddings of the hidden size.
        answers_tokens: Whether the head gives outputs for every token; it is one projection then.
            Else it reads the first token's state through one more, the pooler's.
    """

    vocab_size: int
    positions: int
    token_types: int
    labels: int
    factored_size: int | None = None
    answers_tokens: bool = False

    @property
    def rows(self) -> int:
        """Rows of all embedding tables together."""
        return self.vocab_size + self.positions + self.token_types

    def needs_projection(self, hidden_size: int) -> bool:
        """Tell whether layers of `hidden_size` get the embeddings through a projection."""
        return self.factored_size not in (None, hidden_size)

    def head_parameters(self, hidden_size: int, *, has_pooler: bool = True) -> int:
        """Count weights and biases of the head.

        Args:
            hidden_size: Width of the last layer.
            has_pooler: Whether heads that read the first token alone begin with a projection.
        """
        outputs = hidden_size * self.labels + self.labels
        is_pooled = has_pooler and not self.answers_tokens
        return outputs + (hidden_size * hidden_size + hidden_size if is_pooled else 0)

    def head_multiply_adds(self, hidden_size: int, *, length: int, has_pooler: bool = True) -> int:
        """Count the multiply-adds of the head for an example of `length` tokens."""
        outputs = hidden_size * self.labels
        if self.answers_tokens:
            return length * outputs
        return outputs + (hidden_size * hidden_size if has_pooler else 0)


def count_encoder_parameters(architecture: Architecture) -> int:
    """Count weights and biases of the encoder layers alone, without embeddings and head.

    Args:
        architecture: The network to count.

    Returns:
        Number of parameters.
    """
    if isinstance(architecture, MobileBertArchitecture):
        return architecture.layers * layer_parameters(architecture)
    width, inner = architecture.hidden_size, architecture.ffn_size
    heads = architecture.attention_width
    attention = 3 * (width * heads + heads) + (heads * width + width)  # query, key, value; output
    feed_forward = (width * inner + inner) + (inner * width + width)
    layer_norms = 2 * (2 * width)
    return architecture.layers * (attention + feed_forward + layer_norms)


def count_parameters(architecture: Architecture, ends: Ends) -> ParameterCount:
    """Count the parameters of a plain encoder with its head.

    A MobileBERT that classifies reads the first token's state as it is, as the published one.

    Args:
        architecture: The network to count.
        ends: Its embeddings and head.

    Returns:
        Parameters by part.
    """
    width = architecture.hidden_size
    if isinstance(architecture, MobileBertArchitecture):
        return ParameterCount(
            embeddings=embedding_parameters(
                architecture,
                vocab_size=ends.vocab_size,
                positions=ends.positions,
                token_types=ends.token_types,
            ),
            encoder=count_encoder_parameters(architecture),
            head=ends.head_parameters(width, has_pooler=False),
        )
    narrow = ends.factored_size or width
    projection = narrow * width + width if ends.needs_projection(width) else 0
    layer_norm = 2 * narrow
    return ParameterCount(
        embeddings=ends.rows * narrow + layer_norm + projection,
        encoder=count_encoder_parameters(architecture),
        head=ends.head_parameters(width),
    )


def count_flops(architecture: Architecture, ends: Ends, *, length: int) -> int:
    """Count the floating-point operations of one example, two per multiply-add.

    Counted are the matrix products: projections, attention scores and context, feed-forward, and
    the head. Embedding look-ups and element-wise work are left out.

    Args:
        architecture: The network to count.
        ends: Its embeddings and head.
        length: Tokens of the example, padding included.

    Returns:
        FLOPs of one forward pass with batch size 1.
    """
    if isinstance(architecture, MobileBertArchitecture):
        layers = architecture.layers * layer_multiply_adds(architecture, length)
        ahead = embedding_multiply_adds(architecture, length)
        head = ends.head_multiply_adds(architecture.hidden_size, length=length, has_pooler=False)
        return _FLOPS_PER_MULTIPLY_ADD * (ahead + layers + head)
    width, inner = architecture.hidden_size, architecture.ffn_size
    heads = architecture.attention_width
    projections = 4 * length * width * heads
    scores_and_context = 2 * length * length * heads
    feed_forward = 2 * length * width * inner
    head = ends.head_multiply_adds(width, length=length)
    narrow = ends.factored_size or width
    embeddings = length * narrow * width if ends.needs_projection(width) else 0
    layer = projections + scores_and_context + feed_forward
    return _FLOPS_PER_MULTIPLY_ADD * (embeddings + architecture.layers * layer + head)
