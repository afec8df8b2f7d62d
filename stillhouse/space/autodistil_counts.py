"""The sizes that AutoDistil's paper prints, by its own formulas: for comparisons with it alone.

They are no counts of the networks. Queries, keys and values are counted as if a network with A of
the teacher's 12 heads had them H · A / 12 wide, where they are 64 · A wide; so narrow networks come
out too small (by 16 % of the parameters for 11 layers of 352 with 10 heads). `space.counts` is
exact.

Source: Xu et al., arXiv 2201.12507, as its published code computes the figures of its tables.
"""

from stillhouse.space.architecture import Architecture

_VOCABULARY = 30_522
_POSITIONS = 512
_TOKEN_TYPES = 2
_TEACHER_HEADS = 12
_LABELS = 2
_LAYER_NORM = 2  # vectors: weight and bias


def paper_parameters(architecture: Architecture) -> int:
    """Return the parameters as AutoDistil's paper counts them; too few where heads are free.

    The ends are those of BERT for English: 30,522 tokens, 512 positions, a pooler.

    Args:
        architecture: The network; its head size plays no part.

    Returns:
        Parameters, rounded to a whole number.
    """
    width, inner = architecture.hidden_size, architecture.ffn_size
    share = architecture.heads / _TEACHER_HEADS
    embeddings = width * (_VOCABULARY + _POSITIONS + _TOKEN_TYPES + _LAYER_NORM)
    attention = 3 * width * width * share + width * width + 6 * width
    feed_forward = 2 * width * inner + inner + 3 * width
    pooler = width * width + 2 * width
    return round(embeddings + architecture.layers * (attention + feed_forward) + pooler)


def paper_flops(architecture: Architecture, *, length: int = 128) -> int:
    """Return the FLOPs as AutoDistil's paper counts them: multiply-adds, one for each.

    Beside the too narrow queries, keys and values, they differ from `count_flops` by the factor of
    2, and by a pooler that reads every token.

    Args:
        architecture: The network; its head size plays no part.
        length: Tokens of the example; the paper's figures are for 128.

    Returns:
        Multiply-adds of one example, rounded to a whole number.
    """
    width, inner = architecture.hidden_size, architecture.ffn_size
    share = architecture.heads / _TEACHER_HEADS
    attention = 3 * length * width * width * share + length * width * width
    scores_and_context = 2 * length * length * width * share
    feed_forward = 2 * length * width * inner
    head = length * width * width + _LABELS * width
    return round(architecture.layers * (attention + scores_and_context + feed_forward) + head)
