"""One given student, no search; and scoring what came out."""

import json
import re

import pytest
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

from stillhouse import evaluate, load_task
from stillhouse.data.task import TaskSettings


@pytest.fixture
def distil(run_cli, teacher_options, tmp_path):
    def run(student, *options):
        command = ("distill", *teacher_options, "--student", student, "--run", tmp_path / "run")
        return run_cli(*command, *options)

    return run


def metrics_of(run):
    return json.loads((run / "students" / "1" / "metrics.json").read_text())


def test_a_shape_on_the_measured_processor(
    run_cli, weather_teacher_folder, weather_csv, tmp_path, capsys
):
    code, out, err = run_cli(
        "distill", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--student", "layers=1,hidden_size=16", "--epochs", "4", "--run", tmp_path / "run",
        "--set", "device.threads=1", "--set", "distill.learning_rate=1e-3",
        "--limit", "size_mb=0.5", "--limit", "memory_mb=5000",
    )  # fmt: skip
    assert code == 0, err
    assert f"The student lies in {tmp_path / 'run' / 'students' / '1'}" in err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["architecture"] == {
        "family": "bert",
        "layers": 1,
        "hidden_size": 16,
        "heads": 1,  # of the teacher's size, 16
        "ffn_size": 64,  # of the teacher's ratio, 4
        "activation": "gelu",
    }
    assert metrics["latency_how"] == "measured"
    assert metrics["latency_low_ms"] <= metrics["latency_ms"] <= metrics["latency_high_ms"]
    assert metrics["latency_runs"] >= 20
    assert metrics["workload"]["threads"] == 1
    assert metrics["initialisation"] == {"kind": "slices", "layers": [1]}
    assert metrics["trial"] is None
    assert metrics["within_limit"] is True
    assert metrics["limits"] == {"size_mb": 0.5, "memory_mb": 5000.0}
    assert metrics["size_mb"] <= 0.5 < metrics["memory_mb"] <= 5000
    assert f"{metrics['quality']:.4f}" in out
    told = " ".join(out.split())
    assert f"memory ≤ 5000 MB │ {metrics['memory_mb']:.1f} MB" in told
    assert told.count("met by ") == 2

    # Training and its scores may run in bfloat16, `evaluate` is always float32: on 12 examples
    # that may turn one of them.
    code, out, err = run_cli("evaluate", tmp_path / "run" / "students" / "1", "--task", weather_csv)
    assert code == 0, err
    scored = float(re.search(r"accuracy ([\d.]+)", out).group(1))
    assert abs(scored - metrics["quality"]) <= 1 / 12 + 1e-4
    assert "12 dev examples of weather.csv" in out


def test_a_checkpoint_folder_with_the_teachers_vocabulary(
    distil, weather_tokenizer, weather_csv, tmp_path
):
    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    folder = tmp_path / "student"
    BertForSequenceClassification(config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    code, _, err = distil(folder, "--epochs", "1", "--set", "limit.speedup=2")
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["initialisation"] == {"kind": "checkpoint", "layers": [], "source": str(folder)}
    assert metrics["speedup"] == pytest.approx(2.0 / 0.4875)  # both from the table
    assert metrics["within_limit"] is True
    assert metrics["max_length"] == 128
    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/students/1")
    assert student.config.id2label == {0: "bad", 1: "good"}

    # The same in float32 throughout, so the very same figure.
    again = evaluate(tmp_path / "run/students/1", load_task(TaskSettings(name=str(weather_csv))))
    assert again.scores["accuracy"] == metrics["quality"]
    assert (again.low, again.high) == (metrics["quality_low"], metrics["quality_high"])


def test_the_same_command_again_returns_the_finished_student(distil, tmp_path):
    assert distil("layers=1", "--epochs", "0.5")[0] == 0
    weights = tmp_path / "run" / "students" / "1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    code, out, _ = distil("layers=1", "--epochs", "0.5")
    assert code == 0
    assert "1 × 32" in out
    assert weights.stat().st_mtime_ns == before


def test_another_vocabulary_is_refused(distil, weather_teacher, tmp_path):
    folder = tmp_path / "student"
    weather_teacher.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "other"]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    code, _, err = distil(folder)
    assert code == 1
    assert f"student '{folder}' has another vocabulary (6 entries)" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("student", "message"),
    [
        ("layers=0", "layers must be a whole number of at least 1, got 0"),
        ("depth=2", "names layers, hidden_size"),
        ("layers=2,hidden_size=30,heads=4", "hidden_size must be a multiple of heads"),
        ("layers=7", "has no row 'bert-7x32-a2-f128-gelu'"),
        ("/no/such/folder", "no tokeniser could be loaded from '/no/such/folder'"),
    ],
)
def test_students_that_cannot_be(distil, student, message):
    code, _, err = distil(student)
    assert code == 1
    assert message in err


def test_a_regression_from_end_to_end(run_cli, weather_rows, weather_teacher_folder, tmp_path):
    table = tmp_path / "scores.csv"
    lines = [f"{text},{number / 119:.3f}" for number, (text, _) in enumerate(weather_rows)]
    table.write_text("\n".join(["text,label", *lines]))
    code, out, err = run_cli(
        "distill", "--teacher", weather_teacher_folder, "--task", table, "--student", "layers=1",
        "--run", tmp_path / "run", "--epochs", "0.5", "--set", "teacher.learning_rates=[1e-4]",
        "--set", "teacher.epochs=0.5", "--set", "device.threads=1",
        "--set", "distill.label_weight=0.5", "--set", "distill.hidden_weight=0.1",
    )  # fmt: skip
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["metric"] == "pearson"
    assert metrics["scores"].keys() == {"pearson", "spearman"}
    assert "pearson" in out
