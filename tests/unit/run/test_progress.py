import json
import logging

import pytest

from stillhouse.run.progress import KeptNarrator, LoggingNarrator


def test_facts_go_to_the_log_and_progress_stays_quiet(caplog):
    narrator = LoggingNarrator()
    with caplog.at_level(logging.INFO):
        narrator.say("100 % done")
        narrator.begin("Training", 1.0)
        narrator.advance(0.5, "loss 1.0")
        narrator.end()
    assert [record.getMessage() for record in caplog.records] == ["100 % done"]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A narrator that keeps its progress, its file, and a clock that stands still."""
    clock = [100.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    file = tmp_path / "run" / "progress.json"
    return KeptNarrator(LoggingNarrator(), file), file, clock


def test_what_is_being_done_is_kept_and_goes_away(kept, caplog):
    narrator, file, clock = kept
    with caplog.at_level(logging.INFO):
        narrator.say("a fact")
        narrator.note("a step")
    assert [record.getMessage() for record in caplog.records] == ["a fact", "a step"]
    narrator.begin("Training", 4.0)
    clock[0] = 102.0
    narrator.advance(1.0, "loss 2.0")
    told = json.loads(file.read_text())
    assert told == {
        "task": "Training", "done": 1.0, "total": 4.0, "detail": "loss 2.0", "since": 100.0,
        "at": 102.0,
    }  # fmt: skip
    narrator.end()
    assert not file.exists()


def test_it_is_written_once_a_second_at_most(kept):
    narrator, file, clock = kept
    narrator.begin("Training", 4.0)
    clock[0] = 100.5
    narrator.advance(1.0)
    assert json.loads(file.read_text())["done"] == 0.0
    clock[0] = 101.0
    narrator.advance(2.0)
    assert json.loads(file.read_text())["done"] == 2.0


def test_a_file_that_cannot_be_written_does_not_stop_a_run(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    narrator = KeptNarrator(LoggingNarrator(), tmp_path / "run" / "progress.json")
    narrator.begin("Training", 4.0)
    narrator.end()
    assert (tmp_path / "run").is_file()
