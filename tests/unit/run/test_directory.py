import json
import sqlite3
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import yaml
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from safetensors import SafetensorError

from stillhouse.errors import DeviceError, RunError
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.progress import PROGRESS_FILE, LoggingNarrator, kept_in
from stillhouse.run.settings import RunSettings, SearchSettings

SETTINGS = RunSettings()


def state(path):
    return json.loads((path / "run.json").read_text())


def test_a_new_run_writes_what_it_stands_on(tmp_path):
    path = tmp_path / "deep" / "run"
    with open_run(path, SETTINGS) as run:
        assert state(path)["status"] == "running"
        run.write_provenance(SETTINGS, {"teacher_sha256": "abc"})
    written = yaml.safe_load((path / "settings.yaml").read_text())
    provenance = written.pop("provenance")
    assert written == SETTINGS.to_dict()
    assert provenance["teacher_sha256"] == "abc"
    assert {"stillhouse", "torch", "optuna"} <= provenance["versions"].keys()


def test_a_second_opener_is_refused_while_the_first_holds_the_lock(tmp_path):
    with (
        open_run(tmp_path, SETTINGS),
        pytest.raises(RunError, match=r"in use by another process.*--run"),
        open_run(tmp_path, SETTINGS),
    ):
        pass
    with open_run(tmp_path, SETTINGS):
        pass


