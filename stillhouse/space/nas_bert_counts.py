"""The FLOPs that NAS-BERT's paper prints, by its counter: for comparisons with it alone.

They are no counts of the networks. The look-up of a word counts as a product of a one-hot vector
with the whole table, which no network computes, and is 58 % of the figure for 5M; element-wise work
counts as well. `space.chain_counts` is exact.

Source: Xu et al., arXiv 2105.14444, which uses the counter of Clark et al., ELECTRA
(flops_computation.py of its published code). Its costs are kept, also that of the normalisation
behind attention, which it forgets to multiply by the width.
"""

from itertools import pairwise

from stillhouse.space.chain import KERNELS, ChainArchitecture

# FLOPs of each number that is computed.
_DROPOUT = 4
_LAYER_NORM = 5
_ACTIVATION = 8
_SOFTMAX = 5
_SCALE = _BIAS = _RESIDUAL = _RELU = 1
_MULTIPLY_ADD = 2

_TOKEN_TYPES = 2
_STACKED = 2  # separable convolutions in one operation; with one, 3 % to 13 % less


def paper_chain_flops(
    architecture: ChainArchitecture, *, vocab_size: int = 30_522, length: int = 128
) -> int:
    """Return the FLOPs as NAS-BERT's paper counts them.

    It gives 1.27e10, 7.06e9, 2.35e9 and 8.68e8 for 60M, 30M, 10M and 5M, where the paper prints
    1.3e10, 7.0e9, 2.3e9 and 8.7e8. The pooler that ELECTRA's counter adds for every token is left
    out: with it they would be 0.5 % to 1.7 % larger, and 10M and 5M would not agree.

    Args:
        architecture: The network.
        vocab_size: Rows of the word table; the paper's figures are for 30,522.
        length: Tokens of the example; the paper's figures are for 128.

    Returns:
        FLOPs of one forward pass with batch size 1.
    """
    narrow = architecture.embedding_size
    widths = [narrow, *(block.hidden_size for block in architecture.blocks)]
    per_token = _embeddings(narrow, vocab_size, length)
    per_token += sum(_bridge(*pair) for pair in pairwise(widths))
    for block in architecture.blocks:
        for operation in block.operations:
            per_token += _operation(operation, block.hidden_size, architecture, length)
    return length * per_token


def _embeddings(width: int, vocab_size: int, length: int) -> int:
    one_hot = _MULTIPLY_ADD * (vocab_size + length + _TOKEN_TYPES)
    return width * (one_hot + 2 + _LAYER_NORM + _DROPOUT)  # two sums of three tables


def _bridge(from_size: int, to_size: int) -> int:
    return 0 if from_size == to_size else to_size * (_MULTIPLY_ADD * from_size + _BIAS)


def _operation(operation: str, width: int, architecture: ChainArchitecture, length: int) -> int:
    if operation == "M":
        return _attention(width, width // architecture.head_size, length)
    if operation == "F":
        return _feed_forward(width, architecture.ffn_ratio * width)
    return _convolutions(width, KERNELS[operation])


def _attention(width: int, heads: int, length: int) -> int:
    projections = 4 * width * (_MULTIPLY_ADD * width + _BIAS)
    scores_and_context = 2 * _MULTIPLY_ADD * length * width
    weights = length * heads * (_SCALE + _SOFTMAX + _DROPOUT)
    return projections + scores_and_context + weights + width * (_DROPOUT + _RESIDUAL) + _LAYER_NORM


def _feed_forward(width: int, inner: int) -> int:
    projections = 2 * _MULTIPLY_ADD * width * inner + _BIAS * (inner + width)
    return projections + _ACTIVATION * inner + width * (_DROPOUT + _RESIDUAL + _LAYER_NORM)


def _convolutions(width: int, kernel: int) -> int:
    """Count as the others what the counter, made for transformers, does not know."""
    depthwise = _MULTIPLY_ADD * kernel
    pointwise = _MULTIPLY_ADD * width + _BIAS
    one = width * (_RELU + depthwise + pointwise + _LAYER_NORM)
    return _STACKED * one + width * (_DROPOUT + _RESIDUAL)
