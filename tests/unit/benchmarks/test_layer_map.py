"""The layer-map benchmark: what it replays and how it tells a difference."""

import re

import numpy as np

from benchmarks.layer_map import gap, replay
from stillhouse.search.genetic import RandomMaps
from stillhouse.search.map_space import MapSpace


def told(text):
    return [float(number) for number in re.findall(r"[+-]\d\.\d{4}", text)]


def test_a_replay_judges_as_many_maps_as_asked_or_all():
    space = MapSpace(layers=2, teacher_layers=2)
    table = dict.fromkeys(space.enumerate(), 0.5)
    assert len(set(replay(RandomMaps(space, 0), table, 5))) == 5
    assert sorted(replay(RandomMaps(space, 0), table, 100)) == sorted(table)


def test_a_difference_is_the_mean_of_tasks_with_an_interval_of_their_draws():
    generator = np.random.default_rng(0)
    marks = (generator.random(100) < 0.6).astype(float)
    ours, theirs = [{"a": np.ones(400), "b": marks}] * 3, [{"a": np.zeros(400), "b": marks}] * 3
    assert told(gap(ours, theirs, ["a", "b"])) == [0.5, 0.5, 0.5]  # 1 of a, 0 of b, no chance
    assert told(gap(ours, theirs, ["b"])) == [0.0, 0.0, 0.0]
    assert gap(ours, theirs, ["b"]).endswith("small: not evidence")


def test_the_interval_of_one_task_is_that_of_its_sentences():
    marks = np.array([1.0] * 300 + [0.0] * 100)
    mean, low, high = told(gap([{"a": marks}] * 3, [{"a": np.zeros(400)}] * 3, ["a"]))
    error = np.sqrt(0.75 * 0.25 / 400)  # of a share
    assert mean == 0.75
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * error, rtol=0.15)
