"""Searches whose latencies a profile tells: a student is predicted, the teacher is measured."""

import json
import re

import pytest
from transformers import AutoConfig

from stillhouse.device.features import FEATURES, features_of
from stillhouse.device.latency import Workload
from stillhouse.device.predicted import bare_ends
from stillhouse.device.profile import Fingerprint, Row, Subject, fit_profile
from stillhouse.device.runtimes import make_runtime
from stillhouse.model.anatomy import architecture_of
from stillhouse.space.default import default_space

WORKLOAD = Workload(length=16, threads=1)


@pytest.fixture(scope="module")
def profile_path(weather_teacher_folder, tmp_path_factory):
    """A profile of the default space in which a millisecond is ten million operations."""
    config = AutoConfig.from_pretrained(weather_teacher_folder)
    shapes = list(default_space(architecture_of(config)))
    features = features_of(shapes, bare_ends(config), WORKLOAD)
    work = 1 + features[:, FEATURES.index("total: matrix_flops")] / 1e7
    rows = [
        Row(architecture=one.key, latency_ms=ms * (1.03, 0.97)[n % 2], features=tuple(row))
        for n, (one, ms, row) in enumerate(zip(shapes, work, features.tolist(), strict=True))
    ]
    subject = Subject(
        kind="cpu",
        fingerprint=Fingerprint(device=make_runtime("cpu").name, workload=WORKLOAD),
        space="default",
        teacher=str(weather_teacher_folder),
        config=json.loads(config.to_json_string()),
        points=len(rows),
        seed=0,
    )
    made = fit_profile(
        subject,
        reference=shapes[0].to_dict(),
        reference_ms=work[0],
        rows=rows,
        noise_fraction=0.01,
        cost_s=1.0,
    )
    path = tmp_path_factory.mktemp("device") / "weather.json"
    made.write(path)
    return path


@pytest.mark.slow
def test_a_search_predicts_what_it_would_measure(
    run_cli, weather_teacher_folder, weather_csv, profile_path, tmp_path
):
    run = tmp_path / "run"
    code, out, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--device", profile_path, "--limit", "latency_ms=9", "--candidates", "2", "--run", run,
        "--set", "search.epochs=1", "--set", "distill.precision=float32",
        "--set", "final.students=1", "--set", "final.epochs=1",
    )  # fmt: skip
    assert code == 0, err
    told = " ".join(out.split())
    assert "(latency: predicted to ± " in told
    assert "batch 1, length 16, float32, 1 thread)" in told
    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    assert (metrics["latency_how"], metrics["latency_runs"]) == ("predicted", 0)
    low_ms, high_ms = metrics["latency_low_ms"], metrics["latency_high_ms"]
    assert 0.5 < low_ms < metrics["latency_ms"] < high_ms < 9
    assert "predicted from" in metrics["device"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Latency: predicted, but the teacher’s and those of students unlike" in page
    assert re.search(r"predicted, [\d.]+ ms to [\d.]+ ms", page)


def test_another_length_than_the_profiles_is_refused_before_the_run(
    run_cli, weather_teacher_folder, weather_csv, profile_path, tmp_path
):
    code, _, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--device", profile_path, "--set", "device.length=24", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "device.length is 24, the profile's 16" in err
