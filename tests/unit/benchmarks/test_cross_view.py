"""The benchmark of cross-view training: what is recorded of a run, and how a gap is told."""

import json

import pytest

from benchmarks.cross_view import FULL, SMALL, compare, told, training_cost
from stillhouse.errors import RunError


def record(quality, seconds=10.0):
    return {
        "quality": quality,
        "quality_low": quality - 0.1,
        "quality_high": quality + 0.1,
        "cost": {"seconds": seconds, "energy_wh": 2.0, "how": "counted (RAPL)"},
    }


def test_a_training_has_its_share_of_the_energy_of_its_run(tmp_path):
    """All starts of a run are in its cost, reading data and scoring too."""
    state = {
        "phases_s": {"data": 20.0, "training": 75.0, "evaluation": 5.0},
        "cost": {"seconds": 100.0, "energy_wh": 4.0, "how": "counted (RAPL)"},
    }
    (tmp_path / "run.json").write_text(json.dumps(state))
    assert training_cost(tmp_path) == {"seconds": 75, "energy_wh": 3, "how": "counted (RAPL)"}


@pytest.mark.parametrize("cost", [{}, {"cost": {"seconds": 1.0, "is_partial": True}}])
def test_a_training_whose_cost_nobody_counted_is_refused(tmp_path, cost):
    (tmp_path / "run.json").write_text(json.dumps({"phases_s": {"training": 75.0}, **cost}))
    with pytest.raises(RunError, match=f"{tmp_path} was begun .* remove this folder and give"):
        training_cost(tmp_path)


@pytest.mark.parametrize("size", [SMALL, FULL])
def test_every_comparison_has_three_seeds(size):
    assert set(size.seeds.values()) == set(size.encoder_seeds.values()) == {3}
    assert size.seeds.keys() == size.encoder_seeds.keys() == size.epochs.keys()


def test_a_way_is_told_with_its_mean_cost():
    line = told([record(0.5, 10.0), record(0.7, 30.0)])
    assert line.startswith("entity F1 0.6000 (")
    assert line.endswith("over 2 seeds; 20 s, 2.00 Wh a training")
    assert "0.5000 (0.4000 to 0.6000) over sentences, one seed" in told([record(0.5)])


def test_gaps_are_paired_by_seed():
    theirs = [record(0.1), record(0.5), record(0.9)]
    ours = [record(0.2), record(0.6), record(1.0)]
    assert compare("gap", ours, theirs) == "  gap: +0.1000 (+0.1000 to +0.1000, 3 seeds)"
    mixed = [record(0.2), record(0.4), record(0.9)]
    assert compare("gap", mixed, theirs).endswith("; small: not evidence")
    assert "one seed; small: not evidence" in compare("gap", ours[:1], theirs[:1])
