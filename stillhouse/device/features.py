"""What a latency is predicted from: the work of an architecture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.device.work import Operation, operations_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.device.latency import Shape, Workload
    from stillhouse.space.counts import Ends

KINDS = ("projections", "attention", "element-wise", "other")
_QUANTITIES = ("count", "matrix_flops", "vector_flops", "weights", "activations")
FEATURES = (
    *(f"{kind}: {quantity}" for kind in KINDS for quantity in _QUANTITIES),
    *(f"total: {quantity}" for quantity in _QUANTITIES),
)
"""Names of what `features_of` returns, in its order."""


def features_of(
    architectures: Iterable[Shape], ends: Ends, workload: Workload
) -> NDArray[np.float64]:
    """Adds up the work of one forward pass by kind of operation, over all layers.

    An operation is a projection (one product with weights), attention (products of activations),
    element-wise, or another: look-ups and convolutions. Counts are launches; weights and
    activations are numbers that are moved.

    Args:
        architectures: Of any family that `operations_of` knows.
        ends: Embeddings and head of all of them.
        workload: Examples and their tokens.

    Returns:
        A row for each architecture, its columns as in `FEATURES`.

    Raises:
        DeviceError: If a family is not known.
    """
    rows = [_row(operations_of(one, ends, workload)) for one in architectures]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(FEATURES))


def _row(operations: Sequence[Operation]) -> list[float]:
    sums = {kind: np.zeros(len(_QUANTITIES)) for kind in KINDS}
    for one in operations:
        sums[_kind(one)] += (
            1,
            one.matrix_flops,
            one.vector_flops,
            one.weights,
            one.activations,
        )
    table = np.stack(list(sums.values()))
    return [*table.ravel().tolist(), *table.sum(axis=0).tolist()]


def _kind(operation: Operation) -> str:
    if operation.products:
        return "projections" if operation.weights else "attention"
    return "element-wise" if operation.is_elementwise else "other"
