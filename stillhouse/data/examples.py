"""Texts with encoded labels, and what every source of a task hands over.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from datasets import ClassLabel, Dataset, Features, List, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from stillhouse.data.metric_names import MetricName

LabelArray: TypeAlias = "NDArray[np.int64] | NDArray[np.float32]"
"""`[N]` int64 classes; `[N, C]` float32, 1 at the classes of an example of a multi-label task, else
0; `[N]` float32 numbers; or `[N, 2]` int64 first and last token of a question's answer, counted in
the example, both 0 (the example's first token) where it holds none. Examples without labels have
-100 or NaN."""

KEY_COLUMNS = ("text_a", "text_b", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N texts, or pairs of texts, with labels where there are any.

    Attributes:
        text_a: N texts.
        text_b: The N second texts of pairs.
        labels: N class numbers, N tuples of class numbers for a multi-label task, or N real
            numbers for regression.
    """

    text_a: Sequence[str]
    text_b: Sequence[str] | None = None
    labels: Sequence[int] | Sequence[tuple[int, ...]] | Sequence[float] | None = None

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.text_a)

    def to_dataset(self, label_names: tuple[str, ...]) -> Dataset:
        """Makes a dataset with the columns `text_a`, `text_b` and `label`, as far as present.

        Args:
            label_names: Name of every class number; empty for regression.
        """
        columns: dict[str, list[object]] = {"text_a": list(self.text_a)}
        features = {"text_a": Value("string")}
        if self.text_b is not None:
            columns["text_b"] = list(self.text_b)
            features["text_b"] = Value("string")
        if self.labels is not None:
            columns["label"] = list(self.labels)
            features["label"] = _label_feature(self.labels, label_names)
        return Dataset.from_dict(columns, features=Features(features))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source of a task hands over.

    Attributes:
        label_names: Name of every class number, or of every tag number; empty for regression and
            for questions.
        metrics: The usual metrics, primary first.
        train: Training examples.
        dev: Examples for reporting.
        text_columns: Names under which a table of unlabelled texts holds the one or two texts.
    """

    label_names: tuple[str, ...]
    metrics: tuple[MetricName, ...]
    train: Dataset
    dev: Dataset
    text_columns: tuple[str, ...]


def is_multi_label(dataset: Dataset) -> bool:
    """Tells whether an example's label is a list of classes."""
    return isinstance(dataset.features.get("label"), List)


def label_array(dataset: Dataset) -> LabelArray:
    """Gives the labels of a dataset that `Examples.to_dataset` made."""
    labels = dataset.with_format(None)[:]["label"]
    if is_multi_label(dataset):
        classes: int = dataset.features["label"].feature.num_classes
        present_NC = np.zeros((len(labels), classes), dtype=np.float32)
        rows = np.repeat(np.arange(len(labels)), [len(numbers) for numbers in labels])
        present_NC[rows, np.fromiter(chain.from_iterable(labels), dtype=np.int64)] = 1
        return present_NC
    array_N = np.asarray(labels)
    return array_N.astype(np.float32) if array_N.dtype.kind == "f" else array_N.astype(np.int64)


def text_keys(dataset: Dataset) -> list[tuple[str, ...]]:
    """Gives what makes examples one another's duplicates.

    Returns:
        Each example's texts, or the context of its question, with white space normalised, or its
        words.
    """
    if "words" in dataset.column_names:
        return [tuple(words) for words in dataset.with_format(None)[:]["words"]]
    columns: list[Iterable[str]] = [
        dataset[:][name] for name in KEY_COLUMNS if name in dataset.column_names
    ]
    return [tuple(" ".join(text.split()) for text in texts) for texts in zip(*columns, strict=True)]


def _label_feature(
    labels: Sequence[int] | Sequence[tuple[int, ...]] | Sequence[float],
    label_names: tuple[str, ...],
) -> ClassLabel | List | Value:
    if not label_names:
        return Value("float64")
    classes = ClassLabel(names=list(label_names))
    return List(classes) if any(isinstance(label, tuple) for label in labels) else classes
