"""What a trial has taken over all processes that worked on it."""

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import pytest

from stillhouse.search import trial_time
from stillhouse.search.loop import Judgement, Screening, run_search
from stillhouse.search.record import Record
from stillhouse.search.trial import Trial, TrialState
from stillhouse.search.trial_time import time_kept


class First:
    """Proposes the first architecture."""

    def __init__(self, space):
        self.space = space

    def ask(self, count):
        return [next(iter(self.space.enumerate()))] * count

    def tell(self, trials):
        pass


@pytest.fixture
def record(tmp_path, space):
    return Record(f"sqlite:///{tmp_path}/study.db", space)


@pytest.fixture
def trial(record, space):
    architecture = next(iter(space.enumerate()))
    number = record.start(architecture)
    return Trial(number=number, architecture=architecture, state=TrialState.RUNNING)


def search(record, judge):
    return run_search(
        strategy=First(record.space),
        record=record,
        screen=lambda _: Screening(latency_ms=1.0),
        judge=judge,
        candidates=1,
        may_start=lambda _: True,
        on_trial=lambda _: None,
        seed=0,
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_a_trial_that_was_interrupted_has_the_time_of_all_processes(record, clock, error):
    def judge(*_):
        clock.now_s += 10
        raise error

    for _ in range(2):
        with pytest.raises(error):
            search(record, judge)
    [running] = record.running()
    assert running.cost_s == 20
    clock.now_s += 999  # nobody works

    def judge_whole(*_):
        clock.now_s += 5
        return Judgement(quality=0.5)

    [trial] = search(record, judge_whole)
    assert (trial.state, trial.cost_s) == (TrialState.COMPLETE, 25)


KILLED = """
    import os, signal, sys, time
    from stillhouse.search import trial_time
    from stillhouse.search.record import Record
    from stillhouse.search.loop import Judgement
    from stillhouse.space.search_space import Dimension, SearchSpace
    from tests.unit.search.test_trial_time import search

    trial_time.SECONDS_BETWEEN_NOTES = 0.01
    space = SearchSpace((
        Dimension("layers", (1, 2)), Dimension("hidden_size", (16,)),
        Dimension("head_size", (8,)), Dimension("ffn_ratio", (2,)),
        Dimension("activation", ("gelu",)),
    ))
    record = Record(sys.argv[1], space)

    def judge(*_):
        while not sum(trial.cost_s for trial in record.running()) > float(sys.argv[2]):
            time.sleep(0.01)
        if sys.argv[3] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        return Judgement(quality=0.5)

    search(record, judge)
"""


def test_a_killed_trial_goes_on_from_the_time_it_noted(tmp_path):
    """The last process ends at once: forgetting the others, it would tell less than they noted."""
    url = f"sqlite:///{tmp_path}/study.db"

    def run(until_s, end):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), url, str(until_s), end]
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        return subprocess.run(command, env=environment, check=False).returncode

    def noted_s():
        with sqlite3.connect(tmp_path / "study.db") as database:
            [(value,)] = database.execute(
                "SELECT value_json FROM trial_user_attributes WHERE key = 'cost_s'"
            )
        database.close()
        return float(value)

    assert run(0.3, "kill") == -signal.SIGKILL
    first_s = noted_s()
    assert first_s > 0.3
    assert run(0, "kill") == -signal.SIGKILL
    second_s = noted_s()
    assert second_s >= first_s
    assert run(0, "end") == 0
    assert noted_s() > second_s


def test_time_is_noted_between_whiles(record, trial, monkeypatch):
    monkeypatch.setattr(trial_time, "SECONDS_BETWEEN_NOTES", 0.001)
    written, note_time = threading.Event(), Record.note_time

    def noticed(self, number, *, cost_s):
        note_time(self, number, cost_s=cost_s)
        written.set()

    monkeypatch.setattr(Record, "note_time", noticed)
    with time_kept(record, replace(trial, cost_s=40.0)) as spent_s:
        assert written.wait(60)
        [running] = record.running()
        assert 40.0 < running.cost_s <= spent_s()
    assert not [one for one in threading.enumerate() if one.name == "trial-time"]


def test_what_cannot_be_noted_stops_no_trial(record, trial, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "stillhouse.search.trial_time")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Record, "note_time", full)
    with pytest.raises(KeyboardInterrupt), time_kept(record, trial):
        raise KeyboardInterrupt
    assert "the time of trial 0 so far could not be noted" in caplog.text
