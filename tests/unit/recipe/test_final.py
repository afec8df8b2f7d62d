from dataclasses import replace

import pytest

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.recipe.final import choose_winners, latency_metrics
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture

SHAPE = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=32)


def trial(number, quality, latency_ms, state=TrialState.COMPLETE, repeat_of=None):
    return Trial(
        number=number,
        architecture=SHAPE,
        state=state,
        quality=quality,
        latency_ms=latency_ms,
        repeat_of=repeat_of,
    )


# Box of the front: 1 to 5 ms by 0.3 to 0.8. Alone beside the best, trial 2 adds (5 - 2) × 0.4,
# trial 3 (5 - 4.5) × 0.45, and trial 0, the fastest and worst, nothing.
FRONT = [
    trial(0, 0.30, 1.0),
    trial(1, 0.29, 1.5),  # dominated
    trial(2, 0.70, 2.0),
    trial(3, 0.75, 4.5),
    trial(4, 0.80, 5.0),
    trial(5, 0.80, 6.0),  # dominated
]
NEVER = [
    trial(20, None, 0.1, TrialState.INFEASIBLE),
    trial(21, None, 0.1, TrialState.FAILED),
    trial(22, None, None, TrialState.RUNNING),
    trial(23, 0.80, 5.0, repeat_of=4),
]


def numbers(trials):
    return [one.number for one in trials]


@pytest.mark.parametrize(
    ("count", "chosen"), [(1, [4]), (2, [4, 2]), (3, [4, 2, 3]), (4, [4, 2, 3, 0])]
)
def test_best_first_then_what_widens_the_front_most(count, chosen):
    assert numbers(choose_winners([*FRONT, *NEVER], count)) == chosen


def test_more_wanted_than_the_front_has():
    assert sorted(numbers(choose_winners(FRONT, 50))) == [0, 2, 3, 4]


def test_a_named_first_winner_comes_before_the_best():
    assert numbers(choose_winners(FRONT, 2, first=FRONT[2])) == [2, 4]
    assert numbers(choose_winners(FRONT, 1, first=FRONT[2])) == [2]


def test_the_order_of_trials_does_not_matter():
    assert choose_winners(FRONT[::-1], 3) == choose_winners(FRONT, 3)


@pytest.mark.parametrize("count", range(1, 12))
def test_winners_are_distinct_and_spread(count):
    # A straight front: every point is a knee, so no two neighbours come before the middle.
    front = [trial(number, 0.1 * number, float(number)) for number in range(1, 10)]
    chosen = numbers(choose_winners(front, count))
    assert len(set(chosen)) == len(chosen) == min(count, 9)
    assert chosen[:2] == [9, 5][:count]


def test_nobody_wins_where_nothing_was_trained():
    assert choose_winners(NEVER[:3], 3) == []
    assert choose_winners([], 3) == []


def test_equally_good_and_the_fastest_wins():
    tie = [trial(0, 0.8, 3.0), trial(1, 0.8, 2.0), trial(2, 0.5, 1.0)]
    assert numbers(choose_winners(tie, 3)) == [1, 2]


MEASURED = Latency(
    median_ms=4.0,
    low_ms=3.9,
    high_ms=4.2,
    p10_ms=3.8,
    p90_ms=4.5,
    runs=20,
    how="measured",
    device="here",
    workload=Workload(length=16),
)


def test_a_prediction_is_told_beside_what_was_measured_and_how_wrong_it_was():
    teacher = replace(MEASURED, median_ms=8.0)
    plain = latency_metrics(Comparison(student=MEASURED, teacher=teacher))
    assert (plain["latency_ms"], plain["latency_how"], plain["speedup"]) == (4.0, "measured", 2.0)
    assert not [name for name in plain if "predicted" in name]
    for predicted_ms, error_fraction in ((3.0, -0.25), (5.0, 0.25)):
        predicted = replace(MEASURED, median_ms=predicted_ms, how="predicted")
        told = latency_metrics(Comparison(student=MEASURED, teacher=teacher, predicted=predicted))
        assert told == plain | {
            "latency_predicted_ms": predicted_ms,
            "latency_predicted_error_fraction": error_fraction,
        }
