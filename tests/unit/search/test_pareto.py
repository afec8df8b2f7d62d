import numpy as np
import pytest

from stillhouse.search.objectives import objectives_of
from stillhouse.search.pareto import dominated_area, hypervolume, pareto_front
from stillhouse.search.trial import TrialState


def numbers(trials):
    return [trial.number for trial in pareto_front(trials)]


def test_front_by_hand(make_trial):
    outcomes = [(0.5, 3.0), (0.9, 9.0), (0.7, 5.0), (0.6, 6.0), (0.9, 9.5), (0.4, 3.0)]
    trials = [make_trial(i, quality=q, latency_ms=t) for i, (q, t) in enumerate(outcomes)]
    assert numbers(trials) == [0, 2, 1]


def test_equal_outcomes_do_not_dominate_each_other(make_trial):
    trials = [make_trial(i, quality=0.5, latency_ms=2.0) for i in (3, 1)]
    assert numbers(trials) == [1, 3]


def test_what_is_passed_over(make_trial):
    good = {"quality": 1.0, "latency_ms": 0.1}
    trials = [
        make_trial(0),
        make_trial(1, repeat_of=0, **good),
        make_trial(2, TrialState.INFEASIBLE, latency_ms=0.1),
        make_trial(3, TrialState.FAILED),
        make_trial(4, TrialState.RUNNING, latency_ms=0.1),
    ]
    assert numbers(trials) == [0]
    assert numbers([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_against_the_definition(make_trial, seed):
    drawn = np.random.default_rng(seed).integers(1, 6, size=(30, 2))
    trials = [make_trial(i, quality=q / 5, latency_ms=t) for i, (q, t) in enumerate(drawn.tolist())]

    def beats(one, other):
        gain, saving = one.quality - other.quality, other.latency_ms - one.latency_ms
        return gain >= 0 and saving >= 0 and gain + saving > 0

    expected = {t.number for t in trials if not any(beats(other, t) for other in trials)}
    front = pareto_front(trials)
    assert {trial.number for trial in front} == expected
    latencies_ms = [trial.latency_ms for trial in front]
    assert latencies_ms == sorted(latencies_ms)


def test_dominated_area_of_a_staircase(make_trial):
    # Box 1..5 ms by 0.2..0.8; steps: (5 - 1) x 0, (5 - 2) x 0.3, (5 - 5) x 0.3 of 4 x 0.6.
    points = [(0.2, 1.0), (0.5, 2.0), (0.8, 5.0)]
    front = [make_trial(i, quality=q, latency_ms=t) for i, (q, t) in enumerate(points)]
    assert dominated_area(front, within=front) == pytest.approx(0.9 / 2.4)
    assert dominated_area(front[::2], within=front) == 0
    assert dominated_area(front[1:2], within=front) == pytest.approx(0.9 / 2.4)
    assert dominated_area(front[:1], within=front[:1]) == 0


def test_a_hypervolume_is_the_share_of_the_box_that_trials_dominate(make_trial):
    """Against a count of small cells, each of which some trial beats or none."""
    drawn = np.random.default_rng(1).integers(1, 20, size=(12, 2))
    trials = [
        make_trial(i, quality=q / 20, latency_ms=t / 2) for i, (q, t) in enumerate(drawn.tolist())
    ]
    slowest = 8
    cells = [
        any(q > place and t <= cell for q, t in drawn.tolist())
        for place in range(20)
        for cell in range(2 * slowest)
    ]
    reference = {"quality": 0.0, "latency_ms": slowest}
    assert hypervolume(trials, reference=reference) == pytest.approx(np.mean(cells))
    assert hypervolume([], reference=reference) == 0.0
    slow = make_trial(0, quality=1.0, latency_ms=9.0)
    assert hypervolume([slow], reference=reference) == 0.0
    assert hypervolume([slow, *trials], reference=reference) == hypervolume(
        trials, reference=reference
    )


THREE = objectives_of(["size_mb", "latency_ms", "quality"])


@pytest.fixture
def in_three(make_trial):
    """Fourteen trials on a grid of eighths: quality, latency and size."""
    drawn = np.random.default_rng(2).integers(1, 8, size=(14, 3))
    return [
        make_trial(i, quality=q / 8, latency_ms=t / 8, attributes={"size_mb": s / 8})
        for i, (q, t, s) in enumerate(drawn.tolist())
    ]


def test_three_objectives_come_quality_first():
    assert [one.name for one in THREE] == ["quality", "latency_ms", "size_mb"]


def test_a_front_in_three_objectives_against_the_definition(in_three):
    def losses(trial):
        return -trial.quality, trial.latency_ms, trial.attributes["size_mb"]

    def beats(one, other):
        pairs = list(zip(losses(one), losses(other), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    expected = {t.number for t in in_three if not any(beats(other, t) for other in in_three)}
    front = pareto_front(in_three, THREE)
    assert {trial.number for trial in front} == expected
    assert {t.number for t in pareto_front(in_three)} < expected


def test_a_hypervolume_in_three_objectives_against_counted_cells(in_three):
    levels = range(8)
    cells = [
        any(
            t.quality * 8 > up and t.latency_ms * 8 <= slow and t.attributes["size_mb"] * 8 <= large
            for t in in_three
        )
        for up in levels
        for slow in levels
        for large in levels
    ]
    reference = {"quality": 0.0, "latency_ms": 1.0, "size_mb": 1.0}
    assert hypervolume(in_three, reference=reference, objectives=THREE) == pytest.approx(
        np.mean(cells)
    )


def test_a_dominated_area_passes_over_what_is_equal_for_all(make_trial):
    points = [(0.2, 1.0), (0.5, 2.0), (0.8, 5.0)]
    alike = [
        make_trial(i, quality=q, latency_ms=t, attributes={"size_mb": 3.0})
        for i, (q, t) in enumerate(points)
    ]
    area = dominated_area(alike[1:2], within=alike, objectives=THREE)
    assert area == dominated_area(alike[1:2], within=alike) > 0


def test_a_trial_without_a_value_is_on_no_front(make_trial):
    assert pareto_front([make_trial(0)], THREE) == []
