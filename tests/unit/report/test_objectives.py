from dataclasses import dataclass

import numpy as np
import pytest

from stillhouse.report.objectives import beats, compared_by, unbeaten
from stillhouse.search.objectives import objectives_of
from stillhouse.search.pareto import pareto_front
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture


@dataclass(frozen=True)
class Point:
    quality: float | None
    latency_ms: float | None
    size_mb: float | None = None
    flops_fraction: float | None = None


THREE = ("quality", "latency_ms", "size_mb")


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["quality", "latency_ms"], ("quality", "latency_ms")),
        (["flops_fraction", "quality"], ("quality", "flops_fraction")),
        (["reward"], ("quality", "latency_ms")),
        (["quality", "latency_ms", "of a later version"], ("quality", "latency_ms")),
        (["of a later version"], ("quality", "latency_ms")),
    ],
)
def test_what_a_front_is_of(asked, names):
    assert compared_by(asked) == names


def test_quality_is_made_high_and_costs_low():
    good, bad = Point(0.9, 1.0, 5.0), Point(0.8, 1.0, 5.0)

    assert beats(good, bad, THREE)
    assert not beats(bad, good, THREE)
    assert not beats(good, good, THREE)
    assert not beats(Point(0.9, 1.0, 5.1), bad, THREE)


def test_what_lacks_a_value_neither_beats_nor_is_beaten():
    known, unknown = Point(0.9, 1.0, 5.0), Point(0.8, 2.0)

    assert not beats(known, unknown, THREE)
    assert not beats(unknown, known, THREE)
    assert beats(known, unknown, ("quality", "latency_ms"))
    assert unbeaten([known, unknown], THREE) == [known]


def test_an_objective_more_keeps_what_is_best_in_it():
    fast, slow, small = Point(0.9, 1.0, 5.0), Point(0.7, 3.0, 6.0), Point(0.6, 2.0, 4.0)

    assert unbeaten([slow, small, fast], ("quality", "latency_ms")) == [fast]
    assert unbeaten([slow, small, fast], THREE) == [small, fast]


@pytest.mark.parametrize(
    "names",
    [
        ("quality", "latency_ms"),
        ("quality", "flops_fraction"),
        ("quality", "latency_ms", "size_mb", "flops_fraction"),
    ],
)
def test_the_front_is_that_of_the_search(names):
    draws = np.random.default_rng(0).integers(0, 6, size=(60, 4)) / 8  # with ties
    points = [Point(*map(float, draw)) for draw in draws]
    shape = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=32)
    trials = [
        Trial(
            number=number,
            architecture=shape,
            state=TrialState.COMPLETE,
            quality=point.quality,
            latency_ms=point.latency_ms,
            attributes={"size_mb": point.size_mb, "flops_fraction": point.flops_fraction},
        )
        for number, point in enumerate(points)
    ]
    wanted = {trial.number for trial in pareto_front(trials, objectives_of(names))}

    front = unbeaten(points, names)

    assert {number for number, point in enumerate(points) if point in front} == wanted
    assert 0 < len(wanted) < len(points)


@pytest.mark.parametrize("names", [("quality", "latency_ms"), THREE])
def test_the_front_is_what_no_other_beats_pair_by_pair(names):
    drawn = np.random.default_rng(0).integers(0, 6, size=(80, 3))  # few values: many ties
    several = [Point(*row) for row in drawn.tolist()]

    front = unbeaten(several, names)

    assert front == [
        one for one in several if not any(beats(other, one, names) for other in several)
    ]
    assert 0 < len(front) < len(several)
