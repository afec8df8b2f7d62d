"""What scripts get: one document on standard output, whatever else is printed on the way."""

import json
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from stillhouse import api
from stillhouse.cli.plain import plain
from stillhouse.device.predictor import PredictionErrors
from stillhouse.errors import LimitError, SettingsError
from stillhouse.evaluate.loyalty import Loyalty
from stillhouse.recipe.evaluation import Evaluation
from stillhouse.recipe.measuring import Measurements
from stillhouse.recipe.plan import Plan, PlannedPhase
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture

PAGE = Path(__file__).resolve().parents[3] / "docs" / "command_line.md"
SHAPE = BertArchitecture(layers=2, hidden_size=32, heads=2, ffn_size=64)
TRIAL = Trial(number=0, architecture=SHAPE, state=TrialState.COMPLETE, quality=0.5, latency_ms=2.0)


def student(place, *, within=True):
    return api.Student(
        path=Path(f"r/students/{place}"),
        metrics={
            "quality": 0.5,
            "quality_low": math.nan,
            "within_limit": within,
            "mlm_accuracy_fraction": 0.5,
            "mlm_count": 7,
            "teacher_mlm_accuracy_fraction": 0.6,
        },
    )


def found(*students):
    return api.SearchResult(
        trials=(TRIAL,),
        front=(TRIAL,),
        students=students,
        controls=(),
        competitors=(),
        path=Path("r"),
        report=Path("r/report.html"),
    )


EVALUATION = Evaluation(task="a task", scores={"accuracy": 0.5}, low=0.4, high=math.nan, count=7)
PLAN = Plan(
    phases=(PlannedPhase(name="search", what="all of it", steps=3, seconds=2.0),),
    disk_mb={"students": 12.0},
    notes=("a guess",),
)
EXPORT = SimpleNamespace(path=Path("onnx"), told={"example": "python run.py", "size_mb": {}})
PROFILE = SimpleNamespace(
    subject=SimpleNamespace(
        space="kd-nas", fingerprint=SimpleNamespace(device="a chip", workload={"batch": 1})
    ),
    errors=PredictionErrors(
        count=10, mape_fraction=0.1, p95_fraction=0.2, rms_fraction=0.2, spearman=0.9
    ),
    noise_fraction=0.1,
    choice=SimpleNamespace(kind="linear"),
    cost_s=2.0,
)
MEASURED = Measurements(
    model="m", against=None, processor="a chip", rows=(SimpleNamespace(problem="", to_dict=dict),)
)

JOBS = {
    "search": ("run_search_job", found(student(1)), ("search",)),
    "demo": ("run_search_job", found(student(1)), ("demo",)),
    "plan": ("plan_job", PLAN, ("plan",)),
    "select": ("run_select_job", found(student(1)), ("select", "r", "--limit", "size_mb=1")),
    "train": ("run_train_job", student(1), ("train", "r/selected/1")),
    "distill": ("run_distill_job", student(1), ("distill",)),
    "finetune": ("run_finetune_job", student(1), ("finetune", "m")),
    "quantise": ("run_quantise_job", student(1), ("quantise", "m")),
    "cross-view": ("run_cross_view_job", student(1), ("cross-view",)),
    "evaluate": ("evaluate", EVALUATION, ("evaluate", "m")),
    "measure": ("measure", MEASURED, ("measure", "m", "--device", "cpu")),
}


@pytest.fixture
def job(monkeypatch):
    """Puts a result in the place of a job, which prints on standard output on its way."""

    def put(name, result):
        def work(*_, **__):
            sys.stdout.write("a library says something\n")
            if isinstance(result, BaseException):
                raise result
            return result

        monkeypatch.setattr(api, name, work)

    return put


