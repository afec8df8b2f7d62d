"""Kept labels in a form that is scored again thousands of times: counts instead of predictions.

F1 of one class and micro F1 are ratios of sums over examples. Macro F1 and MCC follow from how
often each pair of label and prediction occurs. scikit-learn gives the same scores, much slower.

Letters in names: U units (examples), P different pairs of label and prediction, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stillhouse.evaluate.resampling import Ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray


def f1_ratio(predictions: NDArray[Any], labels: NDArray[Any]) -> Ratio:
    """Makes F1 of class 1, or micro F1 of sets: 2 TP over 2 TP + FP + FN.

    Args:
        predictions: `[U]` or `[U, C]`, 0 or 1.
        labels: The same of the labels.
    """
    above, below = 2 * (predictions & labels), predictions + labels
    if above.ndim > 1:
        above, below = above.sum(axis=1), below.sum(axis=1)
    return Ratio(above_U=above, below_U=below)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SetCounts:
    """Macro F1 of sets of classes; of a class that is neither label nor prediction it is 0.

    Attributes:
        predictions_UC: 0 or 1.
        labels_UC: 0 or 1.
    """

    predictions_UC: NDArray[Any]  # noqa: N815
    labels_UC: NDArray[Any]  # noqa: N815

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels_UC)

    def score(self, chosen: NDArray[np.int64] | None = None) -> float:
        """Scores the chosen examples, all by default."""
        predictions_UC, labels_UC = self.predictions_UC, self.labels_UC
        if chosen is not None:
            predictions_UC, labels_UC = predictions_UC[chosen], labels_UC[chosen]
        right_C = (predictions_UC & labels_UC).sum(axis=0)
        return float(_f1(right_C, (predictions_UC + labels_UC).sum(axis=0)).mean())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairCounts:
    """Macro F1 or MCC of classes, from how often each pair of label and prediction occurs.

    Attributes:
        metric: Which of them.
        pair_U: The pair of each example.
        label_P: Class that is the label in a pair, numbered without gaps.
        prediction_P: Class that is predicted.
        classes: How many there are.
    """

    metric: Literal["f1_macro", "mcc"]
    pair_U: NDArray[np.int64]  # noqa: N815
    label_P: NDArray[np.int64]  # noqa: N815
    prediction_P: NDArray[np.int64]  # noqa: N815
    classes: int

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.pair_U)

    def score(self, chosen: NDArray[np.int64] | None = None) -> float:
        """Scores the chosen examples, all by default."""
        pair_U = self.pair_U if chosen is None else self.pair_U[chosen]
        count_P = np.bincount(pair_U, minlength=len(self.label_P))
        is_right_P = self.label_P == self.prediction_P
        label_C, predicted_C, right_C = (
            np.bincount(classes, weights=weights, minlength=self.classes)
            for classes, weights in (
                (self.label_P, count_P),
                (self.prediction_P, count_P),
                (self.label_P, count_P * is_right_P),
            )
        )
        if self.metric == "mcc":
            return _mcc(right_C, predicted_C, label_C)
        there_C = label_C + predicted_C
        return float(_f1(right_C, there_C)[there_C > 0].mean())


def pair_counts(
    metric: Literal["f1_macro", "mcc"], predictions: NDArray[Any], labels: NDArray[Any]
) -> PairCounts:
    """Counts pairs of `[U]` labels and predictions."""
    classes, numbered = np.unique(np.concatenate([labels, predictions]), return_inverse=True)
    both_U = numbered[: len(labels)] * len(classes) + numbered[len(labels) :]
    pairs_P, pair_U = np.unique(both_U, return_inverse=True)
    return PairCounts(
        metric=metric,
        pair_U=pair_U,
        label_P=pairs_P // len(classes),
        prediction_P=pairs_P % len(classes),
        classes=len(classes),
    )


def _f1(right_C: NDArray[Any], there_C: NDArray[Any]) -> NDArray[np.float64]:
    """2 TP over how often a class is label or prediction; 0 where it is neither."""
    f1_C: NDArray[np.float64] = np.zeros(len(there_C))
    np.divide(2.0 * right_C, there_C, out=f1_C, where=there_C > 0)
    return f1_C


def _mcc(right_C: NDArray[Any], predicted_C: NDArray[Any], label_C: NDArray[Any]) -> float:
    """Gives the correlation of classes; 0 with a constant.

    Source: Gorodkin 2004, Computational Biology and Chemistry 28.
    """
    units = label_C.sum()
    spreads = [units**2 - float(count_C @ count_C) for count_C in (predicted_C, label_C)]
    if 0 in spreads:
        return 0.0
    above = units * right_C.sum() - float(predicted_C @ label_C)
    return float(above / np.sqrt(spreads[0] * spreads[1]))
