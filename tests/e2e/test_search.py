"""One search with everything in memory, and what it leaves behind."""

import csv
import json
import os

import optuna
import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import stillhouse
from stillhouse.api import search_jobs
from stillhouse.errors import SettingsError
from stillhouse.run.settings_file import apply_overrides
from stillhouse.search.trial import TrialState

CANDIDATES = 6
LIMIT_MS = 1.0  # architectures of the table take 0.49 to 2 ms
PROMISED = {
    "quality", "quality_search", "teacher_quality", "quality_fraction", "latency_ms",
    "teacher_latency_ms", "speedup", "parameters", "parameters_encoder", "metric", "device",
    "workload",
}  # fmt: skip


@pytest.fixture(scope="module")
def arguments(
    weather_teacher_folder, weather_tokenizer, weather_dataset, table_settings, tmp_path_factory
):
    return {
        "teacher": AutoModelForSequenceClassification.from_pretrained(weather_teacher_folder),
        "tokenizer": weather_tokenizer,
        "task": weather_dataset,
        "text": ("text",),
        "label": "label",
        "limit": {"latency_ms": LIMIT_MS},
        "candidates": CANDIDATES,
        "settings": table_settings,
        "run": tmp_path_factory.mktemp("runs") / "memory",
    }


@pytest.fixture(scope="module")
def found(arguments):
    return stillhouse.search(**arguments)


def test_as_many_candidates_as_asked_for_were_trained(found):
    assert [trial.number for trial in found.trials] == list(range(len(found.trials)))
    fresh = [trial for trial in found.trials if trial.repeat_of is None]
    complete = [trial for trial in fresh if trial.state is TrialState.COMPLETE]
    assert len(complete) == CANDIDATES
    assert len({trial.architecture for trial in fresh}) == len(fresh)
    assert len({trial.quality for trial in complete}) > 1
    assert all(trial.attributes["initialisation"]["kind"] == "slices" for trial in complete)


def test_what_is_over_the_limit_was_not_trained(found):
    over = [trial for trial in found.trials if trial.state is TrialState.INFEASIBLE]
    assert over
    for trial in over:
        assert trial.latency_ms > LIMIT_MS
        assert trial.violations["latency_ms"] == pytest.approx(trial.latency_ms / LIMIT_MS - 1)
        assert "latency_ms" in trial.reason
        assert trial.quality is None
        assert not (found.path / "tensorboard" / f"trial-{trial.number:04d}").exists()
    complete = [trial for trial in found.trials if trial.state is TrialState.COMPLETE]
    assert all(trial.latency_ms <= LIMIT_MS for trial in complete)


def test_the_front_holds_the_best_and_nothing_beaten(found):
    qualities = [trial.quality for trial in found.front]
    latencies = [trial.latency_ms for trial in found.front]
    assert qualities == sorted(qualities)
    assert latencies == sorted(latencies)
    complete = [trial for trial in found.trials if trial.state is TrialState.COMPLETE]
    assert qualities[-1] == max(trial.quality for trial in complete)


def test_the_record_is_an_optuna_study(found):
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{found.path}/study.db")
    assert len(study.trials) == len(found.trials)
    assert study.metric_names == ["quality", "latency_ms"]
    for frozen, trial in zip(study.trials, found.trials, strict=True):
        expected = None if trial.quality is None else [trial.quality, trial.latency_ms]
        assert frozen.values == expected


def test_the_table_says_what_the_record_says(found):
    with (found.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["number"]), row["state"]) for row in rows] == [
        (trial.number, trial.state.value) for trial in found.trials
    ]


def test_settings_are_written_resolved_and_with_their_origin(found):
    written = yaml.safe_load((found.path / "settings.yaml").read_text())
    assert written["limit"]["latency_ms"] == LIMIT_MS
    assert written["search"]["candidates"] == CANDIDATES
    assert written["seed"] == 0
    origin = written["provenance"]
    assert origin["versions"]["torch"] == torch.__version__
    assert len(origin["teacher_sha256"]) == len(origin["data_sha256"]) == 64