def documented(command):
    """The keys that the page of the command line tells of a command's document."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## For scripts")
    for names, keys in re.findall(r"^\| (.*?) \| (.*?) \|$", section, flags=re.MULTILINE):
        if f"`{command}`" in names:
            return set(re.findall(r"`(\w+)`", keys))
    raise AssertionError(f"{command} is not on the page")


@pytest.mark.parametrize("command", JOBS)
def test_one_document_with_the_keys_that_are_documented(run_cli, job, command):
    name, result, arguments = JOBS[command]
    job(name, result)
    code, out, err = run_cli(*arguments, "--json")
    assert code == 0
    document = json.loads(out)
    assert (document.pop("command"), document.pop("format")) == (command, 1)
    assert set(document) == documented(command)
    assert "a library says something" in err


def test_an_export_tells_what_its_file_tells(run_cli, job):
    job("export_onnx", EXPORT)
    _, out, _ = run_cli("export", "m", "--json")
    assert json.loads(out) == {
        "command": "export",
        "format": 1,
        "path": "onnx",
        "example": "python run.py",
        "size_mb": {},
    }


def test_devices_and_a_profile(run_cli, job, tmp_path):
    _, out, _ = run_cli("devices", "--json")
    document = json.loads(out)
    assert set(document) - {"command", "format"} == documented("devices")
    assert {one["name"] for one in document["devices"]} >= {"cpu", "onnxruntime-cpu"}
    job("run_profile_job", PROFILE)
    _, out, _ = run_cli(
        "profile", "--space", "kd-nas", "--device", "cpu", "--out", tmp_path / "p.json", "--json"
    )
    document = json.loads(out)
    assert set(document) - {"command", "format"} == documented("profile")


def test_a_search_tells_its_students_by_path_and_metrics(run_cli, job):
    job("run_search_job", found(student(1), student(2, within=False)))
    code, out, _ = run_cli("search", "--json")
    assert code == 0
    document = json.loads(out)
    assert [one["path"] for one in document["students"]] == ["r/students/1", "r/students/2"]
    assert document["students"][0]["metrics"]["quality_low"] is None
    [trial] = document["trials"]
    assert (trial["state"], trial["quality"], trial["latency_ms"]) == ("complete", 0.5, 2.0)
    assert trial["architecture"]["hidden_size"] == 32


def test_all_over_the_limits_is_exit_code_3(run_cli, job):
    job("run_search_job", found(student(1, within=False)))
    code, out, _ = run_cli("search", "--json")
    assert code == 3
    assert len(json.loads(out)["students"]) == 1


def test_a_worker_of_a_data_parallel_training_prints_nothing(run_cli, job):
    job("run_search_job", found())
    code, out, _ = run_cli("search", "--json")
    assert (code, out) == (0, "")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (SettingsError("no such thing"), "SettingsError", 1),
        (LimitError("none is within"), "LimitError", 3),
        (OSError(28, "No space left"), "OSError", 1),
    ],
)
def test_an_error_is_a_document_and_a_line(run_cli, job, error, kind, code):
    job("run_search_job", error)
    ended, out, err = run_cli("search", "--json")
    told = {"kind": kind, "message": str(error), "exit_code": code}
    assert (ended, json.loads(out)) == (code, {"command": "search", "format": 1, "error": told})
    assert f"error: {error}" in err


def test_our_own_mistake_is_a_document_and_a_traceback(job, capsys, monkeypatch):
    from stillhouse.cli import main  # noqa: PLC0415

    job("evaluate", ZeroDivisionError("by zero"))
    monkeypatch.setattr("sys.argv", ["stillhouse", "evaluate", "m", "--json"])
    with pytest.raises(ZeroDivisionError):
        main()
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "ZeroDivisionError"


def test_ctrl_c_is_a_document_that_says_how_to_go_on(run_cli, job):
    job("run_search_job", KeyboardInterrupt())
    code, out, _ = run_cli("search", "--run", "there", "--json")
    error = json.loads(out)["error"]
    assert (code, error["kind"], error["exit_code"]) == (130, "Stopped", 130)
    assert "kept in there; the same command again" in error["message"]


@pytest.mark.parametrize(
    ("arguments", "told", "command"),
    [
        (("serach", "--json"), "'search'", ""),
        (("search", "--json", "--run"), "requires an argument", "search"),
        (("search", "--lmit", "5", "--json"), "--lmit: did you mean '--limit'?", "search"),
        (("evaluate", "--json"), "MODEL", "evaluate"),
        (("search", "kdnas", "--json"), "did you mean 'kd-nas'?", "search"),
    ],
)
def test_what_is_not_understood_is_a_document(run_cli, arguments, told, command):
    code, out, err = run_cli(*arguments)
    document = json.loads(out)
    assert (code, document["command"]) == (2, command)
    assert (document["error"]["kind"], document["error"]["exit_code"]) == ("UsageError", 2)
    assert told in document["error"]["message"]
    assert told in err


def test_without_json_the_error_stands_alone(run_cli, job):
    job("run_search_job", SettingsError("no such thing"))
    code, out, err = run_cli("search")
    assert (code, out) == (1, "a library says something\n")
    assert err == "error: no such thing\n"


def test_plain_data():
    @dataclass(frozen=True)
    class Pair:
        first: float
        second: object

    given = {
        "nan": math.nan,
        "endless": [math.inf, 1.5],
        3: Path("a/b"),
        "state": TrialState.FAILED,
        "pair": Pair(first=-math.inf, second=(1, None, True)),
    }
    assert plain(given) == {
        "nan": None,
        "endless": [None, 1.5],
        "3": "a/b",
        "state": "failed",
        "pair": {"first": None, "second": [1, None, True]},
    }


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    told = plain({"a": numpy.float32(0.5), "b": numpy.int64(3), "c": numpy.float64("nan")})
    assert json.dumps(told) == '{"a": 0.5, "b": 3, "c": null}'


def test_loyalty_is_told_by_its_names(run_cli, job):
    told = Loyalty(
        label=0.9,
        label_low=0.8,
        label_high=1.0,
        probability=None,
        probability_low=None,
        probability_high=None,
        base="e",
        count=7,
    )
    job("evaluate", Evaluation(task="t", scores={"f1": 1.0}, low=1, high=1, count=7, loyalty=told))
    _, out, _ = run_cli("evaluate", "m", "--json")
    assert json.loads(out)["loyalty"]["label"] == 0.9
