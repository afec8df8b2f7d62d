"""What a device has to do for an architecture: matrix products, element-wise work, numbers moved.

A family joins analytic devices by one more function here, and a case in `operations_of`.

The letters of sizes are those of tensors: B batch, T tokens, D hidden, H heads, K head size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import KERNELS, ChainArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

if TYPE_CHECKING:
    from stillhouse.device.latency import Shape, Workload
    from stillhouse.space.counts import Ends

_FLOPS_PER_MULTIPLY_ADD = 2
_ADD, _AFFINE, _LAYER_NORM, _SOFTMAX, _TANH = 1, 2, 8, 15, 20
_ACTIVATIONS = {"gelu": 30, "relu": 1, "silu": 20}
"""Operations a value. All of element-wise work is counted roughly, by us: libraries differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Matrix products of one size: `rows × depth` times `depth × columns`.

    Attributes:
        rows: Of the result; for a projection these are the tokens of all examples.
        columns: Of the result.
        depth: Inner size.
        count: How many there are of it; they do not wait for each other.
    """

    rows: int
    columns: int
    depth: int
    count: int = 1

    @property
    def flops(self) -> int:
        """Operations, two per multiply-add."""
        return _FLOPS_PER_MULTIPLY_ADD * self.count * self.rows * self.columns * self.depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What a device starts at once.

    Attributes:
        products: Matrix products; what they hand to each other is not written.
        vector_flops: Operations of element-wise work, convolutions of each feature by itself
            included.
        weights: Parameters that are read; of an embedding table only the rows that are.
        activations: Numbers that are read from operations before it, and written for those after.
        is_elementwise: Whether it can be part of the operation before it.
    """

    products: tuple[Product, ...] = ()
    vector_flops: int = 0
    weights: int = 0
    activations: int = 0
    is_elementwise: bool = False

    @property
    def matrix_flops(self) -> int:
        """Operations of the products."""
        return sum(product.flops for product in self.products)


def operations_of(architecture: Shape, ends: Ends, workload: Workload) -> list[Operation]:
    """Lists what one forward pass is made of, in order.

    They are those of the model as PyTorch runs it one after the other, with attention in one piece.

    Args:
        architecture: Of any family that is known here.
        ends: Embeddings and head; with 0 labels it ends with the pooler.
        workload: Examples and their tokens.

    Raises:
        DeviceError: If the family is not known here.
    """
    match architecture:
        case BertArchitecture():
            return list(_bert(architecture, ends, workload))
        case ChainArchitecture():
            return list(_chain(architecture, ends, workload))
        case MobileBertArchitecture():
            return list(_mobilebert(architecture, ends, workload))
        case _:
            raise DeviceError(
                "analytic devices know the families bert, chain and mobilebert, got "
                f"{architecture.key}; measure it on cpu or cuda, or give a table"
            )


def _bert(architecture: BertArchitecture, ends: Ends, workload: Workload) -> Iterator[Operation]:
    width, heads = architecture.hidden_size, architecture.attention_width
    tokens = workload.batch * workload.length
    narrow = ends.factored_size or width
    yield from _embeddings(narrow, ends, tokens)
    if ends.needs_projection(width):
        yield _linear(tokens, narrow, width)
    for _ in range(architecture.layers):
        yield from _attention(width, heads, architecture.head_size, workload)
        yield from _added_and_normalised(width, tokens)
        yield from _feed_forward(width, architecture.ffn_size, architecture.activation, tokens)
        yield from _added_and_normalised(width, tokens)
    yield from _head(width, ends, workload)


def _chain(architecture: ChainArchitecture, ends: Ends, workload: Workload) -> Iterator[Operation]:
    tokens = workload.batch * workload.length
    widths = [architecture.embedding_size, *(block.hidden_size for block in architecture.blocks)]
    yield from _embeddings(architecture.embedding_size, ends, tokens)
    for block, (before, width) in zip(architecture.blocks, pairwise(widths), strict=True):
        if before != width:
            yield _linear(tokens, before, width)
        for kind in block.operations:
            if kind == "M":
                yield from _attention(width, width, architecture.head_size, workload)
            elif kind == "F":
                inner = architecture.ffn_ratio * width
                yield from _feed_forward(width, inner, architecture.activation, tokens)
            else:
                yield from _convolution(width, KERNELS[kind], tokens)
                yield _elementwise(tokens * width, _LAYER_NORM, weights=2 * width)
                yield from _convolution(width, KERNELS[kind], tokens)
            yield from _added_and_normalised(width, tokens)
    yield from _head(widths[-1], ends, workload)


