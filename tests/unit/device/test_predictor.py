"""Predictions of latencies whose truth is known."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm, rankdata

from stillhouse.device.predictor import (
    Choice,
    LatencyPredictor,
    choose_points,
    errors_of,
    fit_predictor,
)
from stillhouse.errors import DeviceError


def drawn(count, *, columns=3, seed=0):
    return np.random.default_rng(seed).uniform(1, 5, size=(count, columns))


def linear_ms(features):
    return 2.0 + features @ np.array([3.0, 0.5, 1.0])


def curved_ms(features):
    return 10 + 4 * np.sin(1.5 * features[:, 0]) + 0.5 * (features[:, 1] - 3) ** 2


def error(predictor, truth):
    fresh = drawn(300, seed=99)
    return errors_of(predictor.predict(fresh).latency_ms, truth(fresh))


def test_what_is_linear_is_found_to_be():
    noise = np.random.default_rng(1).normal(1, 0.02, size=60)
    features = drawn(60)
    predictor = fit_predictor(features, linear_ms(features) * noise, 0)
    assert predictor.choice.kind == "linear"
    assert error(predictor, linear_ms).mape_fraction < 0.01
    assert predictor.errors.mape_fraction == pytest.approx(0.02 * np.sqrt(2 / np.pi), rel=0.35)
    assert predictor.errors.count == 60


def test_what_is_curved_is_followed():
    features = drawn(80)
    predictor = fit_predictor(features, curved_ms(features), 0)
    line = LatencyPredictor(
        features,
        curved_ms(features),
        choice=Choice(kind="linear", ridge=0.001),
        errors=predictor.errors,
    )
    assert predictor.choice.kind in {"sum", "process"}
    assert error(predictor, curved_ms).mape_fraction < 0.03
    assert error(line, curved_ms).mape_fraction > 0.1
    assert error(predictor, curved_ms).spearman > 0.98


def test_measurements_of_a_busy_machine_do_not_bend_the_others():
    features = drawn(60)
    wanted = linear_ms(features)
    busy = wanted.copy()
    busy[::8] *= 2
    predictor = fit_predictor(features, busy, 0)
    assert error(predictor, linear_ms).mape_fraction < 0.01
    squares = np.linalg.lstsq(np.column_stack([np.ones(60), features]) / busy[:, None], np.ones(60))
    fresh = drawn(300, seed=99)
    bent = np.column_stack([np.ones(300), fresh]) @ squares[0]
    assert errors_of(bent, linear_ms(fresh)).mape_fraction > 0.03


def test_relative_errors_of_a_line_are_least_by_hubers_loss():
    features = drawn(40, columns=1)
    generator = np.random.default_rng(5)
    wanted = (1 + 2 * features[:, 0]) * np.exp(generator.normal(0, 0.1, size=40))
    choice = Choice(kind="linear", ridge=1e-9)
    found = LatencyPredictor(features, wanted, choice=choice, errors=errors_of(wanted, wanted))
    bound = 1.345 * 1.4826 * np.median(np.abs(found.predict(features).latency_ms / wanted - 1))

    def loss(line):
        off = np.abs((line[0] + line[1] * features[:, 0]) / wanted - 1)
        return np.where(off < bound, off**2 / 2, bound * (off - bound / 2)).sum()

    best = minimize(loss, (1.0, 1.0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    at = np.array([[1.0], [4.0]])
    assert found.predict(at).latency_ms == pytest.approx(best.x @ [[1, 1], [1, 4]], rel=1e-3)


def test_nine_in_ten_latencies_lie_within_their_errors():
    features = drawn(80)
    noise = np.random.default_rng(2).normal(1, 0.05, size=80)
    predictor = fit_predictor(features, linear_ms(features) * noise, 0)
    fresh = drawn(400, seed=7)
    measured_ms = linear_ms(fresh) * np.random.default_rng(3).normal(1, 0.05, size=400)
    told = predictor.predict(fresh)
    off = np.abs(told.latency_ms - measured_ms) / told.standard_error_ms
    for share in (0.5, 0.9):
        assert (off < norm.ppf(0.5 + share / 2)).mean() == pytest.approx(share, abs=0.07)


def test_errors_grow_away_from_what_was_measured():
    features = drawn(40)
    predictor = fit_predictor(features, linear_ms(features) * np.linspace(0.95, 1.05, 40), 0)
    told = predictor.predict(np.array([[3.0, 3.0, 3.0], [30.0, 3.0, 3.0]]))
    near, far = told.standard_error_ms / told.latency_ms
    assert far > 2 * near


def test_a_prediction_is_never_nothing():
    features = np.linspace(1, 2, 20)[:, None]
    predictor = fit_predictor(features, 10 * features[:, 0] - 9, 0)
    assert predictor.predict(np.array([[-50.0]])).latency_ms[0] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize("truth", [linear_ms, curved_ms])
def test_the_same_seed_gives_the_same_predictor(truth):
    features = drawn(40)
    first, second = (fit_predictor(features, truth(features), 3) for _ in range(2))
    assert first.choice == second.choice
    assert first.errors == second.errors
    asked = drawn(10, seed=4)
    assert (first.predict(asked).latency_ms == second.predict(asked).latency_ms).all()


def test_columns_that_do_not_differ_or_follow_each_other_do_no_harm():
    features = drawn(40)
    more = np.column_stack(
        [features, np.full(40, 7e12), features[:, 0] * 1e9, features.sum(axis=1)]
    )
    predictor = fit_predictor(more, linear_ms(features), 0)
    assert predictor.errors.mape_fraction < 0.01


def test_ten_rows_are_enough():
    features = drawn(10)
    assert fit_predictor(features, linear_ms(features), 0).errors.count == 10


@pytest.mark.parametrize(
    ("features", "latency_ms", "message"),
    [
        (drawn(9), np.ones(9), "at least 10 rows, each with its latency, got 9 rows"),
        (drawn(12), np.ones(11), "got 12 rows and 11 latencies"),
        (drawn(10), np.zeros(10), "latencies above 0, got 0.0"),
        (drawn(10), np.full(10, np.nan), "latencies above 0, got nan"),
        (np.full((10, 2), np.inf), np.ones(10), "finite numbers"),
        (np.ones(10), np.ones(10), r"rows by columns, got the shape \(10,\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, latency_ms, message):
    with pytest.raises(DeviceError, match=message):
        fit_predictor(features, latency_ms, 0)


def test_other_columns_are_refused():
    features = drawn(10)
    predictor = fit_predictor(features, linear_ms(features), 0)
    with pytest.raises(DeviceError, match=r"needs the 3 columns .* got 2"):
        predictor.predict(drawn(4, columns=2))


def test_errors_of_a_case_by_hand():
    found = errors_of(np.array([1.1, 1.8, 4.0, 3.0]), np.array([1.0, 2.0, 4.0, 5.0]))
    assert found.mape_fraction == pytest.approx((0.1 + 0.1 + 0 + 0.4) / 4)
    assert found.rms_fraction == pytest.approx(np.sqrt(0.18 / 4))
    ranks = rankdata([1.1, 1.8, 4.0, 3.0]) - np.arange(1, 5)
    assert found.spearman == pytest.approx(1 - 6 * (ranks**2).sum() / (4 * 15))
    assert errors_of(np.ones(3), np.arange(1.0, 4.0)).spearman == 0


def test_chosen_points_leave_less_unknown_than_points_by_chance():
    features = np.random.default_rng(0).normal(size=(400, 4)) ** 3
    design = np.column_stack([np.ones(400), features])

    def volume(rows):
        return np.linalg.slogdet(design[rows].T @ design[rows])[1]

    chosen = choose_points(features, 20, 0)
    assert len(set(chosen)) == 20
    for seed in range(20):
        by_chance = np.random.default_rng(seed).choice(400, size=20, replace=False)
        assert volume(chosen) > volume(by_chance)


def test_the_corners_of_a_square_are_among_the_points():
    grid = np.array([[x, y] for x in range(7) for y in range(7)], dtype=float)
    corners = {0, 6, 42, 48}
    assert corners <= set(choose_points(grid, 12, 0))


def test_points_follow_from_the_seed_and_go_up_to_all():
    features = drawn(30)
    assert choose_points(features, 12, 1) == choose_points(features, 12, 1)
    assert choose_points(features, 12, 1) != choose_points(features, 12, 2)
    assert sorted(choose_points(features, 30, 0)) == list(range(30))
    for count in (0, 31):
        with pytest.raises(DeviceError, match=f"1 to 30 points .* got {count}"):
            choose_points(features, count, 0)


def test_chosen_points_leave_nothing_inside_unseen():
    grid = np.array([[x, y] for x in range(8) for y in range(8)] * 10, dtype=float)
    features = np.column_stack([grid, grid[:, 0] * grid[:, 1], grid[:, 0] * grid[:, 1] ** 2])
    chosen = choose_points(features, 80, 0)
    wanted = 20 + 5 * np.sin(grid[:, 0]) + grid[:, 1]
    predictor = fit_predictor(features[chosen], wanted[chosen], 0)
    assert predictor.choice.kind != "linear"
    assert errors_of(predictor.predict(features).latency_ms, wanted).p95_fraction < 0.1


def test_another_value_in_an_equal_column_is_of_unknown_cost():
    features = np.column_stack([drawn(30), np.full(30, 3.0)])
    predictor = fit_predictor(features, linear_ms(features[:, :3]), 0)
    asked = features[:3].copy()
    asked[1, 3] = 2.0
    found = predictor.predict(asked)
    assert np.isfinite(found.latency_ms).all()
    assert np.isinf(found.standard_error_ms).tolist() == [False, True, False]
