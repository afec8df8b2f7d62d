"""The names of the metrics, which kind of task each one is for, and a task's choice among them.

The figures themselves are computed in `evaluate.metrics`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from stillhouse.errors import SettingsError

ClassificationMetric: TypeAlias = Literal["accuracy", "f1", "f1_macro", "mcc"]
RegressionMetric: TypeAlias = Literal["pearson", "spearman"]
MetricName: TypeAlias = ClassificationMetric | RegressionMetric

CLASSIFICATION_METRICS: tuple[ClassificationMetric, ...] = get_args(ClassificationMetric)
REGRESSION_METRICS: tuple[RegressionMetric, ...] = get_args(RegressionMetric)


def metric_name(text: str) -> MetricName:
    """Reads a metric's name.

    Raises:
        SettingsError: If there is no such metric.
    """
    for known in (*CLASSIFICATION_METRICS, *REGRESSION_METRICS):
        if text == known:
            return known
    names = ", ".join((*CLASSIFICATION_METRICS, *REGRESSION_METRICS))
    raise SettingsError(f"there is no metric {text!r}; choose one of {names}")


def order_metrics(
    defaults: tuple[MetricName, ...], chosen: str | None, *, classes: int
) -> tuple[MetricName, ...]:
    """Puts the chosen metric before a task's usual ones.

    Args:
        defaults: The task's usual metrics, primary first.
        chosen: The metric that shall come first; `None` keeps the usual order.
        classes: Number of classes; 0 for regression.

    Returns:
        The metrics without repetition, primary first.

    Raises:
        SettingsError: If the chosen metric does not exist or does not fit the task.
    """
    if chosen is None:
        return defaults
    metric = metric_name(chosen)
    allowed: tuple[MetricName, ...] = CLASSIFICATION_METRICS if classes else REGRESSION_METRICS
    if metric not in allowed:
        kind = "classification" if classes else "regression"
        raise SettingsError(
            f"metric {metric!r} does not fit a {kind} task; choose one of {', '.join(allowed)}"
        )
    if metric == "f1" and classes != 2:  # noqa: PLR2004
        raise SettingsError(
            f"metric 'f1' needs two classes, but the task has {classes}; choose 'f1_macro'"
        )
    return (metric, *(name for name in defaults if name != metric))
