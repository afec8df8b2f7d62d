"""Metrics of every kind of task (scikit-learn's and SciPy's), and their intervals.

Shapes: N examples, C classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, assert_never

import numpy as np
from scipy import stats
from sklearn import metrics as sklearn_metrics

from stillhouse.data.metric_names import (
    METRICS,
    MULTI_LABEL_METRICS,
    REGRESSION_METRICS,
    MetricName,
    metric_name,
)
from stillhouse.errors import DataError, SettingsError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

LOWER_QUANTILE, UPPER_QUANTILE = 0.025, 0.975
"""Ends of a 95 % interval."""


def metric_names() -> tuple[str, ...]:
    """Gives the name of every metric."""
    return METRICS


def score(metrics: Sequence[str], logits: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Scores predictions.

    Args:
        metrics: Names of metrics, see `metric_names`. `f1` is that of class 1 of two; `f1_macro`
            is the mean over the classes that occur among labels or predictions, or over all
            classes of a multi-label task.
        logits: `[N, C]` for classes, `[N, 1]` or `[N]` for regression. A multi-label task's
            classes are predicted where their logit is above 0.
        labels: `[N]` classes from 0, `[N, C]` with 1 at an example's classes and 0 elsewhere for a
            multi-label task, or `[N]` numbers.

    Returns:
        The scores by name, higher better. A correlation (and `mcc`) with a constant is 0.

    Raises:
        SettingsError: If a metric does not exist or does not fit the number of classes.
        DataError: If the examples are none, or logits and labels do not belong together.
        TrainingError: If a logit is not finite.
    """
    return {name: _answers(name, logits, labels).score() for name in metrics}


def best_constant_f1(labels_NC: ArrayLike) -> float:
    """Gives the highest `f1_micro` of naming the same classes for every example.

    Args:
        labels_NC: 1 at the classes of an example, else 0.
    """
    present_NC = np.asarray(labels_NC)
    most_frequent_C = np.sort(present_NC.sum(axis=0))[::-1]
    named_C = len(present_NC) * np.arange(1, present_NC.shape[1] + 1)
    return float((2 * most_frequent_C.cumsum() / (named_C + most_frequent_C.sum())).max())


def constant_quality(metric: str, labels: ArrayLike, *, classes: int) -> float:
    """Gives the best score of giving the same answer for every example.

    Args:
        metric: Name of the metric.
        labels: `[N]` classes or numbers, or `[N, C]` 0 or 1.
        classes: C; 1 for numbers.

    Returns:
        The score; 0 for correlations, and for multi-label metrics other than `f1_micro`.
    """
    given = np.asarray(labels)
    if given.ndim > 1:
        return best_constant_f1(given) if metric == "f1_micro" else 0.0
    if metric in REGRESSION_METRICS:
        return 0.0
    answers = np.eye(classes)
    return max(
        score([metric], np.tile(answer, (len(given), 1)), given)[metric] for answer in answers
    )


def bootstrap(
    metric: str, logits: ArrayLike, labels: ArrayLike, seed: int, resamples: int = 1_000
) -> tuple[float, float]:
    """Gives the 95 % percentile interval of a score over resampled examples.

    Args:
        metric: Name of the metric.
        logits: `[N, C]`, or `[N, 1]` for regression.
        labels: `[N]` classes or numbers, or `[N, C]` 0 or 1.
        seed: Decides the resamples.
        resamples: How many times N examples are drawn with replacement.

    Returns:
        The interval's ends, lower first.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    answers = _answers(metric, logits, labels)
    draws = _resampled(len(answers), seed=seed, resamples=resamples)
    return _interval([answers.score(chosen) for chosen in draws])


def paired_bootstrap(
    metric: str,
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    labels: ArrayLike,
    seed: int,
    resamples: int = 1_000,
) -> tuple[float, float, float]:
    """Compares two models on the same examples.

    Args:
        metric: Name of the metric.
        logits_a: `[N, C]`, or `[N, 1]` for regression, of the first model.
        logits_b: The same of the second model.
        labels: `[N]` classes or numbers, or `[N, C]` 0 or 1.
        seed: Decides the resamples.
        resamples: How many times N examples are drawn with replacement.

    Returns:
        Score of the first less score of the second, and the lower and upper end of that
        difference's 95 % percentile interval.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    first, second = _answers(metric, logits_a, labels), _answers(metric, logits_b, labels)
    draws = _resampled(len(first), seed=seed, resamples=resamples)
    differences = [first.score(chosen) - second.score(chosen) for chosen in draws]
    return (first.score() - second.score(), *_interval(differences))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answers:
    """Checked predictions beside their labels: `[N]` classes or numbers, or `[N, C]` 0 or 1."""

    metric: MetricName
    predictions: NDArray[Any]
    labels: NDArray[Any]

    def __len__(self) -> int:
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


def _answers(metric: str, logits: ArrayLike, labels: ArrayLike) -> _Answers:
    """Checks logits and labels and turns logits into predictions.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    name = metric_name(metric)
    logits_NC, labels_N = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    logits_NC = logits_NC[:, None] if logits_NC.ndim == 1 else logits_NC
    fits = labels_N.shape in (logits_NC.shape[:1], logits_NC.shape)
    if logits_NC.ndim != 2 or not fits or not labels_N.size:  # noqa: PLR2004
        raise DataError(
            "metrics need logits of shape [N, C] and labels of shape [N], or [N, C] for a "
            f"multi-label task, N at least 1, but got {list(logits_NC.shape)} and "
            f"{list(labels_N.shape)}"
        )
    if not np.isfinite(logits_NC).all():
        raise TrainingError("logits hold NaN or infinity: training diverged; lower learning rates")
    if labels_N.ndim > 1:
        return _label_set_answers(name, logits_NC, labels_N)
    classes = logits_NC.shape[1]
    _check_fit(name, classes)
    if name in REGRESSION_METRICS:
        if not np.isfinite(labels_N).all():
            raise DataError("labels hold NaN or infinity; score labelled examples only")
        return _Answers(
            metric=name, predictions=logits_NC[:, 0], labels=labels_N.astype(np.float64)
        )
    if labels_N.dtype.kind not in "iub" or labels_N.min() < 0 or labels_N.max() >= classes:
        raise DataError(
            f"labels are class numbers 0 to {classes - 1}, but hold {labels_N.dtype} numbers from "
            f"{labels_N.min()} to {labels_N.max()}; score labelled examples only"
        )
    predictions_N = logits_NC.argmax(axis=1)
    return _Answers(metric=name, predictions=predictions_N, labels=labels_N.astype(np.int64))


def _label_set_answers(
    metric: MetricName, logits_NC: NDArray[np.float64], labels_NC: NDArray[Any]
) -> _Answers:
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
    return _Answers(
        metric=metric,
        predictions=(logits_NC > 0).astype(np.int64),
        labels=labels_NC.astype(np.int64),
    )


def _check_fit(metric: MetricName, classes: int) -> None:
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


def _resampled(examples: int, *, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yields `[N]` examples drawn with replacement, `resamples` times."""
    if resamples < 1:
        raise SettingsError(f"a bootstrap has at least one resample, but resamples is {resamples}")
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(examples, size=examples)


def _interval(scores: Sequence[float]) -> tuple[float, float]:
    low, high = np.quantile(scores, (LOWER_QUANTILE, UPPER_QUANTILE))
    return float(low), float(high)
