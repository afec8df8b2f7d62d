import numpy as np
import pytest
from scipy import stats

from stillhouse.errors import SettingsError
from stillhouse.evaluate.resampling import Ratio, interval_of, mean_of, resampled


def test_a_ratio_is_of_sums_over_the_chosen_units():
    ratio = Ratio(above_U=np.array([1, 0, 3]), below_U=np.array([2, 2, 4]))
    assert len(ratio) == 3
    assert ratio.score() == pytest.approx(4 / 8)
    assert ratio.score(np.array([0, 0, 2])) == pytest.approx(5 / 8)


def test_nothing_over_nothing_is_zero():
    ratio = Ratio(above_U=np.zeros(2, dtype=int), below_U=np.zeros(2, dtype=int))
    assert ratio.score() == 0.0


def test_the_interval_of_a_share_is_the_binomial_one():
    right = np.repeat([1, 0], [320, 80])
    expected = stats.binom(400, 0.8).ppf([0.025, 0.975]) / 400
    assert interval_of(mean_of(right), seed=0, resamples=10_000) == pytest.approx(
        expected, abs=0.004
    )


def test_the_seed_decides_which_units_are_drawn():
    draws = [np.concatenate(list(resampled(9, seed=seed, resamples=4))) for seed in (3, 3, 4)]
    assert draws[0].shape == (36,)
    assert draws[0].min() >= 0
    assert draws[0].max() <= 8
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_there_is_at_least_one_resample():
    with pytest.raises(SettingsError, match="resamples is 0"):
        interval_of(mean_of(np.ones(3)), seed=0, resamples=0)
