import csv
import math
import os
import signal
import subprocess
import sys
import textwrap

import optuna
import pytest

from stillhouse.errors import RunError, SpaceError
from stillhouse.search.objectives import objectives_of
from stillhouse.search.record import Record, read_trials
from stillhouse.search.trial import TrialState
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.constraints import HeadsAtMost
from stillhouse.space.search_space import Dimension, SearchSpace


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


@pytest.fixture
def record(url, space):
    return Record(url, space)


def finish(record, make_trial, state=TrialState.COMPLETE, place=None, **fields):
    place = len(record.trials()) if place is None else place
    number = record.start(make_trial(place).architecture)
    trial = make_trial(number, state, place=place, **fields)
    record.finish(trial)
    return trial


def test_numbers_count_up_and_trials_run(record, make_trial):
    assert [record.start(make_trial(place).architecture) for place in (4, 4, 0)] == [0, 1, 2]
    assert (
        record.trials()
        == record.running()
        == [
            make_trial(0, TrialState.RUNNING, place=4),
            make_trial(1, TrialState.RUNNING, place=4),
            make_trial(2, TrialState.RUNNING, place=0),
        ]
    )


def test_every_field_comes_back_from_a_new_record(record, url, space, make_trial):
    told = [
        finish(
            record,
            make_trial,
            quality=0.1 + 0.2,
            latency_ms=1 / 3,
            cost_s=12.5,
            violations={"latency_ms": -0.25},
            attributes={"parameters": 123, "seed": 1, "interval": [1.0, 2.0], "note": None},
        ),
        finish(
            record,
            make_trial,
            TrialState.INFEASIBLE,
            latency_ms=9.0,
            reason="latency_ms 80.0% over",
            violations={"latency_ms": 0.8, "size_mb": -0.5},
        ),
        finish(record, make_trial, TrialState.FAILED, reason="NaN", latency_ms=2.0, cost_s=3.0),
        finish(record, make_trial, place=0, repeat_of=0, quality=0.1 + 0.2, latency_ms=1 / 3),
    ]
    running = record.start(make_trial(7).architecture)
    again = Record(url, space)
    assert again.trials() == [*told, make_trial(running, TrialState.RUNNING, place=7)]
    assert [trial.number for trial in again.running()] == [running]
    assert read_trials(url) == again.trials()


def test_notes_stay_and_may_be_replaced(record, make_trial):
    number = record.start(make_trial(0).architecture)
    record.note(number, {"a": 1, "b": {"c": [1, 2]}})
    record.note(number, {"a": 2})
    record.note_screening(number, latency_ms=3.0, violations={"latency_ms": -0.4})
    [running] = record.running()
    assert running.attributes == {"a": 2, "b": {"c": [1, 2]}}
    assert (running.latency_ms, running.violations) == (3.0, {"latency_ms": -0.4})
    # A failure that knows nothing of the notes does not undo them.
    record.finish(make_trial(number, TrialState.FAILED, reason="NaN"))
    [failed] = record.trials()
    assert failed.attributes == running.attributes
    assert (failed.latency_ms, failed.violations) == (3.0, {"latency_ms": -0.4})


@pytest.mark.parametrize("name", ["architecture", "latency_ms", "repeat_of"])
def test_attributes_do_not_shadow_fields(record, make_trial, name):
    number = record.start(make_trial(0).architecture)
    with pytest.raises(ValueError, match=f"must not be called {name}"):
        record.note(number, {name: 1})


def test_finishing_needs_an_outcome(record, make_trial):
    number = record.start(make_trial(0).architecture)
    with pytest.raises(ValueError, match="trial 0 is still running"):
        record.finish(make_trial(number, TrialState.RUNNING))


def test_start_refuses_what_is_not_in_the_space(record):
    with pytest.raises(SpaceError, match="not in the search space"):
        record.start(BertArchitecture(layers=9, hidden_size=16, heads=1, ffn_size=1))
    assert record.trials() == []


