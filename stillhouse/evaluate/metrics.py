"""Metrics of every kind of task, and their intervals.

Letters in names: N examples, P tokens of all examples in a row, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.answers import SpanGold, TagGold
from stillhouse.data.metric_names import (
    METRICS,
    REGRESSION_METRICS,
    MetricName,
    metric_name,
)
from stillhouse.evaluate.answering import answer_scores, constant_answer_quality
from stillhouse.evaluate.labelling import label_scores
from stillhouse.evaluate.resampling import interval, interval_of, resampled
from stillhouse.evaluate.tagging import constant_tag_quality, tag_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from stillhouse.evaluate.resampling import Scored


def metric_names() -> tuple[str, ...]:
    """Gives the name of every metric."""
    return METRICS


def score(
    metrics: Sequence[str], logits: ArrayLike, gold: ArrayLike | TagGold | SpanGold
) -> dict[str, float]:
    """Scores predictions.

    Args:
        metrics: Names of metrics, see `metric_names`. `f1` is that of class 1 of two; `f1_macro`
            is the mean over the classes that occur among labels or predictions, or over all
            classes of a multi-label task. Those of tags are as `tag_scores` says, those of
            questions as `answer_scores`.
        logits: `[N, C]` for classes, `[N, 1]` or `[N]` for regression, `[P, C]` for tags, `[P, 2]`
            for starts and ends of answers. A multi-label task's classes are predicted where their
            logit is above 0.
        gold: `[N]` classes from 0, `[N, C]` with 1 at an example's classes and 0 elsewhere for a
            multi-label task, `[N]` numbers, tags of words, or answers to questions.

    Returns:
        The scores by name, higher better. A correlation (and `mcc`) with a constant is 0.

    Raises:
        SettingsError: If a metric does not exist or does not fit the task.
        DataError: If the examples are none, or logits and gold do not belong together.
        TrainingError: If a logit is not finite.
    """
    return {name: scored.score() for name, scored in judge(metrics, logits, gold).items()}


def best_constant_f1(labels_NC: ArrayLike) -> float:
    """Gives the highest `f1_micro` of naming the same classes for every example.

    Args:
        labels_NC: 1 at the classes of an example, else 0.
    """
    present_NC = np.asarray(labels_NC)
    most_frequent_C = np.sort(present_NC.sum(axis=0))[::-1]
    named_C = len(present_NC) * np.arange(1, present_NC.shape[1] + 1)
    return float((2 * most_frequent_C.cumsum() / (named_C + most_frequent_C.sum())).max())


def constant_quality(metric: str, gold: ArrayLike | TagGold | SpanGold, *, classes: int) -> float:
    """Gives the best score of giving the same answer for every example, word or question.

    Args:
        metric: Name of the metric.
        gold: `[N]` classes or numbers, `[N, C]` 0 or 1, tags, or answers to questions.
        classes: C; 1 for numbers.

    Returns:
        The score; 0 for correlations, and for multi-label metrics other than `f1_micro`. To
        questions the only answer that can be the same is none.
    """
    if isinstance(gold, TagGold):
        return constant_tag_quality(metric_name(metric), gold)
    if isinstance(gold, SpanGold):
        return constant_answer_quality(metric_name(metric), gold)
    given = np.asarray(gold)
    if given.ndim > 1:
        return best_constant_f1(given) if metric == "f1_micro" else 0.0
    if metric in REGRESSION_METRICS:
        return 0.0
    answers = np.eye(classes)
    return max(
        score([metric], np.tile(answer, (len(given), 1)), given)[metric] for answer in answers
    )


def bootstrap(
    metric: str,
    logits: ArrayLike,
    gold: ArrayLike | TagGold | SpanGold,
    seed: int,
    resamples: int = 1_000,
) -> tuple[float, float]:
    """Gives the 95 % percentile interval of a score over resampled examples.

    Sentences of tagged words and questions are resampled as wholes.

    Args:
        metric: Name of the metric.
        logits: As for `score`.
        gold: As for `score`.
        seed: Decides the resamples.
        resamples: How many times as many examples are drawn with replacement.

    Returns:
        The interval's ends, lower first.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    (scored,) = judge([metric], logits, gold).values()
    return interval_of(scored, seed=seed, resamples=resamples)


def paired_bootstrap(
    metric: str,
    logits_a: ArrayLike,
    logits_b: ArrayLike,
    gold: ArrayLike | TagGold | SpanGold,
    seed: int,
    resamples: int = 1_000,
) -> tuple[float, float, float]:
    """Compares two models on the same examples, sentences or questions.

    Args:
        metric: Name of the metric.
        logits_a: Of the first model, as for `score`.
        logits_b: Of the second model.
        gold: As for `score`.
        seed: Decides the resamples.
        resamples: How many times as many examples are drawn with replacement.

    Returns:
        Score of the first less score of the second, and the lower and upper end of that
        difference's 95 % percentile interval.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    (first,) = judge([metric], logits_a, gold).values()
    (second,) = judge([metric], logits_b, gold).values()
    draws = resampled(len(first), seed=seed, resamples=resamples)
    differences = [first.score(chosen) - second.score(chosen) for chosen in draws]
    return (first.score() - second.score(), *interval(differences))


def judge(
    metrics: Sequence[str], logits: ArrayLike, gold: ArrayLike | TagGold | SpanGold
) -> Mapping[MetricName, Scored]:
    """Judges predictions once; what it gives can be scored on any part of the examples.

    Args:
        metrics: As for `score`.
        logits: As for `score`.
        gold: As for `score`.

    Raises:
        SettingsError, DataError, TrainingError: As `score`.
    """
    names = [metric_name(metric) for metric in metrics]
    if isinstance(gold, TagGold):
        return tag_scores(names, logits, gold)
    if isinstance(gold, SpanGold):
        return answer_scores(names, logits, gold)
    return label_scores(names, logits, gold)
