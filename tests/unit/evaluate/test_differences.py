import math

import numpy as np
import pytest
from scipy import stats

from stillhouse.data.metric_names import metric_name
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.differences import (
    Resampled,
    Scores,
    holm,
    paired_difference,
    resample,
    seed_difference,
    unpaired_difference,
)
from stillhouse.evaluate.metrics import judge, paired_bootstrap
from stillhouse.evaluate.resampling import mean_of

UNITS = 900
RESAMPLES = 4_000


def draws(scored, resamples=RESAMPLES):
    return resample(scored, seed=5, resamples=resamples)


def answers(right_fraction, generator, units=UNITS):
    return mean_of((generator.random(units) < right_fraction).astype(np.int8))


def half_width(one):
    return (one.high - one.low) / 2


def test_the_interval_is_that_of_a_paired_t_test():
    generator = np.random.default_rng(0)
    first, second = answers(0.8, generator), answers(0.75, generator)
    gaps = first.above_U.astype(float) - second.above_U
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(0.95)

    found = paired_difference([draws(first)], [draws(second)])

    assert found.value == pytest.approx(gaps.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-3)
    assert found.p == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.02)
    assert found.is_paired
    assert not found.has_seeds


def test_it_is_the_paired_bootstrap_of_two_models():
    generator = np.random.default_rng(1)
    labels = generator.integers(2, size=120)
    logits = [generator.normal(size=(120, 2)) for _ in range(2)]
    judged = [judge(["f1"], one, labels)[metric_name("f1")] for one in logits]
    expected = paired_bootstrap("f1", *logits, labels, seed=5, resamples=300)

    found = paired_difference(*([draws(one, 300)] for one in judged))

    assert (found.value, found.low, found.high) == pytest.approx(expected)


def test_what_is_hard_for_both_cancels_out():
    generator = np.random.default_rng(2)
    first = answers(0.8, generator)
    flipped = first.above_U.copy()
    flipped[:9] = 1 - flipped[:9]
    second = mean_of(flipped)

    paired = paired_difference([draws(first)], [draws(second)])
    ends = [Scores(value=one.score(), **_interval(one)) for one in (first, second)]
    alone = unpaired_difference([ends[0]], [ends[1]])

    assert half_width(paired) < half_width(alone) / 3


def _interval(scored):
    value = scored.score()
    reach = 1.96 * math.sqrt(value * (1 - value) / len(scored))
    return {"low": value - reach, "high": value + reach}


def test_the_same_answers_differ_by_nothing():
    one = draws(answers(0.7, np.random.default_rng(3)))
    found = paired_difference([one], [one])

    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def certain(*shares, units=50):
    """Models whose units are all alike, so that only seeds differ."""
    return [draws(mean_of(np.full(units, share))) for share in shares]


def test_seeds_alone_are_compared_as_welch_does():
    """Without examples to draw (all of a seed's units alike) only the spread of seeds is left."""
    qualities = [0.70, 0.74, 0.72, 0.79], [0.6, 0.64]
    expected = stats.ttest_ind(*qualities, equal_var=False)
    ends = expected.confidence_interval(0.95)

    found = paired_difference(*(certain(*side) for side in qualities))

    assert found.value == pytest.approx(np.mean(qualities[0]) - 0.62)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.has_seeds


def test_two_seeds_against_one_have_the_spread_of_the_two():
    found = paired_difference(certain(0.5, 0.7), certain(0.5))

    reach = stats.t.ppf(0.975, 1) * 0.1  # of the mean of two that are 0.2 apart
    assert (found.low, found.high) == pytest.approx((0.1 - reach, 0.1 + reach))
    assert not found.has_seeds  # of the other there is one


def test_equal_seeds_leave_the_interval_over_examples():
    generator = np.random.default_rng(8)
    first, second = draws(answers(0.8, generator)), draws(answers(0.7, generator))
    once = paired_difference([first], [second])
    twice = paired_difference([first] * 2, [second] * 2)

    assert (twice.value, twice.low, twice.high, twice.p) == pytest.approx(
        (once.value, once.low, once.high, once.p)
    )


def test_a_difference_far_from_none_has_a_probability_below_that_of_the_resamples():
    """Were 1 in 2,000 resamples the least, no difference among sixty could be resolved."""
    generator = np.random.default_rng(9)
    first, second = answers(0.8, generator), answers(0.7, generator)
    gaps = first.above_U.astype(float) - second.above_U
    found = paired_difference([draws(first)], [draws(second)])

    expected = stats.ttest_1samp(gaps, 0).pvalue
    assert np.log(found.p) == pytest.approx(np.log(expected), rel=0.2)
    assert holm([found.p] * 60)[0] < 0.01


def by_chance(generator, seeds, spread):
    """Two methods without a difference: examples are hard for both, for one, and for a seed."""
    units, resamples = 80, 150
    counts_EU = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), resamples)
    hard_U = generator.normal(size=units)
    sides = []
    for _ in range(2):
        own_U = hard_U + generator.normal(size=units)
        scores_GU = own_U + generator.normal(size=(seeds, units))
        scores_GU += spread * generator.normal(size=(seeds, 1))
        sides.append(
            [
                Resampled(value=one.mean(), units=units, scores_E=counts_EU @ one / units)
                for one in scores_GU
            ]
        )
    return sides


