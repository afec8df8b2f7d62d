"""What a controller's episodes were, and whether they show that it has learnt anything."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from stillhouse.evaluate.agreement import FEWEST_PAIRS, Agreement, rank_agreement
from stillhouse.search.trial import JsonValue

_FEWEST_TO_CORRELATE = 3  # two points are always in perfect order, or in perfect disorder


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeReport:
    """What an episode proposed, and how well it was predicted.

    Args:
        number: From 0.
        epsilon: Share of random draws that was meant.
        trials: Numbers of its trials, infeasible ones included, repeats left out.
        random: How many of them were drawn at random.
        exploited: How many were taken for their predicted reward.
        failed: How many failed.
        infeasible: How many were over a hard limit.
        best_reward: Best reward of its complete trials, None without any.
        predicted: Predictions for its complete trials, made before the model saw any of them.
        rewards: What came out, in the same order.
        correlation: Rank correlation of the two; None below 3 trials or where one is constant.
        trained_on: Trials behind the predictions; 0 means that the model was untrained.
    """

    number: int
    epsilon: float
    trials: tuple[int, ...]
    random: int
    exploited: int
    failed: int
    infeasible: int
    best_reward: float | None
    predicted: tuple[float, ...]
    rewards: tuple[float, ...]
    correlation: float | None
    trained_on: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerVerdict:
    """Whether a controller has learnt anything, by predictions made before the outcome was known.

    Args:
        random_share: Share of the proposals of all episodes that were random, 0..1.
        value: Rank correlation of predictions and outcomes of all episodes with a trained model;
            None if there are too few, or all on one side are the same.
        low: Lower end of its 95 % interval, by bootstrap over the pairs.
        high: Upper end.
        count: How many pairs.
        has_learnt: Whether the lower end is above 0; None without a correlation.
        wording: The same in a sentence.
    """

    random_share: float
    value: float | None
    low: float | None
    high: float | None
    count: int
    has_learnt: bool | None
    wording: str


def learnt(reports: Sequence[EpisodeReport]) -> ControllerVerdict:
    """Judge a controller by its episodes.

    One episode has too few trials to tell, so the pairs of all are pooled; those of an untrained
    model are left out.
    """
    trained = [report for report in reports if report.trained_on]
    predicted = np.array([value for report in trained for value in report.predicted])
    true = np.array([value for report in trained for value in report.rewards])
    agreement = rank_agreement(predicted.tolist(), true.tolist(), seed=0)
    found = agreement.spearman
    share = _random_share(reports)
    return ControllerVerdict(
        random_share=share,
        value=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        count=agreement.count,
        has_learnt=None if found is None else found.low > 0,
        wording=f"{_finding(agreement)}; {100 * share:.0f} % of the proposals were random.",
    )


def controller_summary(reports: Sequence[EpisodeReport]) -> dict[str, JsonValue]:
    """Return episodes and verdict as plain data that JSON can hold."""
    verdict = learnt(reports)
    return {
        "episodes": [_plain(report) for report in reports],
        "random_share": verdict.random_share,
        "correlation": {
            "value": verdict.value,
            "low": verdict.low,
            "high": verdict.high,
            "count": verdict.count,
        },
        "has_learnt": verdict.has_learnt,
        "verdict": verdict.wording,
    }


def rank_correlation(
    predicted: Sequence[float] | NDArray[np.float64], true: Sequence[float] | NDArray[np.float64]
) -> float | None:
    """Return Spearman's correlation; None below 3 pairs or where one side is constant."""
    if len(true) < _FEWEST_TO_CORRELATE or min(np.ptp(predicted), np.ptp(true)) == 0:
        return None
    return float(np.corrcoef(rankdata(predicted), rankdata(true))[0, 1])


def _random_share(reports: Sequence[EpisodeReport]) -> float:
    random = sum(report.random for report in reports)
    proposals = random + sum(report.exploited for report in reports)
    return random / proposals if proposals else 0.0


def _finding(agreement: Agreement) -> str:
    found, count = agreement.spearman, agreement.count
    if count < FEWEST_PAIRS:
        return (
            f"Whether the controller has learnt cannot be said: {count} outcomes that a trained "
            "model predicted are too few"
        )
    if found is None:
        return (
            "Whether the controller has learnt cannot be said: its predictions or the outcomes "
            "are all the same"
        )
    value, low, high = found.value, found.low, found.high
    figures = (
        f"(rank correlation {_signed(value)}, 95 % interval {_signed(low)} to {_signed(high)}, "
        f"n = {count})"
    )
    if low > 0:
        return f"The controller has learnt: its predictions agree with what came out {figures}"
    return (
        "The controller has learnt nothing: its predictions do not agree with what came out "
        f"{figures}"
    )


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _plain(report: EpisodeReport) -> dict[str, JsonValue]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(report).items()
    }
