"""A search, an evaluation and an export where every word has a tag."""

import json
import re

import pytest
from transformers import AutoModelForTokenClassification, pipeline

TIMES = {"day", "week", "morning", "evening"}


def tag_of(word, weather_words):
    """Names kinds of weather, and times."""
    kinds = {name: weather_words[name] for name in ("bad", "good")} | {"time": TIMES}
    return next((f"B-{name}" for name, known in kinds.items() if word in known), "O")


@pytest.fixture(scope="module")
def weather_conll(weather_rows, weather_words, tmp_path_factory):
    """The texts in columns: word, nothing, tag."""
    path = tmp_path_factory.mktemp("task") / "weather.conll"
    sentences = []
    for text, _ in weather_rows:
        words = text.split()
        sentences.append("\n".join(f"{word} _ {tag_of(word, weather_words)}" for word in words))
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


def test_a_tagging_task_is_searched_evaluated_and_exported(
    run_cli, weather_teacher_folder, weather_table, weather_conll, tmp_path
):
    code, out, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", weather_conll,
        "--limit", "latency_ms=1.5", "--candidates", "2", "--run", tmp_path / "run",
        "--set", "device.kind=table", "--set", f"device.table={weather_table}",
        "--set", "distill.precision=float32", "--set", "distill.label_weight=0.5",
        "--set", "distill.learning_rate=5e-3", "--set", "search.epochs=2",
        "--set", "search.proxy_examples=80", "--set", "final.students=1",
        "--set", "distill.batch_size=8",
        "--set", "final.epochs=10", "--set", "teacher.epochs=10", "--set", "teacher.batch_size=8",
        "--set", "teacher.learning_rates=[2e-3]",
    )  # fmt: skip
    assert code == 0, err
    assert "entity_f1" in out
    assert "AutoModelForTokenClassification.from_pretrained" in err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for shown in ("AutoModelForTokenClassification", "Loyalty to the teacher", "Labels on dev"):
        assert shown in page
    teacher = json.loads((tmp_path / "run" / "teacher" / "metrics.json").read_text())
    assert teacher["quality"] > 0.9
    student = tmp_path / "run" / "students" / "1"
    metrics = json.loads((student / "metrics.json").read_text())
    assert metrics["metric"] == "entity_f1"
    assert metrics["quality"] > 0.8
    assert {row["label"] for row in metrics["labels"]} >= {"bad", "good", "time"}
    assert 0.8 < metrics["loyalty"]["label"] <= 1

    model = AutoModelForTokenClassification.from_pretrained(student)
    assert set(model.config.id2label.values()) == {"O", "B-bad", "B-good", "B-time"}
    found = pipeline("token-classification", model=str(student))("sunny day")
    assert found[0]["entity"] == "B-good"
    assert "token-classification" in (student / "README.md").read_text(encoding="utf-8")

    code, out, err = run_cli(
        "evaluate", student, "--task", weather_conll, "--teacher", tmp_path / "run" / "teacher"
    )
    assert code == 0, err
    told = dict(re.findall(r"^(\w+) (\d\.\d{4})", out, flags=re.MULTILINE))
    assert told == {name: f"{value:.4f}" for name, value in metrics["scores"].items()}
    assert "12 dev examples of weather.conll" in out
    assert "probability loyalty" in out
    assert re.search(r"good +\W +\d\.\d{4}", out)

    code, out, err = run_cli(
        "export", student, "--precision", "int8", "--check", weather_conll, "--out",
        tmp_path / "onnx",
    )  # fmt: skip
    assert code == 0, err
    assert "entity_f1" in out


def test_a_student_is_fine_tuned_on_tags(run_cli, weather_teacher_folder, weather_conll, tmp_path):
    code, out, err = run_cli(
        "finetune", weather_teacher_folder, "--task", weather_conll, "--epochs", "10",
        "--batch-size", "8", "--learning-rate", "2e-3", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    quality = float(re.search(r"entity_f1 (\d\.\d+)", out)[1])
    assert quality > 0.9


def test_tags_of_another_scheme_in_dev_are_refused(
    run_cli, weather_teacher_folder, weather_conll, tmp_path
):
    dev = tmp_path / "dev.conll"
    dev.write_text("sunny _ S-good\nday _ O\n", encoding="utf-8")
    code, _, err = run_cli(
        "finetune", weather_teacher_folder, "--task", weather_conll, "--dev", dev,
        "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "S-good" in err