@pytest.mark.parametrize(
    ("seeds", "spread"),
    [(1, 0.0), *((seeds, spread) for seeds in (2, 3, 5) for spread in (0.0, 0.3, 3.0))],
)
def test_chance_is_seldom_called_a_difference(seeds, spread):
    """Of 400 comparisons without a difference 5 % are meant to be called one."""
    generator = np.random.default_rng([seeds, round(10 * spread)])
    sides = [by_chance(generator, seeds, spread) for _ in range(400)]
    found = [paired_difference(*both) for both in sides]

    false = np.mean([one.p < 0.05 for one in found])
    assert 0.01 <= false <= 0.09
    assert 0.01 <= np.mean([one.excludes_zero for one in found]) <= 0.09


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_chance_is_seldom_called_a_difference_unpaired(seeds):
    generator = np.random.default_rng(seeds)
    false = 0
    for _ in range(400):
        sides = [
            [Scores(value=value, low=value - 0.1, high=value + 0.1) for value in side]
            for side in generator.normal(size=(2, seeds))
        ]
        false += unpaired_difference(*sides).p < 0.05
    assert 0.01 <= false / 400 <= 0.09


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        hard = generator.random(300)
        first = mean_of((hard + 0.1 * generator.normal(size=300) < 0.8).astype(float))
        second = mean_of((hard + 0.1 * generator.normal(size=300) < 0.8).astype(float))
        sides = [[resample(one, seed=1, resamples=300)] for one in (first, second)]
        found = paired_difference(*sides)
        held += found.low <= 0 <= found.high
    assert stats.binomtest(held, 200, 0.95).pvalue > 1e-3


def test_models_of_other_examples_are_refused():
    generator = np.random.default_rng(0)
    one, other = draws(answers(0.5, generator)), draws(answers(0.5, generator, units=10))
    with pytest.raises(DataError, match="same units"):
        paired_difference([one], [other])


def test_no_resample_is_refused():
    with pytest.raises(SettingsError, match="at least one resample"):
        resample(mean_of(np.ones(3)), seed=0, resamples=0)


def test_unpaired_intervals_are_those_of_two_normal_means():
    first, second = (
        Scores(value=value, low=value - 1.96 * error, high=value + 1.96 * error)
        for value, error in ((0.84, 0.012), (0.81, 0.009))
    )
    error = math.hypot(0.012, 0.009)
    found = unpaired_difference([first], [second])

    assert found.value == pytest.approx(0.03)
    assert found.low == pytest.approx(0.03 - 1.96 * error)
    assert found.high == pytest.approx(0.03 + 1.96 * error)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.03 / error), rel=1e-3)
    assert not found.is_paired


def test_skewed_intervals_keep_their_sides():
    """Zou and Donner: the lower end takes the lower side of one and the upper side of the other."""
    first = Scores(value=0.9, low=0.8, high=0.92)
    second = Scores(value=0.5, low=0.49, high=0.57)
    found = unpaired_difference([first], [second])

    assert found.low == pytest.approx(0.4 - math.hypot(0.1, 0.07))
    assert found.high == pytest.approx(0.4 + math.hypot(0.02, 0.01))


def test_unpaired_seeds_widen_and_examples_do_not_shrink():
    models = [Scores(value=value, low=value - 0.02, high=value + 0.02) for value in (0.80, 0.84)]
    other = Scores(value=0.8, low=0.8, high=0.8)
    found = unpaired_difference(models, [other])

    variances = (0.02 / 1.96) ** 2, np.var([0.80, 0.84], ddof=1) / 2
    degrees = sum(variances) ** 2 / variances[1] ** 2  # by Satterthwaite, with one of seeds
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(sum(variances))
    assert half_width(found) == pytest.approx(reach, rel=1e-3)
    assert found.p == pytest.approx(
        2 * stats.t.sf(0.02 * stats.t.ppf(0.975, degrees) / reach, degrees), rel=1e-3
    )
    same = unpaired_difference([models[0]] * 3, [other])
    assert half_width(same) == pytest.approx(0.02)


def test_certain_scores_are_told_apart_or_equal():
    low, high = (Scores(value=value, low=value, high=value) for value in (0.5, 0.6))
    assert unpaired_difference([high], [low]).p == 0
    assert unpaired_difference([low], [low]).p == 1


def test_figures_of_seeds_are_compared_as_welch_does():
    first, second = [0.83, 0.85, 0.84], [0.80, 0.82]
    found = seed_difference(first, second)
    means = np.mean(first), np.mean(second)
    errors = np.var(first, ddof=1) / 3, np.var(second, ddof=1) / 2
    degrees = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 1)
    reach = stats.t.ppf(0.975, degrees) * math.sqrt(sum(errors))

    assert found is not None
    assert found.value == pytest.approx(means[0] - means[1])
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))


def test_one_seed_has_no_spread():
    assert seed_difference([0.8], [0.7, 0.8]) is None
    flat = seed_difference([0.8, 0.8], [0.7, 0.7])
    assert flat is not None
    assert (flat.low, flat.p) == (pytest.approx(0.1), 0.0)


def test_holm_is_that_of_the_paper():
    """Multiplied by how many are left, never below an earlier one, never above 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
