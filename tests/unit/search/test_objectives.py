import pytest

from stillhouse.errors import SettingsError
from stillhouse.search.objectives import (
    TWO_OBJECTIVES,
    checked_objectives,
    front_objectives,
    objectives_of,
)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["quality", "latency_ms", "quality"], "names one twice: quality,latency_ms,quality"),
        (["reward", "quality"], "either reward alone"),
        (["latency_ms", "size_mb"], "must have quality and at least one of"),
        (["quality"], "must have quality and at least one of"),
        ([], "got none"),
    ],
)
def test_what_no_search_could_have_is_refused(names, told):
    with pytest.raises(SettingsError, match=told):
        checked_objectives(names)


@pytest.mark.parametrize(
    "names", [["reward"], ["latency_ms", "quality"], ["quality", "flops_fraction", "size_mb"]]
)
def test_what_a_search_can_have(names):
    assert set(checked_objectives(names)) == set(names)


def test_objectives_have_one_order():
    assert checked_objectives(["size_mb", "latency_ms", "quality"]) == (
        "quality",
        "latency_ms",
        "size_mb",
    )


def test_a_reward_is_one_objective_of_the_strategy_and_two_of_the_front(make_trial):
    (reward,) = objectives_of(["reward"])
    assert reward.is_higher_better
    assert reward.value_of(make_trial(0, attributes={"reward": 0.7})) == 0.7
    assert reward.value_of(make_trial(0)) is None
    assert front_objectives(["reward"]) == TWO_OBJECTIVES


def test_a_run_from_before_the_choice_has_two():
    assert front_objectives([]) == TWO_OBJECTIVES


def test_losses_are_lower_for_the_better(make_trial):
    good = make_trial(0, quality=0.9, latency_ms=1.0, attributes={"flops_fraction": 0.1})
    bad = make_trial(1, quality=0.5, latency_ms=2.0, attributes={"flops_fraction": 0.3})
    for one in objectives_of(["quality", "latency_ms", "flops_fraction"]):
        assert one.loss_of(good) < one.loss_of(bad)
