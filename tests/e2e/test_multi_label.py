"""A search and an evaluation where an example has any number of classes."""

import json
import re

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    pipeline,
)

CLASSES = {0: "good", 1: "place", 2: "time"}
PLACES = {"road", "town", "river", "house", "garden"}
TIMES = {"day", "week", "morning", "evening"}


@pytest.fixture(scope="module")
def topics_jsonl(weather_rows, tmp_path_factory):
    """What a text tells of: good weather, a place, a time, several of these or none."""
    path = tmp_path_factory.mktemp("task") / "topics.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for text, label in weather_rows:
            words = set(text.split())
            told = {"time": words & TIMES, "place": words & PLACES, "good": label == "good"}
            topics = [topic for topic, is_told in told.items() if is_told]
            file.write(json.dumps({"text": text, "topics": topics}) + "\n")
    return path


@pytest.fixture(scope="module")
def more_jsonl(weather_rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("more") / "more.jsonl"
    rows = (json.dumps({"text": f"{text} town"}) for text, _ in weather_rows[:40])
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def encoder_folder(weather_teacher_folder, weather_tokenizer, tmp_path_factory):
    """An encoder of the teacher's shape that has learnt nothing yet, without a head."""
    folder = tmp_path_factory.mktemp("encoder")
    config = AutoConfig.from_pretrained(weather_teacher_folder, initializer_range=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


def test_a_multi_label_table_is_searched_and_scored(
    run_cli, encoder_folder, weather_table, topics_jsonl, more_jsonl, tmp_path
):
    task = ("--task", topics_jsonl, "--label", "topics")
    code, out, err = run_cli(
        "search", "--teacher", encoder_folder, *task, "--unlabelled", more_jsonl,
        "--limit", "latency_ms=1.5", "--candidates", "3", "--run", tmp_path / "run",
        "--set", "device.kind=table", "--set", f"device.table={weather_table}",
        "--set", "distill.precision=float32", "--set", "distill.label_weight=0.5",
        "--set", "distill.learning_rate=3e-3", "--set", "search.epochs=2",
        "--set", "search.proxy_examples=100", "--set", "final.students=1",
        "--set", "final.epochs=10", "--set", "teacher.epochs=40",
        "--set", "teacher.learning_rates=[2e-3]",
    )  # fmt: skip
    assert code == 0, err
    assert "f1_micro" in out

    teacher = json.loads((tmp_path / "run" / "teacher" / "metrics.json").read_text())
    assert teacher["metric"] == "f1_micro"
    assert teacher["quality"] > 0.85  # the best constant answer has about 0.73
    student = tmp_path / "run" / "students" / "1"
    metrics = json.loads((student / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["f1_micro", "f1_macro", "subset_accuracy"]
    assert metrics["quality"] == metrics["scores"]["f1_micro"] > 0.75
    assert metrics["quality_low"] <= metrics["quality"] <= metrics["quality_high"]
    assert "top_k=None" in (student / "README.md").read_text(encoding="utf-8")

    model = AutoModelForSequenceClassification.from_pretrained(student)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == CLASSES
    text = "a sunny day"
    tokens = AutoTokenizer.from_pretrained(student)(text, return_tensors="pt")
    each = torch.sigmoid(model(**tokens).logits[0]).tolist()
    [found] = pipeline("text-classification", model=str(student), top_k=None)([text])
    assert {one["label"]: one["score"] for one in found} == pytest.approx(
        dict(zip(CLASSES.values(), each, strict=True)), abs=1e-5
    )

    code, out, err = run_cli("evaluate", student, *task)
    assert code == 0, err
    found = dict(re.findall(r"^(\w+) (\d\.\d{4})", out, flags=re.MULTILINE))
    assert found == {name: f"{value:.4f}" for name, value in metrics["scores"].items()}
    assert "12 dev examples of topics.jsonl" in out

    code, _, err = run_cli("evaluate", encoder_folder, *task)
    assert code == 1
    assert "no trained head" in err
