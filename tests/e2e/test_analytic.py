"""Searches for chips that are not here: every figure says that it is computed, not measured."""

import json

import pytest

import stillhouse
from stillhouse.model.encoders import load_encoder
from stillhouse.recipe.autodistil import open_scales
from stillhouse.run.settings import settings_from_dict
from stillhouse.search.trial import TrialState
from stillhouse.space.published import autodistil_for

CHIP = {"kind": "analytic", "chip": "tpu-v4i"}


@pytest.fixture(scope="module")
def found(weather_teacher_folder, weather_csv, table_settings, tmp_path_factory):
    return stillhouse.search(
        teacher=str(weather_teacher_folder),
        task=str(weather_csv),
        limit={"speedup": 1.2},
        candidates=2,
        settings={**table_settings, "device": CHIP, "final": {"students": 1, "epochs": 1.0}},
        run=tmp_path_factory.mktemp("runs") / "tpu",
    )


def test_every_trial_is_told_for_the_chip(found):
    complete = [trial for trial in found.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 2
    for trial in complete:
        latency = trial.attributes["latency"]
        assert (latency["how"], latency["device"]) == ("analytic", "TPUv4i (analytic)")
        assert latency["low_ms"] == latency["high_ms"] == trial.latency_ms
        assert trial.attributes["speedup"] >= 1.2


def test_students_and_report_say_analytic(found):
    (student,) = found.students
    metrics = json.loads((student.path / "metrics.json").read_text())
    assert (metrics["latency_how"], metrics["latency_runs"]) == ("analytic", 0)
    assert metrics["device"] == "TPUv4i (analytic)"
    assert metrics["workload"]["precision"] == "bfloat16"
    assert metrics["workload"]["threads"] == 0
    assert metrics["within_limit"] is True
    assert "Latency: analytic; TPUv4i (analytic); " in found.report.read_text(encoding="utf-8")
    assert "TPUv4i (analytic)" in (student.path / "README.md").read_text()


def test_one_option_chooses_the_chip(run_cli, weather_teacher_folder, weather_csv, tmp_path):
    code, out, err = run_cli(
        "distill", "--teacher", weather_teacher_folder, "--task", weather_csv, "--device", "h100",
        "--student", "layers=1", "--epochs", "0.2", "--run", tmp_path / "run",
        "--set", "distill.precision=float32", "--set", "device.precision=int8",
    )  # fmt: skip
    assert code == 0, err
    assert "(latency: analytic, batch 1, length 16, int8)" in " ".join(out.split())


def test_an_unknown_chip_is_refused_with_the_nearest(run_cli, tmp_path):
    code, _, err = run_cli("search", "--device", "h10", "--run", tmp_path / "run")
    assert code == 1
    assert "'h10': did you mean 'h100'?" in err
    assert not (tmp_path / "run").exists()


def test_students_of_supernets_are_weighed_for_the_chip(weather_encoder_folder):
    settings = settings_from_dict(
        {"recipe": "autodistil", "device": CHIP, "corpus": {"name": "any", "length": 16}}
    )
    teacher = load_encoder(str(weather_encoder_folder))
    scales = open_scales(settings, teacher, settings.limit)
    space = autodistil_for(scales.device.teacher, "tiny")
    smallest = min(space, key=lambda one: (one.layers, one.hidden_size, one.heads, one.ffn_size))
    comparison = scales.comparison(smallest)
    assert comparison.student.how == "analytic"
    assert comparison.speedup > 1
