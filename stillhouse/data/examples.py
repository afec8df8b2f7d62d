"""Texts with encoded labels, and what every source of a task hands over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from datasets import ClassLabel, Dataset, Features, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stillhouse.data.metric_names import MetricName


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """N texts, or pairs of texts, with labels where there are any.

    Attributes:
        text_a: N texts.
        text_b: The N second texts of pairs.
        labels: N class numbers, or N real numbers for regression.
    """

    text_a: Sequence[str]
    text_b: Sequence[str] | None = None
    labels: Sequence[int] | Sequence[float] | None = None

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
            features["label"] = (
                ClassLabel(names=list(label_names)) if label_names else Value("float64")
            )
        return Dataset.from_dict(columns, features=Features(features))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a source of a task hands over.

    Attributes:
        label_names: Name of every class number; empty for regression.
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


def text_keys(dataset: Dataset) -> list[tuple[str, ...]]:
    """Gives each example's texts with their white space normalised, to find duplicates by."""
    columns: list[Iterable[str]] = [
        dataset[:][name] for name in ("text_a", "text_b") if name in dataset.column_names
    ]
    return [tuple(" ".join(text.split()) for text in texts) for texts in zip(*columns, strict=True)]
