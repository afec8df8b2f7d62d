"""The names of the metrics, which kind of task each one is for, and a task's choice among them.

The figures themselves are computed in `evaluate.metrics`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from stillhouse.errors import SettingsError, did_you_mean

ClassificationMetric: TypeAlias = Literal["accuracy", "f1", "f1_macro", "mcc"]
MultiLabelMetric: TypeAlias = Literal["f1_micro", "f1_macro", "subset_accuracy"]
RegressionMetric: TypeAlias = Literal["pearson", "spearman"]
TagMetric: TypeAlias = Literal["entity_f1", "entity_precision", "entity_recall", "tag_accuracy"]
SpanMetric: TypeAlias = Literal["exact_match", "answer_f1"]
MetricName: TypeAlias = (
    ClassificationMetric | MultiLabelMetric | RegressionMetric | TagMetric | SpanMetric
)

TaskKind: TypeAlias = Literal["classes", "multi_label", "scores", "tags", "spans"]
"""What a label is: one class, any number of classes, a real number (regression), a tag for every
word, or the part of a passage that answers a question."""

CLASSIFICATION_METRICS: tuple[ClassificationMetric, ...] = get_args(ClassificationMetric)
MULTI_LABEL_METRICS: tuple[MultiLabelMetric, ...] = get_args(MultiLabelMetric)
REGRESSION_METRICS: tuple[RegressionMetric, ...] = get_args(RegressionMetric)
TAG_METRICS: tuple[TagMetric, ...] = get_args(TagMetric)
SPAN_METRICS: tuple[SpanMetric, ...] = get_args(SpanMetric)
METRICS: tuple[MetricName, ...] = tuple(
    dict.fromkeys(
        (
            *CLASSIFICATION_METRICS,
            *MULTI_LABEL_METRICS,
            *REGRESSION_METRICS,
            *TAG_METRICS,
            *SPAN_METRICS,
        )
    )
)
USUAL_METRICS: dict[TaskKind, tuple[MetricName, ...]] = {
    "classes": ("accuracy", "f1_macro"),
    "multi_label": ("f1_micro", "f1_macro", "subset_accuracy"),
    "scores": ("pearson", "spearman"),
    "tags": ("entity_f1", "entity_precision", "entity_recall", "tag_accuracy"),  # of chunks
    "spans": ("answer_f1", "exact_match"),
}
"""Metrics of a task that has none of its own, primary first."""

_ALLOWED: dict[TaskKind, tuple[str, tuple[MetricName, ...]]] = {
    "classes": ("classification", CLASSIFICATION_METRICS),
    "multi_label": ("multi-label", MULTI_LABEL_METRICS),
    "scores": ("regression", REGRESSION_METRICS),
    "tags": ("tagging", TAG_METRICS),
    "spans": ("question-answering", SPAN_METRICS),
}


def metric_name(text: str) -> MetricName:
    """Reads a metric's name.

    Raises:
        SettingsError: If there is no such metric.
    """
    for known in METRICS:
        if text == known:
            return known
    raise SettingsError(
        f"there is no metric {text!r}; choose one of {', '.join(METRICS)}"
        f"{did_you_mean(text, METRICS)}"
    )


def order_metrics(
    defaults: tuple[MetricName, ...], chosen: str | None, *, kind: TaskKind, classes: int
) -> tuple[MetricName, ...]:
    """Puts the chosen metric before a task's usual ones.

    Args:
        defaults: The task's usual metrics, primary first.
        chosen: The metric that shall come first; `None` keeps the usual order.
        kind: What the task's labels are.
        classes: Number of classes.

    Returns:
        The metrics without repetition, primary first.

    Raises:
        SettingsError: If the chosen metric does not exist or does not fit the task.
    """
    if chosen is None:
        return defaults
    metric = metric_name(chosen)
    called, allowed = _ALLOWED[kind]
    if metric not in allowed:
        hint = ""
        if kind == "classes" and metric in MULTI_LABEL_METRICS:
            hint = "; labels of a multi-label task are lists, in a .jsonl or .parquet file"
        raise SettingsError(
            f"metric {metric!r} does not fit a {called} task; choose one of "
            f"{', '.join(allowed)}{hint}"
        )
    if kind == "tags" and metric not in (*defaults, "tag_accuracy"):
        raise SettingsError(
            f"metric {metric!r} is for tags of chunks such as 'B-NP', 'I-NP' and 'O', which the "
            "task's are not; choose 'tag_accuracy'"
        )
    if metric == "f1" and classes != 2:  # noqa: PLR2004
        raise SettingsError(
            f"metric 'f1' needs two classes, but the task has {classes}; choose 'f1_macro'"
        )
    return (metric, *(name for name in defaults if name != metric))
