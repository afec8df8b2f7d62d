import pytest

from stillhouse.recipe.kd_nas import best_by_reward, controller_settings, target_ms, with_reward
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.settings import SearchSettings
from stillhouse.search.loop import Judgement
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture

SHAPE = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=64)


def screened(latency_ms, teacher_ms):
    return Trial(
        number=0,
        architecture=SHAPE,
        state=TrialState.RUNNING,
        latency_ms=latency_ms,
        attributes={"teacher_latency_ms": teacher_ms},
    )


def rewarded(number, reward, **changes):
    made = {"state": TrialState.COMPLETE, "quality": 0.5, "latency_ms": 1.0, **changes}
    return Trial(number=number, architecture=SHAPE, attributes={"reward": reward}, **made)


@pytest.mark.parametrize(
    ("limits", "expected_ms"),
    [
        ({}, 6.0),  # β · 10 ms
        ({"latency_ms": 4.0}, 4.0),
        ({"speedup": 4.0}, 2.5),
        ({"speedup": 2.0, "latency_ms": 3.0}, 3.0),
        ({"size_mb": 4.0}, 6.0),
    ],
)
def test_a_limit_on_latency_replaces_the_share_of_the_teachers(limits, expected_ms):
    assert target_ms(SearchSettings(), LimitSettings(**limits), 10.0) == expected_ms


def test_at_the_target_the_reward_is_the_quality():
    judged = with_reward(
        SearchSettings(), LimitSettings(), screened(6.0, 10.0), Judgement(quality=0.8)
    )
    assert judged.attributes["reward"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        # A student of a tenth of the target: 0.1 ** -0.06 and 0.1 ** -0.02.
        ({"controller": "published"}, 1.148154),
        ({}, 1.047129),
        ({"controller": "published", "alpha": 0.0}, 1.0),
    ],
)
def test_a_faster_student_is_rewarded_by_the_exponent(settings, factor):
    judged = with_reward(
        SearchSettings(**settings), LimitSettings(), screened(0.6, 10.0), Judgement(quality=0.8)
    )
    assert judged.attributes["reward"] == pytest.approx(0.8 * factor, rel=1e-5)
    assert judged.quality == 0.8


def test_the_teacher_of_the_same_measurement_is_the_reference():
    """On a machine that became twice as slow, both latencies double and the reward stays."""
    quiet, noisy = (
        with_reward(SearchSettings(), LimitSettings(), trial, Judgement(quality=0.7))
        for trial in (screened(2.0, 10.0), screened(4.0, 20.0))
    )
    assert quiet.attributes["reward"] == noisy.attributes["reward"]


def stopped_with(number, reward):
    return Trial(
        number=number,
        architecture=SHAPE,
        state=TrialState.STOPPED,
        latency_ms=1.0,
        attributes={"reward": reward, "rung_qualities": [0.9]},
    )


def test_the_best_by_reward_is_no_repeat_and_the_earliest_of_equals():
    trials = [
        rewarded(0, 0.5),
        rewarded(1, 0.9),
        rewarded(2, 0.9),
        rewarded(3, 0.9, repeat_of=1),
        rewarded(4, None, state=TrialState.FAILED, quality=None),
        stopped_with(5, reward=0.95),
    ]
    assert best_by_reward(trials).number == 1
    assert best_by_reward(trials[4:]) is None


def test_the_constants_by_name():
    published = controller_settings(SearchSettings(strategy="controller", controller="published"))
    assert (published.episodes, published.per_episode) == (15, 20)
    assert published.learning_rate == 1e-4
    default = controller_settings(SearchSettings(strategy="controller", candidates=40))
    assert default.episodes * default.per_episode == 40
