import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.agreement import FEWEST_PAIRS, Agreement, rank_agreement, regret

SMALL = st.integers(-4, 4)  # few values, so that ties are common


def pairs_of(least):
    return st.lists(st.tuples(SMALL, SMALL), min_size=least, max_size=20)


def agreement_of(pairs):
    proxy, final = zip(*pairs, strict=True)
    return rank_agreement(proxy, final, seed=0, resamples=20)


def noisy(count, seed=0, noise=0.3):
    generator = np.random.default_rng(seed)
    proxy = generator.random(count)
    return proxy, proxy + noise * generator.random(count)


@pytest.mark.parametrize("decimals", [1, 9])  # with ties, and without
def test_estimates_agree_with_scipy(decimals):
    proxy, final = (side.round(decimals) for side in noisy(25))

    found = rank_agreement(proxy, final, seed=0, resamples=50)

    assert found.kendall.value == pytest.approx(stats.kendalltau(proxy, final).statistic)
    assert found.spearman.value == pytest.approx(stats.spearmanr(proxy, final).statistic)
    assert (found.count, found.reason) == (25, "")


def test_a_case_by_hand():
    # One neighbouring pair of eight is swapped: 27 of 28 pairs agree, and Σd² = 2.
    found = rank_agreement(range(8), [1, 0, 2, 3, 4, 5, 6, 7], seed=0, resamples=50)

    assert found.kendall.value == pytest.approx((27 - 1) / 28)
    assert found.spearman.value == pytest.approx(1 - 6 * 2 / (8 * 63))


def test_ties_by_hand():
    # Two groups of four against 0..7: of 28 pairs 12 are tied, the other 16 agree.
    found = rank_agreement([0] * 4 + [1] * 4, range(8), seed=0, resamples=50)

    assert found.kendall.value == pytest.approx(16 / math.sqrt(16 * 28))


def test_intervals_agree_with_scipys_bootstrap():
    proxy, final = noisy(30, noise=1.0)

    found = rank_agreement(proxy, final, seed=0)
    reference = stats.bootstrap(
        (proxy, final),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2_000,
        rng=np.random.default_rng(1),
    ).confidence_interval

    assert found.spearman.low == pytest.approx(reference.low, abs=0.04)
    assert found.spearman.high == pytest.approx(reference.high, abs=0.04)
    assert found.kendall.low < found.kendall.value < found.kendall.high


def test_more_pairs_narrow_the_interval():
    few, many = (rank_agreement(*noisy(count), seed=0, resamples=300) for count in (10, 100))

    assert many.spearman.high - many.spearman.low < few.spearman.high - few.spearman.low