def test_optuna_reads_it(record, url, make_trial):
    finish(record, make_trial, quality=0.9, latency_ms=3.0, violations={"latency_ms": -0.4})
    finish(record, make_trial, TrialState.INFEASIBLE, violations={"latency_ms": 0.8})
    finish(record, make_trial, TrialState.FAILED, reason="NaN")
    record.start(make_trial(35).architecture)
    study = optuna.load_study(study_name="search", storage=url)
    assert study.metric_names == ["quality", "latency_ms"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    trials = study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert trials[0].values == [0.9, 3.0]
    assert [trial.constraints for trial in trials[:2]] == [
        {"latency_ms": -0.4},
        {"latency_ms": 0.8},
    ]
    assert [trial.number for trial in study.best_trials] == [0]
    assert trials[3].params == {
        "layers": 2,
        "hidden_size": 2,
        "head_size": 1,
        "ffn_ratio": 1,
        "activation": "gelu",
    }
    assert trials[3].user_attrs["architecture"]["hidden_size"] == 64


def test_a_stopped_trial_comes_back_as_one_and_is_pruned_to_optuna(
    record, url, make_trial, tmp_path
):
    told = [
        finish(
            record,
            make_trial,
            TrialState.STOPPED,
            latency_ms=2.0,
            reason="number 3 of 3",
            cost_s=1.5,
            violations={"latency_ms": -0.5},
            attributes={"rung_qualities": [0.25, 0.5]},
        ),
        finish(record, make_trial, TrialState.INFEASIBLE, violations={"latency_ms": 0.8}),
    ]
    assert record.trials() == read_trials(url) == told
    study = optuna.load_study(study_name="search", storage=url)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED"]
    record.export_csv(tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["state"], row["quality"], row["reason"]) == ("stopped", "", "number 3 of 3")


def test_trials_queued_by_others_are_passed_over(record, url, make_trial):
    optuna.load_study(study_name="search", storage=url).enqueue_trial({"layers": 0})
    number = record.start(make_trial(0).architecture)
    assert [trial.number for trial in record.trials()] == [number] == [1]
    assert read_trials(url) == record.trials()


def test_another_space_is_refused(record, url, space):
    Record(url, space)
    with pytest.raises(RunError, match="made over another search space"):
        Record(url, space.with_constraint(HeadsAtMost(heads=2)))
    assert Record(url, space.with_constraint(HeadsAtMost(heads=2)), "other").trials() == []


def test_a_finish_that_was_cut_short_can_be_done_again(record, url, space, make_trial):
    number = record.start(make_trial(0).architecture)
    study = optuna.load_study(study_name="search", storage=url)
    half_done = optuna.trial.Trial(study, study.trials[number]._trial_id)
    half_done.set_constraint("latency_ms", 0.5)
    half_done.set_user_attr("reason", "half")
    trial = make_trial(
        number, TrialState.INFEASIBLE, reason="whole", violations={"latency_ms": 0.5, "size_mb": 0}
    )
    Record(url, space).finish(trial)
    assert record.trials() == [trial]


KILLED = """
    import os, signal, sys
    from stillhouse.search.record import Record
    from stillhouse.search.trial import Trial, TrialState
    from stillhouse.space.search_space import Dimension, SearchSpace

    space = SearchSpace((
        Dimension("layers", (1, 2, 4)), Dimension("hidden_size", (16, 32, 64)),
        Dimension("head_size", (8, 16)), Dimension("ffn_ratio", (2, 4)),
        Dimension("activation", ("gelu",)),
    ))
    first, second, *_ = space.enumerate()
    record = Record(sys.argv[1], space)
    record.finish(Trial(number=record.start(first), architecture=first,
                        state=TrialState.COMPLETE, quality=0.5, latency_ms=1.0))
    number = record.start(second)
    record.note(number, {"seed": 7})
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_survives_kill_9(url, space, make_trial):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), url], env=environment, check=False
    )
    assert process.returncode == -signal.SIGKILL
    record = Record(url, space)
    assert record.trials() == [
        make_trial(0),
        make_trial(1, TrialState.RUNNING, attributes={"seed": 7}),
    ]
    record.finish(make_trial(1, quality=0.75, attributes={"seed": 7}))
    assert record.trials()[1] == make_trial(1, quality=0.75, attributes={"seed": 7})
    assert record.start(make_trial(2).architecture) == 2


def test_csv(record, tmp_path, make_trial):
    finish(
        record,
        make_trial,
        quality=0.5,
        latency_ms=2.0,
        attributes={
            "parameters": 1234,
            "reward": 0.6,
            "teacher_latency_ms": 8.0,
            "speedup": 4.0,
        },
    )
    finish(record, make_trial, TrialState.FAILED, reason='broke, "badly"\nat once', cost_s=1.5)
    finish(record, make_trial, place=0, repeat_of=0)
    path = tmp_path / "trials.csv"
    path.write_text("old")
    record.export_csv(path)
    assert path.read_text().splitlines()[:2] == [
        "number,state,quality,latency_ms,reason,repeat_of,cost_s,"
        "teacher_latency_ms,speedup,parameters,size_mb,memory_mb,flops_fraction,reward,"
        "family,layers,hidden_size,heads,ffn_size,activation",
        "0,complete,0.5,2.0,,,0.0,8.0,4.0,1234,,,,0.6,bert,1,16,2,32,gelu",
    ]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[1]["state"], rows[1]["quality"], rows[1]["reason"]) == (
        "failed",
        "",
        'broke, "badly"\nat once',
    )
    assert rows[2]["repeat_of"] == "0"
    assert path.stat().st_mode & 0o777 == 0o644


def test_csv_of_a_space_of_free_heads_tells_their_size(tmp_path):
    names = {"layers": (2,), "hidden_size": (16,), "heads": (2, 3), "head_size": (8,)}
    dimensions = [Dimension(name, values) for name, values in names.items()]
    space = SearchSpace((*dimensions, Dimension("ffn_size", (24,))))
    record = Record(f"sqlite:///{tmp_path}/free.db", space)
    for architecture in space:
        record.start(architecture)
    record.export_csv(tmp_path / "trials.csv")
    header, *lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert header.endswith(",family,layers,hidden_size,heads,head_size,ffn_size,activation")
    assert [line.partition(",bert,")[2] for line in lines] == [
        "2,16,2,,24,gelu",
        "2,16,3,8,24,gelu",
    ]
    assert [trial.architecture for trial in record.trials()] == list(space)


def test_csv_that_cannot_be_written_leaves_the_old_one(record, tmp_path, monkeypatch):
    path = tmp_path / "trials.csv"
    path.write_text("old")

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        record.export_csv(path)
    assert path.read_text() == "old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["study.db", "trials.csv"]


def test_infinite_violations_survive(record, url, space, make_trial):
    told = finish(record, make_trial, TrialState.INFEASIBLE, violations={"latency_ms": math.inf})
    assert Record(url, space).trials() == [told]


def test_optuna_stays_silent(url, space, make_trial, capfd):
    record = Record(url, space)
    finish(record, make_trial)
    assert capfd.readouterr() == ("", "")


def test_a_study_of_three_objectives_has_them_for_others_to_read(url, space, make_trial, tmp_path):
    record = Record(url, space, objectives=objectives_of(["quality", "latency_ms", "size_mb"]))
    told = finish(record, make_trial, quality=0.7, latency_ms=2.0, attributes={"size_mb": 5.0})
    study = optuna.load_study(study_name="search", storage=url)
    assert study.metric_names == ["quality", "latency_ms", "size_mb"]
    assert [direction.name for direction in study.directions] == [
        "MAXIMIZE",
        "MINIMIZE",
        "MINIMIZE",
    ]
    assert study.trials[0].values == [0.7, 2.0, 5.0]
    assert record.trials() == [told]
    record.export_csv(tmp_path / "trials.csv")
    (row,) = csv.DictReader((tmp_path / "trials.csv").read_text().splitlines())
    assert (row["size_mb"], row["flops_fraction"]) == ("5.0", "")