def _mobilebert(
    architecture: MobileBertArchitecture, ends: Ends, workload: Workload
) -> Iterator[Operation]:
    """Yields a MobileBERT, whose norms are affine maps and whose head is a projection alone."""
    h, b, f = architecture.hidden_size, architecture.bottleneck_size, architecture.ffn_size
    tokens = workload.batch * workload.length
    words = tokens * architecture.embedding_size
    yield Operation(weights=words, activations=words)
    yield Operation(activations=4 * words)  # three neighbours side by side
    yield _linear(tokens, 3 * architecture.embedding_size, h)
    for _ in range(2):  # positions and token types
        yield Operation(weights=tokens * h, activations=tokens * h)
        yield _elementwise(tokens * h, _ADD, inputs=2)
    yield _affine(tokens, h)
    for _ in range(architecture.layers):
        for _ in range(1 if architecture.bottleneck_attention else 2):
            yield _linear(tokens, h, b)
            yield _affine(tokens, b)
        yield from _inner_attention(architecture, workload)
        yield from _added(tokens, b)
        for _ in range(architecture.ffn_count):
            yield from _feed_forward(b, f, architecture.activation, tokens)
            yield from _added(tokens, b)
        yield _linear(tokens, b, h)
        yield from _added(tokens, h)
    yield from _outputs(h, ends, workload)


def _inner_attention(
    architecture: MobileBertArchitecture, workload: Workload
) -> Iterator[Operation]:
    """Yields the attention inside a bottleneck; values may come from outside it."""
    b, tokens = architecture.bottleneck_size, workload.batch * workload.length
    value_from = b if architecture.bottleneck_attention else architecture.hidden_size
    for width in (b, b, value_from):
        yield _linear(tokens, width, b)
    yield _scores_and_context(b, architecture.head_size, workload)
    yield _linear(tokens, b, b)


def _embeddings(width: int, ends: Ends, tokens: int) -> Iterator[Operation]:
    tables = 3 if ends.token_types else 2  # words, positions and, where there are any, token types
    for _ in range(tables):
        yield Operation(weights=tokens * width, activations=tokens * width)
    for _ in range(tables - 1):
        yield _elementwise(tokens * width, _ADD, inputs=2)
    yield _elementwise(tokens * width, _LAYER_NORM, weights=2 * width)


def _attention(width: int, heads: int, head_size: int, workload: Workload) -> Iterator[Operation]:
    """Yields the projections and what lies between; `heads` is the width of all together."""
    tokens = workload.batch * workload.length
    for _ in range(3):
        yield _linear(tokens, width, heads)
    yield _scores_and_context(heads, head_size, workload)
    yield _linear(tokens, heads, width)


def _scores_and_context(heads: int, head_size: int, workload: Workload) -> Operation:
    length, count = workload.length, workload.batch * heads // head_size
    return Operation(
        products=(
            Product(rows=length, columns=length, depth=head_size, count=count),
            Product(rows=length, columns=head_size, depth=length, count=count),
        ),
        vector_flops=_SOFTMAX * count * length * length,
        activations=4 * workload.batch * length * heads,  # query, key and value; context
    )


def _feed_forward(width: int, inner: int, activation: str, tokens: int) -> Iterator[Operation]:
    yield _linear(tokens, width, inner)
    yield _elementwise(tokens * inner, _ACTIVATIONS[activation])
    yield _linear(tokens, inner, width)


def _convolution(width: int, kernel: int, tokens: int) -> Iterator[Operation]:
    """Yields a separable convolution; each feature by itself is no work for a matrix unit."""
    yield _elementwise(tokens * width, _ACTIVATIONS["relu"])
    yield Operation(
        vector_flops=_FLOPS_PER_MULTIPLY_ADD * kernel * tokens * width,
        weights=kernel * width,
        activations=2 * tokens * width,
    )
    yield _linear(tokens, width, width)


def _added_and_normalised(width: int, tokens: int) -> Iterator[Operation]:
    yield _elementwise(tokens * width, _ADD, inputs=2)
    yield _elementwise(tokens * width, _LAYER_NORM, weights=2 * width)


def _added(tokens: int, width: int) -> Iterator[Operation]:
    yield _elementwise(tokens * width, _ADD, inputs=2)
    yield _affine(tokens, width)


def _affine(tokens: int, width: int) -> Operation:
    return _elementwise(tokens * width, _AFFINE, weights=2 * width)


def _head(width: int, ends: Ends, workload: Workload) -> Iterator[Operation]:
    if not ends.answers_tokens:
        yield _linear(workload.batch, width, width)  # it reads one token of each example
        yield _elementwise(workload.batch * width, _TANH)
    yield from _outputs(width, ends, workload)


def _outputs(width: int, ends: Ends, workload: Workload) -> Iterator[Operation]:
    if ends.labels:
        rows = workload.batch * (workload.length if ends.answers_tokens else 1)
        yield _linear(rows, width, ends.labels)


def _linear(rows: int, before: int, after: int) -> Operation:
    return Operation(
        products=(Product(rows=rows, columns=after, depth=before),),
        weights=before * after + after,
        activations=rows * (before + after),
    )


def _elementwise(values: int, each: int, *, inputs: int = 1, weights: int = 0) -> Operation:
    return Operation(
        vector_flops=values * each,
        weights=weights,
        activations=values * (inputs + 1),
        is_elementwise=True,
    )