def test_students_load_without_stillhouse(found):
    assert [student.path.name for student in found.students] == ["1", "2"]
    for student in found.students:
        config = json.loads((student.path / "config.json").read_text())
        assert config["architectures"] == ["BertForSequenceClassification"]
        assert "auto_map" not in config
        assert (student.path / "model.safetensors").exists()
        model = AutoModelForSequenceClassification.from_pretrained(student.path)
        tokens = AutoTokenizer.from_pretrained(student.path)("a sunny day", return_tensors="pt")
        assert model(**tokens).logits.shape == (1, 2)
        assert model.config.id2label == {0: "bad", 1: "good"}
        assert sum(p.numel() for p in model.parameters()) == student.metrics["parameters"]


def test_every_student_has_the_promised_measures(found):
    for student in found.students:
        metrics = json.loads((student.path / "metrics.json").read_text())
        assert metrics == student.metrics
        assert metrics.keys() >= PROMISED
        assert all(metrics[name] is not None for name in PROMISED)
        assert metrics["quality_fraction"] == metrics["quality"] / metrics["teacher_quality"]
        assert metrics["speedup"] == metrics["teacher_latency_ms"] / metrics["latency_ms"]
        assert metrics["parameters_encoder"] < metrics["parameters"]
        assert metrics["within_limit"] is True
        assert "weather-chip" in (student.path / "README.md").read_text()


def test_the_best_student_comes_first(found):
    first, second = (student.metrics["quality_search"] for student in found.students)
    assert first >= second


def test_teacher_report_and_curves_are_there(found):
    teacher = AutoModelForSequenceClassification.from_pretrained(found.path / "teacher")
    assert teacher.config.num_hidden_layers == 2
    assert json.loads((found.path / "teacher" / "metrics.json").read_text())["quality"] == 1.0
    assert found.report == found.path / "report.html"
    assert "2 × 32" in found.report.read_text(encoding="utf-8")
    assert any((found.path / "tensorboard").glob("final-trial-*/events.*"))
    state = json.loads((found.path / "run.json").read_text())
    assert state["status"] == "complete"
    assert state["phases_s"].keys() == {"data", "teacher", "search", "final"}


def test_nothing_half_done_is_left(found):
    left = [path.name for path in found.path.rglob("*") if path.name.endswith(".tmp")]
    assert left == []
    assert not (found.path / "work").exists()


def test_the_teacher_in_memory_stays_as_it_was(found, arguments):
    assert all(parameter.requires_grad for parameter in arguments["teacher"].parameters())


def test_the_same_call_again_returns_at_once(found, arguments, monkeypatch):
    def nothing(*_, **__):
        raise AssertionError("worked again")

    monkeypatch.setattr(search_jobs, "load_workbench", nothing)
    before = {path: os.stat(path).st_mtime_ns for path in (found.path / "students").rglob("*")}
    again = stillhouse.search(**arguments)
    assert again == found
    after = {path: os.stat(path).st_mtime_ns for path in (found.path / "students").rglob("*")}
    assert after == before


def test_a_search_out_of_time_ends_with_what_it_has(arguments, tmp_path):
    short = {**arguments, "run": tmp_path / "run", "seconds": 0.001, "candidates": None}
    result = stillhouse.search(**short)
    assert [trial.state for trial in result.trials].count(TrialState.COMPLETE) == 1
    assert len(result.students) == 1


def test_halving_is_not_for_tasks(arguments, tmp_path):
    settings = apply_overrides(arguments["settings"], {"transfer.rungs": 2})
    with pytest.raises(SettingsError, match=r"plain has no use for transfer\.rungs = 2"):
        stillhouse.search(**{**arguments, "run": tmp_path / "run", "settings": settings})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [["quality", "size_mb"], ["reward"]])
def test_other_objectives_on_a_task(arguments, tmp_path, names):
    settings = apply_overrides(
        arguments["settings"], {"search.objectives": names, "final.students": 1}
    )
    asked = {**arguments, "run": tmp_path / "run", "settings": settings, "candidates": 3}
    result = stillhouse.search(**asked)
    complete = [trial for trial in result.trials if trial.state is TrialState.COMPLETE]
    attribute = names[-1]
    values = [trial.attributes[attribute] for trial in complete]
    assert all(value > 0 for value in values)
    assert any(trial.attributes[attribute] in (min(values), max(values)) for trial in result.front)
    assert json.loads((result.path / "run.json").read_text())["objectives"] == names
