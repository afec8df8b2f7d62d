"""Searches whose latencies a profile tells: candidates are predicted, what is left is measured."""

import csv
import json
import re
from dataclasses import replace

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
def write_profile(weather_teacher_folder, tmp_path_factory):
    """Writes a profile of the default space in which a millisecond is ten million operations."""

    def write(kind, precision):
        path = tmp_path_factory.mktemp("device") / "weather.json"
        profile_of(weather_teacher_folder, kind, replace(WORKLOAD, precision=precision)).write(path)
        return path

    return write


def profile_of(teacher, kind, workload):
    config = AutoConfig.from_pretrained(teacher)
    shapes = list(default_space(architecture_of(config)))
    features = features_of(shapes, bare_ends(config), workload)
    work = 1 + features[:, FEATURES.index("total: matrix_flops")] / 1e7
    rows = [
        Row(architecture=one.key, latency_ms=ms * (1.03, 0.97)[n % 2], features=tuple(row))
        for n, (one, ms, row) in enumerate(zip(shapes, work, features.tolist(), strict=True))
    ]
    subject = Subject(
        kind=kind,
        fingerprint=Fingerprint(device=make_runtime(kind).name, workload=workload),
        space="default",
        teacher=str(teacher),
        config=json.loads(config.to_json_string()),
        points=len(rows),
        seed=0,
    )
    return fit_profile(
        subject,
        reference=shapes[0].to_dict(),
        reference_ms=work[0],
        rows=rows,
        noise_fraction=0.01,
        cost_s=1.0,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "precision"), [("cpu", "float32"), ("onnxruntime-cpu", "int8")])
def test_a_search_predicts_candidates_and_measures_its_students(
    run_cli, weather_teacher_folder, weather_csv, write_profile, tmp_path, kind, precision
):
    run = tmp_path / "run"
    code, out, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--device", write_profile(kind, precision), "--limit", "latency_ms=9,size_mb=9",
        "--candidates", "1", "--run", run,
        "--set", "search.epochs=1", "--set", "distill.precision=float32",
        "--set", "final.students=1", "--set", "final.epochs=1",
    )  # fmt: skip
    assert code == 0, err
    told = " ".join(out.split())
    assert f"(latency: measured, batch 1, length 16, {precision}, 1 thread)" in told
    assert re.search(r"MB; predicted [\d.]+ ms, [\d.]+ % too (short|long)", told)
    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    assert metrics["latency_how"] == "measured"
    assert metrics["latency_runs"] >= 20
    with (run / "trials.csv").open(newline="", encoding="utf-8") as file:
        judged = {int(row["number"]): float(row["latency_ms"]) for row in csv.DictReader(file)}
    predicted_ms, measured_ms = metrics["latency_predicted_ms"], metrics["latency_ms"]
    assert predicted_ms == pytest.approx(judged[metrics["trial"]])
    assert metrics["latency_predicted_error_fraction"] == pytest.approx(
        (predicted_ms - measured_ms) / measured_ms
    )
    assert metrics["violations"]["latency_ms"] == pytest.approx(metrics["latency_high_ms"] / 9 - 1)
    width = 4 * metrics["parameters"] / 1e6
    assert metrics["size_mb"] == (metrics["file_mb"] if precision == "int8" else width)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Latency: predicted for candidates, measured for teacher and students; " in page
    assert re.search(r"<small>predicted [\d.]+ ms, [\d.]+ % too (short|long)</small>", page)
    limits = page.split("<h2>Limits</h2>")[1].split("</table>")[0]
    hows = re.findall(r'data-label="How known"><span>(\w+)<', limits)
    assert hows == ["measured", "measured" if precision == "int8" else "counted"]


def test_another_length_than_the_profiles_is_refused_before_the_run(
    run_cli, weather_teacher_folder, weather_csv, write_profile, tmp_path
):
    code, _, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--device", write_profile("cpu", "float32"), "--set", "device.length=24",
        "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "device.length is 24, the profile's 16" in err