def test_the_same_seed_gives_the_same_interval():
    first, again, other = (
        rank_agreement(*noisy(12), seed=seed, resamples=200) for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other


def test_too_few_pairs_say_nothing():
    proxy = list(range(FEWEST_PAIRS - 1))

    found = rank_agreement(proxy, proxy, seed=0)

    assert found.kendall is found.spearman is None
    assert found.reason == "too few to say (n = 7, at least 8 needed)"


@pytest.mark.parametrize("side", ["proxy", "final"])
def test_equal_scores_say_nothing(side):
    scores = {"proxy": list(range(9)), "final": list(range(9))} | {side: [0.5] * 9}

    found = rank_agreement(**scores, seed=0)

    assert found.kendall is found.spearman is None
    assert found.reason == f"all {side} scores are equal"


def test_resamples_with_a_constant_side_are_left_out():
    # Without the one model that differs, a third of the resamples are constant.
    found = rank_agreement([1] + [0] * 7, [1] + [0] * 7, seed=0, resamples=100)

    ends = (found.spearman.value, found.spearman.low, found.spearman.high)
    assert ends == pytest.approx((1.0, 1.0, 1.0))


def test_no_usable_resample_says_so():
    seeds = range(20)
    found = [rank_agreement([1] + [0] * 7, range(8), seed=s, resamples=1) for s in seeds]

    silent = [agreement for agreement in found if agreement.spearman is None]
    assert 0 < len(silent) < len(found)
    assert {a.reason for a in silent} == {"one side is constant in each of 1 resamples"}


@pytest.mark.parametrize(
    ("proxy", "final", "said"),
    [
        ([1.0, 2.0], [1.0], "shapes"),
        ([1.0, math.nan], [1.0, 2.0], "NaN"),
        ([[1.0]], [[1.0]], "sha"),
    ],
)
def test_scores_that_are_no_pairs_are_refused(proxy, final, said):
    with pytest.raises(DataError, match=said):
        rank_agreement(proxy, final, seed=0)
    with pytest.raises(DataError, match=said):
        regret(proxy, final)


def test_a_bootstrap_without_resamples_is_refused():
    with pytest.raises(SettingsError, match="resamples is 0"):
        rank_agreement([], [], seed=0, resamples=0)


@settings(max_examples=25, deadline=None)
@given(pairs_of(least=1))
def test_agreement_is_symmetric(pairs):
    found, turned = agreement_of(pairs), agreement_of([(b, a) for a, b in pairs])

    for one, other in ((found.kendall, turned.kendall), (found.spearman, turned.spearman)):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one.value, one.low, one.high) == pytest.approx(
                (other.value, other.low, other.high)
            )


@settings(max_examples=25, deadline=None)
@given(pairs_of(least=FEWEST_PAIRS))
def test_only_the_order_counts(pairs):
    assert agreement_of([(math.exp(a), b**3 - 7) for a, b in pairs]) == agreement_of(pairs)


@settings(max_examples=25, deadline=None)
@given(pairs_of(least=FEWEST_PAIRS))
def test_opposite_order_is_the_opposite_agreement(pairs):
    found, opposite = agreement_of(pairs), agreement_of([(a, -b) for a, b in pairs])

    if found.spearman is not None:
        assert opposite.spearman.value == pytest.approx(-found.spearman.value)
        assert opposite.kendall.low == pytest.approx(-found.kendall.high)


@settings(max_examples=25, deadline=None)
@given(pairs_of(least=1))
def test_estimates_stay_within_their_bounds_and_survive_json(pairs):
    found = agreement_of(pairs)

    assert Agreement.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    for estimate in (found.kendall, found.spearman):
        if estimate is not None:
            assert -1 - 1e-12 <= estimate.low <= estimate.high <= 1 + 1e-12


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"count": "many"},
        {"count": True},
        {"count": -1},
        {"count": 9, "kendall": 0.5},
        {"count": 9, "spearman": {"value": 0.5, "low": None, "high": 0.9}},
        {"count": 9, "spearman": {"value": math.nan, "low": 0.1, "high": 0.9}},
    ],
)
def test_fields_of_no_agreement_are_refused(fields):
    with pytest.raises(DataError, match="agreement"):
        Agreement.from_dict(fields)


def test_regret_is_what_the_first_by_proxy_lacks():
    assert regret([0.9, 0.8, 0.7], [0.85, 0.875, 0.5]) == pytest.approx(0.025)


def test_regret_of_a_shared_first_place_is_the_mean():
    assert regret([0.9, 0.9, 0.7], [1.0, 0.5, 0.75]) == pytest.approx(0.25)


def test_a_single_model_has_no_regret():
    assert regret([0.1], [0.2]) == 0.0


def test_regret_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least one"):
        regret([], [])


@given(pairs_of(least=1))
def test_regret_is_never_negative_and_ignores_the_proxys_scale(pairs):
    proxy, final = zip(*pairs, strict=True)

    assert regret(proxy, final) >= 0
    assert regret([math.exp(score) for score in proxy], final) == regret(proxy, final)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20, unique=True))
def test_orders_that_agree_cost_nothing(scores):
    assert regret(scores, [math.atan(score / 2) for score in scores]) < 1e-12
