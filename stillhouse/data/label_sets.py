"""Reading the labels of a multi-label task: a list of classes for every example."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from stillhouse.data.labels import RawLabel, abbreviated, class_name, class_names, is_missing
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RawLabelSet: TypeAlias = list[str | int | float | bool]

_logger = logging.getLogger(__name__)


def are_label_sets(values: Sequence[object]) -> bool:
    """Tells whether a label column holds lists, and so is that of a multi-label task."""
    return any(isinstance(value, list) for value in values)


def check_label_sets(values: Sequence[object], *, where: str) -> list[RawLabelSet]:
    """Checks that every example has a list of texts and whole numbers; the list may be empty.

    Args:
        values: The label column.
        where: File and column, for the message.

    Raises:
        DataError: If an example has no list, or a list holds anything else.
    """
    checked: list[RawLabelSet] = []
    for row, value in enumerate(values, start=1):
        if not isinstance(value, list):
            raise DataError(
                f"{where}, example {row}: {value!r} is no list, as the labels of other examples "
                "are; write a list for every example, [] where no label fits"
            )
        checked.append([_checked(label, f"{where}, example {row}") for label in value])
    return checked


def label_set_names(labels: Sequence[RawLabelSet]) -> tuple[str, ...]:
    """Gives the sorted names of all classes; whole numbers sort by value."""
    return class_names([label for row in labels for label in row])


def encode_label_sets(
    labels: Sequence[RawLabelSet], names: tuple[str, ...], *, where: str
) -> tuple[tuple[int, ...], ...]:
    """Numbers every label by its place among the names, each once an example.

    Args:
        labels: Checked label lists.
        names: Names of the classes.
        where: File and column, for the message.

    Returns:
        The ascending class numbers of every example.

    Raises:
        DataError: If a label is not among the names.
    """
    numbers = {name: number for number, name in enumerate(names)}
    encoded = []
    for row, labels_of_row in enumerate(labels, start=1):
        present = {class_name(label) for label in labels_of_row}
        unseen = sorted(present - numbers.keys())
        if unseen:
            raise DataError(
                f"{where}, example {row}: label {abbreviated(unseen)} never occurs in the training "
                f"set; known are {abbreviated(names)}. Correct or remove this example"
            )
        encoded.append(tuple(sorted(numbers[name] for name in present)))
    return tuple(encoded)


def check_label_set_classes(
    encoded: Iterable[Sequence[int]], names: tuple[str, ...], *, where: str
) -> None:
    """Refuses a training set with fewer than two classes; warns of classes with one example.

    Raises:
        DataError: If no example has a label, or all labels are of one class.
    """
    counts = Counter(number for row in encoded for number in row)
    if not counts:
        raise DataError(f"{where}: no example has any label; a task needs at least two classes")
    if len(counts) == 1:
        raise DataError(
            f"{where}: a multi-label task needs at least two classes, but the only one is "
            f"{names[next(iter(counts))]!r}; for a question of yes or no write one label an "
            "example, without lists"
        )
    single = [names[number] for number, count in sorted(counts.items()) if count == 1]
    if single:
        _logger.warning(
            "%s: %d class(es) have only one example, which cannot be learnt and judged: %s",
            where,
            len(single),
            abbreviated(single),
        )


def _checked(label: RawLabel | object, where: str) -> str | int | float | bool:
    if not isinstance(label, str | int) or is_missing(label):
        raise DataError(
            f"{where}: {label!r} in its list of labels is neither a text nor a whole number; "
            "correct or remove it"
        )
    return label
