"""Closed-form parameter and FLOP counts of a BERT sequence classifier.

Letters: V vocabulary, H hidden size, F feed-forward size, L layers, T tokens, C labels.
"""

from dataclasses import dataclass

from stillhouse.space.architecture import Architecture

_FLOPS_PER_MULTIPLY_ADD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Trainable numbers by part: embeddings, encoder layers, and pooler with classifier."""

    embeddings: int
    encoder: int
    head: int

    @property
    def total(self) -> int:
        """All parameters of the classifier."""
        return self.embeddings + self.encoder + self.head


def count_encoder_parameters(architecture: Architecture) -> int:
    """Count weights and biases of the encoder layers alone, without embeddings and head.

    Args:
        architecture: The network to count.

    Returns:
        Number of parameters.
    """
    width, inner = architecture.hidden_size, architecture.ffn_size
    attention = 4 * (width * width + width)  # query, key, value, output
    feed_forward = (width * inner + inner) + (inner * width + width)
    layer_norms = 2 * (2 * width)
    return architecture.layers * (attention + feed_forward + layer_norms)


def count_parameters(
    architecture: Architecture,
    *,
    vocab_size: int,
    positions: int,
    type_vocabulary: int,
    labels: int,
) -> ParameterCount:
    """Count the parameters of a plain `BertForSequenceClassification`.

    Args:
        architecture: The network to count.
        vocab_size: Rows of the word embedding.
        positions: Rows of the position embedding.
        type_vocabulary: Rows of the token type embedding.
        labels: Outputs of the classifier (1 for regression).

    Returns:
        Parameters by part.
    """
    width = architecture.hidden_size
    layer_norm = 2 * width
    return ParameterCount(
        embeddings=(vocab_size + positions + type_vocabulary) * width + layer_norm,
        encoder=count_encoder_parameters(architecture),
        head=(width * width + width) + (width * labels + labels),  # pooler, classifier
    )


def count_flops(architecture: Architecture, *, length: int, labels: int) -> int:
    """Count the floating-point operations of one example, two per multiply-add.

    Counted are the matrix products: projections, attention scores and context, feed-forward,
    pooler and classifier. Embedding look-ups and element-wise work are left out.

    Args:
        architecture: The network to count.
        length: Tokens of the example, padding included.
        labels: Outputs of the classifier.

    Returns:
        FLOPs of one forward pass with batch size 1.
    """
    width, inner = architecture.hidden_size, architecture.ffn_size
    projections = 4 * length * width * width
    scores_and_context = 2 * length * length * width  # the heads share the width among them
    feed_forward = 2 * length * width * inner
    head = width * width + width * labels  # the pooler reads one token
    layer = projections + scores_and_context + feed_forward
    return _FLOPS_PER_MULTIPLY_ADD * (architecture.layers * layer + head)
