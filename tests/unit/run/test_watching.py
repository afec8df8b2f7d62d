import json

import pytest

from stillhouse.errors import RunError
from stillhouse.run.directory import open_run
from stillhouse.run.progress import PROGRESS_FILE
from stillhouse.run.settings import RunSettings
from stillhouse.run.watching import look_at
from stillhouse.search.record import Record
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.search_space import Dimension, SearchSpace

SPACE = SearchSpace(
    (
        Dimension("layers", (1, 2, 3)),
        Dimension("hidden_size", (16,)),
        Dimension("heads", (2,)),
        Dimension("ffn_size", (32,)),
    )
)


def add_trial(record, place, **fields):
    architecture = list(SPACE)[place]
    number = record.start(architecture)
    if fields:
        trial = Trial(number=number, architecture=architecture, state=TrialState.COMPLETE, **fields)
        record.finish(trial)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run directory"):
        look_at(tmp_path)


def test_a_run_that_works_shows_its_trials_while_another_process_holds_it(tmp_path):
    with open_run(tmp_path, RunSettings()) as run:
        record = Record(run.storage_url, SPACE)
        add_trial(record, 0, quality=0.5, latency_ms=1.0)
        add_trial(record, 1, quality=0.4, latency_ms=2.0)
        add_trial(record, 2)
        (tmp_path / PROGRESS_FILE).write_text(
            json.dumps(
                {"task": "Trial 2", "done": 1.0, "total": 4.0, "detail": "loss 1", "since": 10.0,
                 "at": 16.0}
            )
        )  # fmt: skip
        sight = look_at(tmp_path, latest=2)
    assert (sight.status, sight.recipe, sight.is_working) == ("running", "plain", True)
    assert sight.counts == {"complete": 2, "running": 1}
    assert [trial.number for trial in sight.front] == [0]
    assert [trial.number for trial in sight.latest] == [2, 1]
    assert (sight.doing.task, sight.doing.fraction, sight.doing.detail) == (
        "Trial 2",
        0.25,
        "loss 1",
    )
    assert sight.doing.left_s == pytest.approx(18.0)
    assert sight.doing.silent_s > 1e6
    assert sight.storage_url.endswith("study.db")


def test_looking_changes_nothing(tmp_path):
    with open_run(tmp_path, RunSettings()):
        pass
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    sight = look_at(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert sight.doing is None
    assert sight.storage_url is None
    assert not sight.front


def test_a_complete_run_tells_what_it_took_and_a_failed_one_why(tmp_path):
    with open_run(tmp_path, RunSettings()) as run:
        run.update_state({"status": "complete", "wall_s": 12.5})
    sight = look_at(tmp_path)
    assert (sight.elapsed_s, sight.is_working) == (12.5, False)
    run.update_state({"status": "failed", "reason": "no room"})
    assert look_at(tmp_path).reason == "no room"


def test_half_of_a_progress_file_is_none(tmp_path):
    with open_run(tmp_path, RunSettings()):
        (tmp_path / PROGRESS_FILE).write_text('{"task": "Tr')
        assert look_at(tmp_path).doing is None


def test_a_run_whose_storage_holds_no_search_has_no_trials(tmp_path):
    with open_run(tmp_path, RunSettings()) as run:
        Record(run.storage_url, SPACE, "layer-map-3")
        sight = look_at(tmp_path)
    assert not sight.counts
    assert sight.storage_url == run.storage_url
