import json

import numpy as np
import pytest
from scipy.stats import bootstrap, spearmanr

from stillhouse.search.episodes import (
    EpisodeReport,
    controller_summary,
    learnt,
    rank_correlation,
)


def report(predicted=(), rewards=(), number=0, trained_on=5, random=2, exploited=3):
    return EpisodeReport(
        number=number,
        epsilon=0.5,
        trials=tuple(range(random + exploited)),
        random=random,
        exploited=exploited,
        failed=0,
        infeasible=0,
        best_reward=max(rewards, default=None),
        predicted=tuple(predicted),
        rewards=tuple(rewards),
        correlation=rank_correlation(predicted, rewards),
        trained_on=trained_on,
    )


def noisy(count, noise, seed=0):
    generator = np.random.default_rng(seed)
    rewards = generator.normal(size=count)
    return (rewards + noise * generator.normal(size=count)).tolist(), rewards.tolist()


def test_rank_correlation_agrees_with_scipy():
    predicted, rewards = [1.0, 2.0, 2.0, 5.0, 0.0], [0.1, 0.4, 0.2, 0.3, 0.3]
    expected = spearmanr(predicted, rewards).statistic
    assert rank_correlation(predicted, rewards) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [([], []), ([1.0, 2.0], [1.0, 2.0]), ([1.0] * 3, [1.0, 2, 3])])
def test_no_rank_correlation(pairs):
    assert rank_correlation(*pairs) is None


def test_an_interval_like_that_of_scipy():
    predicted, rewards = noisy(40, 1.0)
    verdict = learnt([report(predicted, rewards)])
    assert verdict.value == pytest.approx(spearmanr(predicted, rewards).statistic)
    theirs = bootstrap(
        (predicted, rewards),
        lambda one, other: spearmanr(one, other).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (verdict.low, verdict.high) == pytest.approx((theirs.low, theirs.high), abs=0.04)


def test_a_controller_that_has_learnt():
    verdict = learnt([report(*noisy(30, 0.3))])
    assert verdict.has_learnt
    assert verdict.count == 30
    assert verdict.wording.startswith("The controller has learnt: its predictions agree")
    assert verdict.wording.endswith("n = 30); 40 % of the proposals were random.")


def test_a_controller_that_has_learnt_nothing():
    predicted, rewards = noisy(40, 0.0)
    verdict = learnt([report(np.random.default_rng(9).permutation(predicted).tolist(), rewards)])
    assert verdict.has_learnt is False
    assert verdict.low < 0 < verdict.high
    assert verdict.wording.startswith("The controller has learnt nothing: its predictions do not")
    assert "95 % interval −0." in verdict.wording


def test_predictions_of_an_untrained_model_do_not_count():
    episodes = [report(*noisy(20, 0.0), trained_on=0), report(*noisy(7, 0.0), number=1)]
    verdict = learnt(episodes)
    assert (verdict.count, verdict.value, verdict.low, verdict.high) == (7, None, None, None)
    assert verdict.has_learnt is None
    assert "7 outcomes that a trained model predicted are too few" in verdict.wording


def test_episodes_are_pooled():
    predicted, rewards = noisy(10, 0.1)
    halves = [report(predicted[:5], rewards[:5]), report(predicted[5:], rewards[5:], number=1)]
    assert learnt(halves).value == learnt([report(predicted, rewards)]).value


def test_equal_outcomes_say_nothing():
    verdict = learnt([report([0.1 * place for place in range(9)], [0.5] * 9)])
    assert (verdict.value, verdict.has_learnt) == (None, None)
    assert "all the same" in verdict.wording


def test_share_of_random_proposals():
    episodes = [report(random=5, exploited=0), report(random=1, exploited=4, number=1)]
    assert learnt(episodes).random_share == 0.6
    assert learnt([]).random_share == 0.0


def test_summary_is_plain_data():
    summary = controller_summary([report(*noisy(9, 0.3)), report(number=1)])
    assert json.loads(json.dumps(summary)) == summary
    assert list(summary) == ["episodes", "random_share", "correlation", "has_learnt", "verdict"]
    assert list(summary["correlation"]) == ["value", "low", "high", "count"]
    assert set(summary["episodes"][0]) == {
        "number", "epsilon", "trials", "random", "exploited", "failed", "infeasible",
        "best_reward", "predicted", "rewards", "correlation", "trained_on",
    }  # fmt: skip
    assert summary["episodes"][1]["best_reward"] is None
