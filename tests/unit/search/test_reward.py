import math

import pytest

from stillhouse.errors import SettingsError
from stillhouse.search.reward import ALPHA, BETA, Reward
from stillhouse.search.trial import TrialState


def test_constants_of_the_paper():
    assert (ALPHA, BETA) == (-0.06, 0.6)
    assert Reward(target_ms=1).alpha == -0.06


def test_breaks_even_at_the_target():
    assert Reward(target_ms=0.6 * 10)(0.8, 6.0) == pytest.approx(0.8)


def test_a_student_64_times_as_fast_gains_28_percent():
    # 64^0.06 = 2^0.36 = 1.2834
    assert Reward(target_ms=64)(0.5, 1.0) == pytest.approx(0.5 * 1.2834, rel=1e-4)
    assert Reward(target_ms=1)(0.5, 64.0) == pytest.approx(0.5 / 1.2834, rel=1e-4)


def test_quality_is_clipped_below():
    reward = Reward(target_ms=2)
    assert reward(-3.0, 2.0) == reward(0.0, 2.0) == 0.01


def test_without_an_exponent_only_the_quality_counts():
    assert Reward(target_ms=2, alpha=0)(0.7, 123.0) == pytest.approx(0.7)


def test_of_a_trial(make_trial):
    reward = Reward(target_ms=1)
    assert reward.of(make_trial(quality=0.7, latency_ms=1.0)) == pytest.approx(0.7)
    for state in (TrialState.FAILED, TrialState.INFEASIBLE, TrialState.RUNNING):
        assert reward.of(make_trial(state=state, latency_ms=1.0)) is None


@pytest.mark.parametrize("target_ms", [0, -1.0, math.inf, math.nan])
def test_impossible_targets(target_ms):
    with pytest.raises(SettingsError, match=f"above 0 ms, got {target_ms}"):
        Reward(target_ms=target_ms)


@pytest.mark.parametrize("alpha", [0.06, -math.inf, math.nan])
def test_impossible_exponents(alpha):
    with pytest.raises(SettingsError, match=f"at most 0, got {alpha}"):
        Reward(target_ms=1, alpha=alpha)


def test_no_latency_is_a_mistake():
    with pytest.raises(ValueError, match="above 0 ms, got 0"):
        Reward(target_ms=1)(0.5, 0.0)
