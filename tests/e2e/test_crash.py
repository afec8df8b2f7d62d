"""Real processes, killed and interrupted in the middle of a run, and started again."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillhouse.search.record import read_trials
from stillhouse.search.trial import TrialState

DRIVER = Path(__file__).with_name("crash_driver.py")
PATIENCE_S = 120
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}

pytestmark = pytest.mark.slow


def begin(command):
    """Starts a program; its threads add up numbers in one order, so that runs can be compared."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Tests that run in the background ignore Ctrl-C, which their children would inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )


def end(process):
    """Waits for the program; gives its exit code and all that it wrote."""
    written, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, written


def wait_until(happened, process):
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, f"it ended before: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def complete_trials(run):
    table = run / "trials.csv"
    if not table.exists():
        return 0
    with table.open(newline="") as file:
        return sum(row["state"] == "complete" for row in csv.DictReader(file))


def in_the_search(run):
    return complete_trials(run) >= 2


def in_the_final_training(run):
    """Some steps into the first final student."""
    return any((run / "work" / "final").glob("trial-*/step-[3-9]/complete.json"))


@pytest.fixture(scope="module")
def command(weather_teacher_folder, weather_csv, weather_table):
    def of(run):
        return [DRIVER, run, weather_teacher_folder, weather_csv, weather_table]

    return of


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The run that nobody disturbs."""
    run = tmp_path_factory.mktemp("crash") / "whole"
    code, written = end(begin(command(run)))
    assert code == 0, written
    return run


def trials(run):
    """What has to be equal: everything but the time that it took."""
    return [
        {
            "number": trial.number,
            "architecture": trial.architecture,
            "state": trial.state,
            "quality": trial.quality,
            "latency_ms": trial.latency_ms,
            "repeat_of": trial.repeat_of,
            "violations": dict(trial.violations),
            "attributes": dict(trial.attributes),
        }
        for trial in read_trials(f"sqlite:///{run}/study.db")
    ]


def students(run):
    """Rank, measures that do not tell time, and the weights themselves."""
    found = []
    for folder in sorted((run / "students").iterdir()):
        metrics = json.loads((folder / "metrics.json").read_text())
        weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        found.append((folder.name, {**metrics, "cost_s": None}, weights))
    return found


def test_the_undisturbed_run_has_trials_of_all_kinds(whole):
    states = [trial["state"] for trial in trials(whole)]
    assert states.count(TrialState.COMPLETE) >= 7
    assert TrialState.INFEASIBLE in states
    assert len({trial["quality"] for trial in trials(whole)}) > 3
    assert len(students(whole)) == 2


@pytest.mark.parametrize("moment", [in_the_search, in_the_final_training])
def test_killed_and_started_again_equals_undisturbed(whole, command, tmp_path, moment):
    run = tmp_path / "killed"
    process = begin(command(run))
    wait_until(lambda: moment(run), process)
    process.send_signal(signal.SIGKILL)
    end(process)
    assert process.returncode == -signal.SIGKILL
    assert json.loads((run / "run.json").read_text())["status"] == "running"
    before = trials(run)
    if moment is in_the_search:
        assert 2 <= len(before) < len(trials(whole))

    if moment is in_the_final_training:  # what a longer training would have noted
        [begun] = [one for one in (run / "work" / "final").iterdir() if one.is_dir()]
        begun.with_suffix(".json").write_text('{"cost_s": 1000.0}')

    code, written = end(begin(command(run)))

    assert code == 0, written
    assert trials(run) == trials(whole)
    known = [trial for trial in before if trial["state"] is not TrialState.RUNNING]
    assert trials(run)[: len(known)] == known
    assert students(run) == students(whole)
    if moment is in_the_final_training:
        costs = [
            json.loads(one.read_text())["cost_s"] for one in run.glob("students/*/metrics.json")
        ]
        assert sum(cost_s > 1000 for cost_s in costs) == 1
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert not list(run.rglob("*.tmp"))


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(run_cli, teacher_options, tmp_path):
    run, candidates = tmp_path / "run", 20  # so many that a slow watcher comes before the end
    program = "from stillhouse.cli import main; main()"
    command = [
        "search", *teacher_options, "--run", run, "--candidates", str(candidates),
        "--limit", "latency_ms=1.0", "--set", "search.epochs=40", "--set", "final.students=1",
        "--set", "final.epochs=1",
    ]  # fmt: skip
    process = begin(["-c", program, *command])
    wait_until(lambda: complete_trials(run) >= 1, process)
    time.sleep(0.2)  # into the training of the next one
    process.send_signal(signal.SIGINT)
    code, written = end(process)

    assert code == 130, written
    assert f"What was finished is kept in {run}; the same command again goes on there." in written
    assert "Traceback" not in written
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert not list(run.rglob("*.tmp"))
    assert not (run / "students").exists()
    finished = [one for one in trials(run) if one["state"] is not TrialState.RUNNING]
    assert sum(one["state"] is TrialState.COMPLETE for one in finished) < candidates

    code, _, written = run_cli(*command)
    assert code == 0, written
    assert trials(run)[: len(finished)] == finished
    assert complete_trials(run) >= 3
    assert len(students(run)) == 1
