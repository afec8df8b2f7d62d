"""Reading raw labels: whether they are classes or numbers, and their encoding."""

from __future__ import annotations

import logging
import math
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from stillhouse.data.metric_names import CLASSIFICATION_METRICS, REGRESSION_METRICS, metric_name
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

RawLabel: TypeAlias = str | int | float | bool | None

MOST_NUMBERED_CLASSES = 50
"""A label column with more distinct numbers than this is regression."""

FEW_VALUES = 10
"""Regression on no more distinct values than this is probably meant as classes: warn."""

_logger = logging.getLogger(__name__)


def are_numbers(labels: Sequence[RawLabel], metric: str | None) -> bool:
    """Tells whether labels are the numbers of a regression rather than classes.

    The metric decides where it is given. Otherwise labels are numbers where most of them read as
    numbers and either some have a fractional notation or more than 50 are distinct.

    Args:
        labels: Raw labels of the training set, none missing.
        metric: The metric that the user chose.

    Raises:
        SettingsError: If there is no such metric.
    """
    if metric is not None and metric_name(metric) in REGRESSION_METRICS:
        return True
    if metric is not None and metric_name(metric) in CLASSIFICATION_METRICS:
        return False
    numeric = [label for label in labels if _number(label) is not None]
    if 2 * len(numeric) <= len(labels):
        return False
    distinct = len(set(numeric))
    fractional = any(not _is_whole(label) for label in numeric)
    if fractional and distinct <= FEW_VALUES:
        _logger.warning(
            "the labels are taken as numbers (regression) because they are written with decimals, "
            "though there are only %d distinct ones; for classes write whole numbers or words, or "
            "choose a metric for classes",
            distinct,
        )
    return fractional or distinct > MOST_NUMBERED_CLASSES


def class_name(label: RawLabel) -> str:
    """Names the class of a label; 1, 1.0 and "1" are one class."""
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label).strip()


def class_names(labels: Sequence[RawLabel]) -> tuple[str, ...]:
    """Gives the sorted names of the classes; whole numbers sort by value."""
    names = {class_name(label) for label in labels}
    if all(_is_whole(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def encode_classes(
    labels: Sequence[RawLabel], names: tuple[str, ...], *, where: str
) -> tuple[int, ...]:
    """Numbers every label by its place among the names.

    Args:
        labels: Raw labels, none missing.
        names: Names of the classes.
        where: What the labels belong to, for the message.

    Raises:
        DataError: If a label is not among the names.
    """
    numbers = {name: number for number, name in enumerate(names)}
    unseen = sorted({class_name(label) for label in labels} - numbers.keys())
    if unseen:
        raise DataError(
            f"{where}: {len(unseen)} label(s) never occur in the training set: "
            f"{abbreviated(unseen)}; known are {abbreviated(names)}. Correct or remove these rows"
        )
    return tuple(numbers[class_name(label)] for label in labels)


def encode_numbers(labels: Sequence[RawLabel], *, where: str) -> tuple[float, ...]:
    """Reads every label as a finite number.

    Raises:
        DataError: If a label is not a finite number.
    """
    numbers: list[float] = []
    for row, label in enumerate(labels, start=1):
        number = _number(label)
        if number is None:
            raise DataError(
                f"{where}: label {label!r} of example {row} is not a finite number, as regression "
                "needs; correct it, or choose a metric for classes such as 'accuracy'"
            )
        numbers.append(number)
    return tuple(numbers)


def check_present(labels: Sequence[RawLabel], *, where: str) -> None:
    """Refuses missing labels.

    Raises:
        DataError: If a label is missing, empty or not a number (NaN).
    """
    missing = [row for row, label in enumerate(labels, start=1) if is_missing(label)]
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(labels)} examples have no label, first example "
            f"{missing[0]}; remove them, or give them as `unlabelled`"
        )


def check_classes(numbers: Sequence[int], names: tuple[str, ...], *, where: str) -> None:
    """Refuses a training set of one class and warns of classes with a single example.

    Raises:
        DataError: If fewer than two classes occur.
    """
    counts = Counter(numbers)
    if len(counts) <= 1:
        only = ", ".join(repr(names[number]) for number in counts) or "none"
        raise DataError(
            f"{where}: a task needs examples of at least two classes, but the only class is {only}"
        )
    single = [names[number] for number, count in sorted(counts.items()) if count == 1]
    if single:
        _logger.warning(
            "%s: %d class(es) have only one example, which cannot be learnt and judged: %s",
            where,
            len(single),
            abbreviated(single),
        )


def is_missing(label: RawLabel) -> bool:
    """Tells whether a label is absent, empty or not a number (NaN)."""
    if isinstance(label, str):
        return label.strip().lower() in ("", "nan")
    return label is None or (isinstance(label, float) and math.isnan(label))


def _is_whole(label: RawLabel) -> bool:
    if isinstance(label, str):
        return label.strip().removeprefix("-").isdecimal()
    return isinstance(label, int)


def _number(label: RawLabel) -> float | None:
    if label is None or isinstance(label, bool):
        return None
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def abbreviated(names: Sequence[str], most: int = 10) -> str:
    """Lists names for a message, the first ten of many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