def test_another_process_holds_the_lock(tmp_path):
    holder = textwrap.dedent(
        """
        import sys
        from filelock import FileLock
        with FileLock(sys.argv[1]):
            print("locked", flush=True)
            sys.stdin.read()
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="in use"), open_run(tmp_path, SETTINGS):
            pass
        assert not (tmp_path / "run.json").exists()
        process.kill()
    with open_run(tmp_path, SETTINGS):  # a killed process leaves no lock behind
        pass


def test_the_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, SETTINGS):
        raise ZeroDivisionError
    with FileLock(tmp_path / ".lock", timeout=0):
        pass


def test_settings_may_change_before_anything_was_computed(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.write_provenance(SETTINGS, {"data_sha256": "a" * 64})
    other = replace(SETTINGS, seed=5)
    with open_run(tmp_path, other) as run:
        run.refuse_other_data("b" * 64)
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["seed"] == 5


@pytest.mark.parametrize("computed", ["teacher", "model", "supernets", "work", "study.db"])
def test_other_settings_are_refused_with_the_difference(tmp_path, computed):
    with open_run(tmp_path, SETTINGS):
        (tmp_path / computed).mkdir()
    before = state(tmp_path)
    other = replace(SETTINGS, search=SearchSettings(candidates=99), seed=5)
    with pytest.raises(RunError) as caught, open_run(tmp_path, other):
        pass
    message = str(caught.value)
    assert "search.candidates: None → 99" in message
    assert "seed: 0 → 5" in message
    assert len(message.splitlines()) == 4
    assert state(tmp_path) == before


ASKS = ("limit", "supernet.per_space")


def asking(**limits):
    supernet = replace(SETTINGS.supernet, per_space=True)
    return replace(SETTINGS, limit=LimitSettings(**limits), supernet=supernet)


def test_a_run_may_be_asked_for_more(tmp_path):
    """The settings by which it is asked may differ; the others may not."""
    with open_run(tmp_path, SETTINGS, asks=ASKS) as run:
        run.supernets.mkdir()
    with open_run(tmp_path, asking(speedup=2.0), asks=ASKS):
        pass
    supernet = replace(SETTINGS.supernet, steps=7, per_space=True)
    other = replace(asking(speedup=3.0), supernet=supernet, seed=5)
    before = state(tmp_path)
    with pytest.raises(RunError) as caught, open_run(tmp_path, other, asks=ASKS):
        pass
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[1:-1] == ["seed: 0 → 5", "supernet.steps: 10000 → 7"]
    assert state(tmp_path) == before
    refused = pytest.raises(RunError, match=r"limit\.speedup: None → 2\.0")
    with refused, open_run(tmp_path, asking(speedup=2.0)):
        pass


def test_what_is_asked_is_a_whole_name(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.supernets.mkdir()
    message = r"limit\.latency_ms: .*\n.*supernet\.per_space: False → True"
    for asks in (("lim", "supernet.per"), ("limit.latency", "supernets")):
        refused = pytest.raises(RunError, match=message)
        with refused, open_run(tmp_path, asking(latency_ms=3.0), asks=asks):
            pass


def test_a_complete_run_is_taken_up_again_where_it_may_be_asked_for_more(tmp_path):
    with open_run(tmp_path, SETTINGS, asks=ASKS) as run:
        run.update_state({"status": "complete", "started": "2020-01-01"})
    with open_run(tmp_path, SETTINGS, asks=ASKS) as run:
        assert state(tmp_path)["status"] == "running"
        assert not run.is_complete


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DeviceError("no student can meet the limit"), "complete"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError(), "failed"),
    ],
)
def test_a_complete_run_that_refuses_what_it_is_asked_for_is_complete(tmp_path, error, status):
    """But not where it was stopped at the work for it."""
    complete = {"status": "complete", "started": "2020-01-01", "limits": {"speedup": 2.0}}
    with open_run(tmp_path, SETTINGS, asks=ASKS) as run:
        run.update_state(complete)
    before = state(tmp_path)

    def ask():
        with open_run(tmp_path, SETTINGS, asks=ASKS) as run:
            run.update_state({"limits": {"speedup": 9.0}})
            raise error

    with pytest.raises(type(error)):
        ask()
    assert state(tmp_path)["status"] == status
    now = state(tmp_path)
    assert now.pop("cost")["seconds"] >= before.pop("cost")["seconds"]
    assert (now == before) == (status == "complete")
    assert RunDirectory(path=tmp_path).is_complete == (status == "complete")


@pytest.mark.parametrize("status", ["complete", "failed"])
def test_what_a_run_refused_does_not_stay_in_its_settings(tmp_path, status):
    facts = {"teacher_sha256": "abc"}
    with open_run(tmp_path, asking(speedup=2.0), asks=ASKS) as run:
        run.supernets.mkdir()
        run.write_provenance(asking(speedup=2.0), facts)
        run.update_state({"status": status})
    before = (tmp_path / "settings.yaml").read_bytes()

    def ask(error):
        other = asking(speedup=9.0)
        with open_run(tmp_path, other, asks=ASKS) as run:
            run.write_provenance(other, facts)
            raise error

    with pytest.raises(DeviceError):
        ask(DeviceError("no student can meet the limit"))
    assert (tmp_path / "settings.yaml").read_bytes() == before
    with pytest.raises(KeyboardInterrupt):  # what was stopped is asked for still
        ask(KeyboardInterrupt())
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["limit"]["speedup"] == 9.0


def test_what_a_run_stands_on_stays_known_after_a_refusal(tmp_path):
    """Settings of the start that told it first are not put back to those without."""
    with open_run(tmp_path, asking(speedup=2.0), asks=ASKS) as run:
        run.supernets.mkdir()

    def ask():
        with open_run(tmp_path, asking(speedup=9.0), asks=ASKS) as run:
            run.write_provenance(asking(speedup=9.0), {"data_sha256": "a" * 64})
            raise DeviceError("no student can meet the limit")

    with pytest.raises(DeviceError):
        ask()
    with (
        open_run(tmp_path, asking(speedup=2.0), asks=ASKS) as run,
        pytest.raises(RunError, match="other data"),
    ):
        run.refuse_other_data("b" * 64)


def test_a_run_that_was_not_complete_is_not_so_after_a_refusal(tmp_path):
    for _ in range(2):
        with pytest.raises(DeviceError), open_run(tmp_path, SETTINGS, asks=ASKS):
            raise DeviceError("no student can meet the limit")
        assert state(tmp_path)["status"] == "failed"
        assert state(tmp_path)["reason"] == "no student can meet the limit"


def test_a_run_of_an_older_version_goes_on_with_the_defaults_of_what_it_did_not_know(tmp_path):
    with open_run(tmp_path, SETTINGS):
        (tmp_path / "work").mkdir()
    written = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    del written["recipe"], written["search"]["alpha"]
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(written))
    with open_run(tmp_path, SETTINGS):
        pass
    other = replace(SETTINGS, search=SearchSettings(alpha=-0.5))
    with pytest.raises(RunError, match=r"search\.alpha: None → -0\.5"), open_run(tmp_path, other):
        pass


def test_a_run_without_settings_is_refused(tmp_path):
    (tmp_path / "study.db").touch()
    with pytest.raises(RunError, match=r"without settings\.yaml"), open_run(tmp_path, SETTINGS):
        pass


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (KeyboardInterrupt(), "interrupted", ""),
        (DeviceError("over by 3 %"), "failed", "over by 3 %"),
        (SystemExit(2), "failed", "2"),
    ],
)
def test_how_a_run_stopped_is_told(tmp_path, error, status, reason):
    with pytest.raises(type(error)), open_run(tmp_path, SETTINGS):
        raise error
    assert (state(tmp_path)["status"], state(tmp_path)["reason"]) == (status, reason)
    with open_run(tmp_path, SETTINGS) as run:
        assert state(tmp_path)["status"] == "running"
        assert not run.is_complete


def test_the_start_of_the_first_opening_is_kept(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.update_state({"started": "2020-01-01"})
    with open_run(tmp_path, SETTINGS):
        pass
    assert state(tmp_path)["started"] == "2020-01-01"


def test_a_complete_run_stays_complete(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.update_state({"status": "complete"})
    with open_run(tmp_path, SETTINGS) as run:
        assert run.is_complete
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path, SETTINGS):
        raise KeyboardInterrupt
    assert state(tmp_path)["status"] == "complete"


def caused_by(cause):
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SafetensorError("I/O error: No space left on device"), "No space left on device"),
        (StorageInternalError("An exception in the commit."), "An exception in the commit"),
        (caused_by(sqlite3.OperationalError("disk is full")), "disk is full"),
    ],
)
def test_a_full_disk_is_one_clear_error(tmp_path, error, cause):
    message = rf"{cause}.*the same command again"
    with pytest.raises(RunError, match=message), open_run(tmp_path, SETTINGS):
        raise error
    assert state(tmp_path)["status"] == "failed"


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr("stillhouse.run.directory.time", made)
    return made


def test_times_add_up_over_two_openings(tmp_path, clock):
    def interrupted():
        with open_run(tmp_path, SETTINGS) as run:
            with run.timed("data"):
                clock.now += 1
            with run.timed("search"):
                clock.now += 10
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with open_run(tmp_path, SETTINGS) as run:
        with run.timed("search"):
            clock.now += 5
        with run.timed("final"):
            clock.now += 2
    assert state(tmp_path)["phases_s"] == {"data": 1, "search": 15, "final": 2}
    assert state(tmp_path)["wall_s"] == 18


def test_only_whole_students_count_by_rank(tmp_path):
    run = RunDirectory(path=tmp_path)
    assert run.students() == []
    for name in ("10", "2", ".2.tmp"):
        folder = tmp_path / "students" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}")
    (tmp_path / "students" / "3").mkdir()  # no metrics: not written to the end
    assert run.students() == [run.student(2), run.student(10)]


def test_work_can_be_cleared_twice(tmp_path):
    run = RunDirectory(path=tmp_path)
    (run.work / "cache").mkdir(parents=True)
    run.clear_work()
    run.clear_work()
    assert not run.work.exists()
    run.clear_work(keep="cache")
    assert not run.work.exists()


def test_one_kind_of_work_may_be_kept(tmp_path):
    run = RunDirectory(path=tmp_path)
    for folder in ("pretrain/1/step-3", "blocks/1-2", ".pretrain.tmp", "pretrained"):
        (run.work / folder).mkdir(parents=True)
    (run.work / "pretrain/1/step-3/weights").write_text("3")
    (run.work / "loose").touch()
    (run.path / "beside").mkdir()
    run.clear_work(keep="pretrain")
    assert {path.name for path in run.work.iterdir()} == {"pretrain"}
    assert (run.work / "pretrain/1/step-3/weights").read_text() == "3"
    assert (run.path / "beside").exists()
    run.clear_work(keep="blocks")  # of which there is none: nothing is left
    assert not run.work.exists()


def test_other_data_is_refused(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.refuse_other_data("a" * 64)  # nothing is known yet
        run.write_provenance(SETTINGS, {"data_sha256": "a" * 64})
        run.teacher.mkdir()
    with open_run(tmp_path, SETTINGS) as run:
        run.refuse_other_data("a" * 64)
        with pytest.raises(RunError, match=r"other data .*aaaa.*bbbb"):
            run.refuse_other_data("b" * 64)


def test_another_teacher_is_refused(tmp_path):
    with open_run(tmp_path, SETTINGS) as run:
        run.refuse_other_teacher("a" * 64)  # nothing is known yet
        run.write_provenance(SETTINGS, {"teacher_sha256": "a" * 64})
        run.teacher.mkdir()
    with open_run(tmp_path, SETTINGS) as run:
        run.refuse_other_teacher("a" * 64)
        message = r"other weights of its teacher .*aaaa.*bbbb.*another directory with --run"
        with pytest.raises(RunError, match=message):
            run.refuse_other_teacher("b" * 64)


def fail_at_work(path):
    with open_run(path, SETTINGS):
        kept_in(path, LoggingNarrator()).begin("Training", 1.0)
        assert (path / PROGRESS_FILE).exists()
        raise DeviceError("no device")


def test_progress_is_gone_when_a_run_ends_badly(tmp_path):
    with pytest.raises(DeviceError):
        fail_at_work(tmp_path)
    assert not (tmp_path / PROGRESS_FILE).exists()
