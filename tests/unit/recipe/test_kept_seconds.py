"""The time of a finished student counts what was spent before a stop."""

import pytest

from stillhouse.recipe.kept_seconds import seconds_kept


def stopped_after(file, clock, seconds):
    with seconds_kept(file) as spent_s:
        clock.now_s += seconds
        assert spent_s() == seconds
        raise KeyboardInterrupt


def test_time_before_a_stop_counts(tmp_path, clock):
    file = tmp_path / "final" / "trial-0001.json"
    with pytest.raises(KeyboardInterrupt):
        stopped_after(file, clock, 6)
    clock.now_s += 1000  # nobody works on it
    with seconds_kept(file) as spent_s:
        clock.now_s += 2
        assert spent_s() == 8
    assert not file.exists()


def test_another_training_begins_at_nothing(tmp_path, clock):
    with pytest.raises(KeyboardInterrupt):
        stopped_after(tmp_path / "one.json", clock, 6)
    with seconds_kept(tmp_path / "other.json") as spent_s:
        assert spent_s() == 0
