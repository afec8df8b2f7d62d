import numpy as np
import pytest

from stillhouse.errors import DataError
from stillhouse.evaluate.attack import Outcome
from stillhouse.evaluate.attack_scores import compare_attacks, score_attack, share


def outcome(key, kind, queries=10, changed=1):
    """An outcome on a text of four words: wrong before, robust or fooled."""
    words = ("a", "b", "c", "d")
    return Outcome(
        key=key,
        label=1,
        predicted=0 if kind == "wrong" else 1,
        final=1 if kind == "robust" else 0,
        queries=1 if kind == "wrong" else queries,
        original=words,
        words=words if kind == "wrong" else ("x",) * changed + words[changed:],
    )


def test_wrong_answers_are_failures_but_no_queries():
    outcomes = [
        outcome(0, "wrong"),
        outcome(1, "wrong"),
        outcome(2, "robust", queries=30, changed=4),
        outcome(3, "fooled", queries=10, changed=1),
        outcome(4, "fooled", queries=20, changed=2),
    ]
    scores = score_attack(outcomes, seed=0)
    assert (scores.original_accuracy.value, scores.original_accuracy.count) == (3 / 5, 5)
    assert (scores.after_attack_accuracy.value, scores.after_attack_accuracy.count) == (1 / 5, 5)
    assert (scores.success_fraction.value, scores.success_fraction.count) == (2 / 3, 3)
    assert (scores.queries.value, scores.queries.count) == (20, 3)
    assert (scores.changed_fraction.value, scores.changed_fraction.count) == (3 / 8, 2)


def test_nothing_right_leaves_nothing_to_tell_of_the_attack():
    scores = score_attack([outcome(0, "wrong")], seed=0)
    assert scores.after_attack_accuracy.value == 0
    assert scores.success_fraction is scores.queries is scores.changed_fraction is None
    assert score_attack([outcome(0, "robust")], seed=0).changed_fraction is None
    with pytest.raises(DataError, match="no text was attacked"):
        score_attack([], seed=0)


def test_shares_have_intervals_of_wilson():
    found = share(8, 10)  # Wilson 1927, by his formula
    assert (found.low, found.high) == pytest.approx((0.49016, 0.94332), abs=1e-5)
    assert share(0, 20).high > 0.1


def test_intervals_of_means_cover_them():
    draw = np.random.default_rng(0)
    outcomes = [
        outcome(key, "robust", queries=int(queries))
        for key, queries in enumerate(draw.normal(100, 20, size=400))
    ]
    found = score_attack(outcomes, seed=0).queries
    # a normal mean of 400: ± 1.96 × 20 / √400
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96, found.value + 1.96), abs=0.4
    )


def test_models_are_compared_text_by_text():
    kinds = ["robust", "fooled", "wrong", "robust"] * 50
    first = [outcome(key, kind, queries=20) for key, kind in enumerate(kinds)]
    second = [outcome(key, kind, queries=15) for key, kind in enumerate(kinds)]
    same = compare_attacks(first, second, seed=0)
    left = same.after_attack_accuracy
    assert (left.value, left.low, left.high, left.count) == (0, 0, 0, 200)
    assert (same.queries.value, same.queries.low, same.queries.high) == (5, 5, 5)
    worse = [outcome(key, "fooled") for key in range(200)]
    gap = compare_attacks(first, worse, seed=0).after_attack_accuracy
    assert gap.value == 0.5
    assert 0.4 < gap.low < 0.5 < gap.high < 0.6
    with pytest.raises(DataError, match="same texts"):
        compare_attacks(first, second[1:], seed=0)
