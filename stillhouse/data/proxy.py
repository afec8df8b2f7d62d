"""The proxy set: the part of the examples on which candidates are compared.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.labels import abbreviated
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stillhouse.data.examples import LabelArray


def choose_proxy(
    labels: LabelArray | None, *, total: int, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Chooses examples so that every class is among them where there are as many as classes.

    Classes keep their proportions, as far as one example of each leaves them; of a multi-label
    task one example of each class is taken, rarest first, and the rest by chance; all else is drawn
    by chance alone.

    Args:
        labels: `EncodedSet.classes` of all examples.
        total: N, the number of examples.
        count: Examples to choose, at most N.
        generator: Source of randomness.

    Returns:
        The chosen positions, ascending.
    """
    shuffled = generator.permutation(total)
    if labels is not None and labels.ndim > 1:
        turn = _turns_of_sets(labels[shuffled])
    elif labels is not None and labels.dtype.kind == "i":
        turn = _turns_of_classes(labels[shuffled])
    else:
        return np.sort(shuffled[:count])
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:count]])


def missing_classes(labels: LabelArray | None, chosen: NDArray[np.int64]) -> tuple[int, ...]:
    """Tells which classes some example has, but none of the chosen ones.

    Args:
        labels: `EncodedSet.classes` of all examples; scores, tags and answers have no classes to
            miss.
        chosen: Positions of examples.
    """
    if labels is None:
        return ()
    return tuple(sorted(_occurring(labels) - _occurring(labels[chosen])))


def check_proxy(labels: LabelArray | None, chosen: NDArray[np.int64], names: Sequence[str]) -> None:
    """Refuses a proxy set that lacks a class.

    Args:
        labels: `EncodedSet.classes` of all examples.
        chosen: Positions of the proxy set, as `choose_proxy` gives them.
        names: Names of the classes.

    Raises:
        DataError: Naming the classes, and the size that has room for all.
    """
    if labels is None:
        return
    missing = [names[number] for number in missing_classes(labels, chosen)]
    if missing:
        raise DataError(
            f"the proxy set of {len(chosen)} examples holds no example of class "
            f"{abbreviated(missing)}: raise search.proxy_examples to at least "
            f"{len(_occurring(labels))}, so that every class has one"
        )


def _turns_of_classes(labels_N: LabelArray) -> NDArray[np.float64]:
    """Gives each example its turn: the divisors of Sainte-Laguë, the first of each class at once.

    Example i of a class of n comes at (i + 1/2) / n, so that any first part of the examples in
    this order holds the classes in proportion.
    """
    turn_N = np.empty(len(labels_N))
    for label in np.unique(labels_N):
        members = np.flatnonzero(labels_N == label)
        turn_N[members] = (np.arange(len(members)) + 0.5) / len(members)
        if label >= 0:
            turn_N[members[0]] = -1
    return turn_N


def _turns_of_sets(labels_NC: LabelArray) -> NDArray[np.float64]:
    """Puts one example of each class first, unless one that was put there has the class too."""
    turn_N = np.zeros(len(labels_NC))
    has_NC = labels_NC == 1
    covered_C = np.zeros(has_NC.shape[1], dtype=bool)
    for number in np.argsort(has_NC.sum(axis=0), kind="stable"):
        if not covered_C[number] and has_NC[:, number].any():
            first = np.flatnonzero(has_NC[:, number])[0]
            turn_N[first] = -1
            covered_C |= has_NC[first]
    return turn_N


def _occurring(labels: LabelArray) -> set[int]:
    if labels.ndim > 1:
        return set(np.flatnonzero((labels == 1).any(axis=0)).tolist())
    return set(np.unique(labels[labels >= 0]).tolist()) if labels.dtype.kind == "i" else set()
