"""True closed-form parameter and FLOP counts of chains, and of their parts for tables.

They count the network as it is built. `nas_bert_counts` has the FLOPs as NAS-BERT's paper prints
them, which are others.
"""

from dataclasses import dataclass
from itertools import pairwise

from stillhouse.space.chain import KERNELS, ChainArchitecture, check_operation
from stillhouse.space.counts import Ends

_FLOPS_PER_MULTIPLY_ADD = 2
_STACKED = 2  # convolutions in one separable convolution


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainParameterCount:
    """Trainable numbers by part.

    Attributes:
        embeddings: All tables with their normalisation.
        bridges: Projections from one width to another, that from the embeddings among them.
        operations: The layers, each with its normalisation.
        head: Pooler, where the outputs are not of every token, and outputs.
    """

    embeddings: int
    bridges: int
    operations: int
    head: int

    @property
    def total(self) -> int:
        """All parameters of the model."""
        return self.embeddings + self.bridges + self.operations + self.head


def count_chain_parameters(architecture: ChainArchitecture, ends: Ends) -> ChainParameterCount:
    """Count the parameters of a chain with its head.

    Args:
        architecture: The network to count.
        ends: Its tables and outputs; the architecture says how wide the embeddings are.

    Returns:
        Parameters by part.
    """
    narrow, width = architecture.embedding_size, architecture.blocks[-1].hidden_size
    return ChainParameterCount(
        embeddings=ends.rows * narrow + 2 * narrow,
        bridges=sum(bridge_parameters(*pair) for pair in pairwise(_widths(architecture))),
        operations=sum(
            operation_parameters(operation, block.hidden_size, architecture.ffn_ratio)
            for block in architecture.blocks
            for operation in block.operations
        ),
        head=ends.head_parameters(width),
    )


def count_chain_flops(architecture: ChainArchitecture, ends: Ends, *, length: int) -> int:
    """Count the floating-point operations of one example, two per multiply-add.

    Counted are the matrix products and the convolutions, as `count_flops` counts plain encoders:
    without embedding look-ups and element-wise work.

    Args:
        architecture: The network to count.
        ends: Its outputs; its tables play no part.
        length: Tokens of the example, padding included.

    Returns:
        FLOPs of one forward pass with batch size 1.
    """
    width = architecture.blocks[-1].hidden_size
    bridges = sum(bridge_flops(*pair, length) for pair in pairwise(_widths(architecture)))
    operations = sum(
        operation_flops(operation, block.hidden_size, architecture.ffn_ratio, length)
        for block in architecture.blocks
        for operation in block.operations
    )
    head = _FLOPS_PER_MULTIPLY_ADD * ends.head_multiply_adds(width, length=length)
    return bridges + operations + head


def operation_parameters(operation: str, hidden_size: int, ffn_ratio: int) -> int:
    """Count the parameters of one operation with its normalisation.

    Attention is four projections; feed-forward is two. A separable convolution is twice a depthwise
    convolution without biases and a projection, with one more normalisation between.

    Args:
        operation: One of `OPERATIONS`.
        hidden_size: Its width.
        ffn_ratio: Width inside a feed-forward operation in multiples of the hidden size.

    Raises:
        SpaceError: There is no such operation.
    """
    check_operation(operation)
    square, layer_norm = hidden_size * hidden_size + hidden_size, 2 * hidden_size
    if operation == "M":
        return 4 * square + layer_norm
    if operation == "F":
        inner = ffn_ratio * hidden_size
        return 2 * hidden_size * inner + inner + hidden_size + layer_norm
    return _STACKED * (KERNELS[operation] * hidden_size + square + layer_norm)


def operation_flops(operation: str, hidden_size: int, ffn_ratio: int, length: int) -> int:
    """Count the FLOPs of one operation, two per multiply-add.

    Args:
        operation: One of `OPERATIONS`.
        hidden_size: Its width.
        ffn_ratio: Width inside a feed-forward operation in multiples of the hidden size.
        length: Tokens of the example, padding included.

    Raises:
        SpaceError: There is no such operation.
    """
    check_operation(operation)
    if operation == "M":
        per_token = 4 * hidden_size * hidden_size + 2 * length * hidden_size
    elif operation == "F":
        per_token = 2 * ffn_ratio * hidden_size * hidden_size
    else:
        per_token = _STACKED * (KERNELS[operation] * hidden_size + hidden_size * hidden_size)
    return _FLOPS_PER_MULTIPLY_ADD * length * per_token


def bridge_parameters(from_size: int, to_size: int) -> int:
    """Count the parameters between two widths: none where they are the same."""
    return 0 if from_size == to_size else from_size * to_size + to_size


def bridge_flops(from_size: int, to_size: int, length: int) -> int:
    """Count the FLOPs between two widths for `length` tokens: none where they are the same."""
    return 0 if from_size == to_size else _FLOPS_PER_MULTIPLY_ADD * length * from_size * to_size


def _widths(architecture: ChainArchitecture) -> list[int]:
    return [architecture.embedding_size, *(block.hidden_size for block in architecture.blocks)]
