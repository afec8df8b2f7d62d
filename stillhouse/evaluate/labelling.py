"""Labels of examples, scored by scikit-learn and SciPy: classes, sets of classes, and numbers.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, assert_never

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from stillhouse.data.metric_names import (
    MULTI_LABEL_METRICS,
    REGRESSION_METRICS,
    ClassificationMetric,
    MultiLabelMetric,
    RegressionMetric,
)
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.logits import checked_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.metric_names import MetricName
    from stillhouse.evaluate.resampling import Scored

LabelMetric: TypeAlias = ClassificationMetric | MultiLabelMetric | RegressionMetric


def label_scores(
    metrics: Sequence[MetricName], logits: ArrayLike, labels: ArrayLike
) -> dict[MetricName, Scored]:
    """Judges the labels that a model gives to examples; these are the units.

    Args:
        metrics: Names of metrics of examples.
        logits: `[N, C]` for classes, `[N, 1]` or `[N]` for regression.
        labels: `[N]` classes from 0, `[N, C]` 0 or 1, or `[N]` numbers.

    Raises:
        SettingsError: If a metric does not fit the labels or the number of classes.
        DataError: If the examples are none, or logits and labels do not belong together.
        TrainingError: If a logit is not finite.
    """
    return {metric: _answers(label_metric(metric), logits, labels) for metric in metrics}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelAnswers:
    """Checked predictions beside their labels: `[N]` classes or numbers, or `[N, C]` 0 or 1."""

    metric: LabelMetric
    predictions: NDArray[Any]
    labels: NDArray[Any]

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def score(self, chosen: NDArray[np.int64] | None = None) -> float:
        """Scores the chosen examples, all by default."""
        predictions, labels = self.predictions, self.labels
        if chosen is not None:
            predictions, labels = predictions[chosen], labels[chosen]
        match self.metric:
            case "accuracy" | "subset_accuracy":
                return float(sklearn_metrics.accuracy_score(labels, predictions))
            case "f1":
                return float(sklearn_metrics.f1_score(labels, predictions, zero_division=0.0))
            case "f1_macro" | "f1_micro":
                average = self.metric.removeprefix("f1_")
                return float(
                    sklearn_metrics.f1_score(
                        labels, predictions, average=average, zero_division=0.0
                    )
                )
            case "mcc" | "pearson" | "spearman":
                return _correlation(self.metric, predictions, labels)
            case _:
                assert_never(self.metric)


def _correlation(
    metric: Literal["mcc", "pearson", "spearman"],
    predictions: NDArray[Any],
    labels: NDArray[Any],
) -> float:
    """Gives a correlation; 0 with a constant, where the libraries give NaN or a warning."""
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:
        return 0.0
    if metric == "mcc":
        return float(sklearn_metrics.matthews_corrcoef(labels, predictions))
    statistic: Any = stats.pearsonr if metric == "pearson" else stats.spearmanr
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        value = float(statistic(predictions, labels).statistic)
    return value if np.isfinite(value) else 0.0


def label_metric(metric: MetricName) -> LabelMetric:
    """Refuses a metric of something else than examples."""
    match metric:
        case "entity_f1" | "entity_precision" | "entity_recall" | "tag_accuracy":
            need = "tags of words"
        case "exact_match" | "answer_f1":
            need = "questions with their answers"
        case _:
            return metric
    raise SettingsError(f"metric {metric!r} needs {need}, but the task has labels of examples")


def _answers(name: LabelMetric, logits: ArrayLike, labels: ArrayLike) -> LabelAnswers:
    """Checks logits and labels and turns logits into predictions.

    Raises:
        SettingsError, DataError, TrainingError: As `label_scores`.
    """
    logits_NC, labels_N = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    logits_NC = logits_NC[:, None] if logits_NC.ndim == 1 else logits_NC
    fits = labels_N.shape in (logits_NC.shape[:1], logits_NC.shape)
    if logits_NC.ndim != 2 or not fits or not labels_N.size:  # noqa: PLR2004
        raise DataError(
            "metrics need logits of shape [N, C] and labels of shape [N], or [N, C] for a "
            f"multi-label task, N at least 1, but got {list(logits_NC.shape)} and "
            f"{list(labels_N.shape)}"
        )
    logits_NC = checked_logits(logits_NC)
    if labels_N.ndim > 1:
        return _label_set_answers(name, logits_NC, labels_N)
    classes = logits_NC.shape[1]
    _check_fit(name, classes)
    if name in REGRESSION_METRICS:
        if not np.isfinite(labels_N).all():
            raise DataError("labels hold NaN or infinity; score labelled examples only")
        return LabelAnswers(
            metric=name, predictions=logits_NC[:, 0], labels=labels_N.astype(np.float64)
        )
    if labels_N.dtype.kind not in "iub" or labels_N.min() < 0 or labels_N.max() >= classes:
        raise DataError(
            f"labels are class numbers 0 to {classes - 1}, but hold {labels_N.dtype} numbers from "
            f"{labels_N.min()} to {labels_N.max()}; score labelled examples only"
        )
    predictions_N = logits_NC.argmax(axis=1)
    return LabelAnswers(metric=name, predictions=predictions_N, labels=labels_N.astype(np.int64))


def _label_set_answers(
    metric: LabelMetric, logits_NC: NDArray[np.float64], labels_NC: NDArray[Any]
) -> LabelAnswers:
    if metric not in MULTI_LABEL_METRICS or labels_NC.shape[1] == 1:
        raise SettingsError(
            f"metric {metric!r} does not fit labels of shape {list(labels_NC.shape)}; of two or "
            f"more classes an example choose one of {', '.join(MULTI_LABEL_METRICS)}"
        )
    if not np.isin(labels_NC, (0, 1)).all():
        raise DataError(
            "labels of a multi-label task are 0 or 1, but hold other numbers or NaN; score "
            "labelled examples only"
        )
    return LabelAnswers(
        metric=metric,
        predictions=(logits_NC > 0).astype(np.int64),
        labels=labels_NC.astype(np.int64),
    )


def _check_fit(metric: LabelMetric, classes: int) -> None:
    match metric:
        case "pearson" | "spearman":
            fits, need = classes == 1, "one output (regression)"
        case "f1":
            fits, need = classes == 2, "two classes; choose f1_macro for more"  # noqa: PLR2004
        case "accuracy" | "f1_macro" | "mcc":
            fits, need = classes > 1, "an output for every class"
        case "f1_micro" | "subset_accuracy":
            fits, need = False, "labels of shape [N, C] (multi-label)"
        case _:
            assert_never(metric)
    if not fits:
        raise SettingsError(f"metric {metric!r} needs {need}, but the model has {classes} outputs")
