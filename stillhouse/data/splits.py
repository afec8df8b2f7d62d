"""Holding examples out: stratified, seeded, and without duplicates on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.examples import label_array, text_keys
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from numpy.typing import NDArray

    from stillhouse.data.examples import LabelArray
    from stillhouse.data.task import Task

HELD_OUT_FRACTION = 0.1
HELD_OUT_LIMIT = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """The three disjoint sets of a search.

    Attributes:
        train: What students learn from; holds no example of `validation` and no duplicate of one.
        validation: What rewards, early stopping and every choice read.
        dev: The task's own dev set, read once per finished student.
    """

    train: Dataset
    validation: Dataset
    dev: Dataset


def split_task(task: Task, seed: int) -> Splits:
    """Carves the search-validation set from a task's training set.

    Args:
        task: The task; its sets stay as they are.
        seed: Decides which examples are held out.

    Raises:
        DataError: If the training set is too small to hold any example out.
    """
    train, validation = hold_out(
        task.train,
        count=usual_count(len(task.train)),
        stratified=task.kind in ("classes", "multi_label"),
        seed=seed,
    )
    return Splits(train=train, validation=validation, dev=task.dev)


def usual_count(total: int) -> int:
    """The number of examples to hold out of `total`: 10 %, at most 5,000 and at least one."""
    return max(1, min(round(HELD_OUT_FRACTION * total), HELD_OUT_LIMIT))


def hold_out(
    dataset: Dataset, *, count: int, stratified: bool, seed: int
) -> tuple[Dataset, Dataset]:
    """Parts a dataset in two and removes duplicates of the second part from the first.

    Questions on one context stay together.

    Args:
        dataset: Examples, if `stratified` with a `label` column.
        count: Examples to hold out; fewer where classes have but one example, up to a context's
            more of questions.
        stratified: Whether to keep the proportions of classes, or of sets of classes.
        seed: Decides which examples are held out.

    Returns:
        The kept and the held-out examples, both in their old order.

    Raises:
        DataError: If either part would be empty.
    """
    keys = text_keys(dataset)
    generator = np.random.default_rng(seed)
    asks = "context" in dataset.column_names
    if asks:
        held = _whole_contexts(keys, count=count, generator=generator)
    else:
        labels = label_array(dataset) if stratified else np.zeros(len(dataset), np.int64)
        choose = label_set_choice if labels.ndim > 1 else stratified_choice
        held = choose(labels, count=count, generator=generator)
    held_keys = {keys[index] for index in held}
    kept = [index for index, key in enumerate(keys) if key not in held_keys]
    if not kept or not held.size:
        needed = "at least two different examples are needed"
        if stratified:
            needed = "every class needs at least two different examples"
        elif asks:
            needed = "questions on one context stay together, and at least two contexts are needed"
        raise DataError(
            f"cannot hold {count} of {len(dataset)} examples out: {needed}; give more training "
            "examples or a dev set of your own"
        )
    return dataset.select(kept), dataset.select(held)


def _whole_contexts(
    keys: Sequence[tuple[str, ...]], *, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Chooses all questions of as many contexts as it takes, one context at least stays unchosen.

    Returns:
        The chosen positions, ascending.
    """
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    context_of = np.array([number_of[key] for key in keys], dtype=np.int64)
    order = generator.permutation(len(number_of))[:-1]
    taken = np.cumsum(np.bincount(context_of, minlength=len(number_of))[order])
    enough = int(np.searchsorted(taken, count)) + 1
    return np.flatnonzero(np.isin(context_of, order[:enough]))


def stratified_choice(
    labels: LabelArray, *, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Chooses about `count` positions so that classes keep their proportions.

    Seats go by largest remainder; every class keeps at least one example unchosen.

    Args:
        labels: `[N]` class of every example.
        count: Positions to choose.
        generator: Source of randomness.

    Returns:
        The chosen positions, ascending.
    """
    _, class_of, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    exact = count * sizes / max(len(labels), 1)
    seats = np.minimum(np.floor(exact + 1e-9).astype(np.int64), sizes - 1)
    for index in np.argsort(seats - exact, kind="stable"):
        if seats.sum() < count and seats[index] < sizes[index] - 1:
            seats[index] += 1
    shuffled = generator.permutation(len(labels))
    chosen = [shuffled[class_of[shuffled] == index][:seat] for index, seat in enumerate(seats)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def label_set_choice(
    labels: LabelArray, *, count: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Chooses about `count` positions of a multi-label task.

    Sets of classes that are due at least one seat keep their proportions; all rarer sets count as
    one together, and chance decides among their examples. Every class keeps at least one example
    unchosen.

    Args:
        labels: `[N, C]` 1 at the classes of an example, else 0.
        count: Positions to choose.
        generator: Source of randomness.

    Returns:
        The chosen positions, ascending.
    """
    shuffled = generator.permutation(len(labels))
    has_NC = labels[shuffled] == 1
    kept = shuffled[has_NC.argmax(axis=0)[has_NC.any(axis=0)]]
    free = np.setdiff1d(np.arange(len(labels)), kept)
    _, set_of, sizes = np.unique(labels, axis=0, return_inverse=True, return_counts=True)
    rare = count * sizes < len(labels)
    stratum = np.where(rare[set_of], -1, set_of)[free]
    return free[stratified_choice(stratum, count=count, generator=generator)]
