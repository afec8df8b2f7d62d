"""Models of every kind of task in few bits: sets of classes, scores, tags and questions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from stillhouse.model.lsq import load_quantised


def several_labels(rows, words, folder):
    path = folder / "labels.jsonl"
    lines = [
        json.dumps({"text": text, "label": [label, *(["town"] if "town" in text else [])]})
        for text, label in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def scores(rows, words, folder):
    path = folder / "scores.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows((text, f"{len(text) / 10:.2f}") for text, _ in rows)
    return path


def tags(rows, words, folder):
    def tag(word):
        kinds = [kind for kind, names in words.items() if word in names and kind != "nothing"]
        return f"B-{kinds[0]}" if kinds else "O"

    path = folder / "tags.conll"
    sentences = ["\n".join(f"{word} _ {tag(word)}" for word in text.split()) for text, _ in rows]
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


def questions(rows, words, folder):
    paragraphs = []
    for number, (text, _) in enumerate(rows):
        weather = next(w for w in text.split() if w in {*words["good"], *words["bad"]})
        answers = [] if number % 3 == 0 else [{"text": weather, "answer_start": text.find(weather)}]
        question = {"id": str(number), "question": "look", "answers": answers}
        paragraphs.append({"context": text, "qas": [{**question, "is_impossible": not answers}]})
    path = folder / "squad.json"
    told = {"version": "2", "data": [{"title": "weather", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(told), encoding="utf-8")
    return path


KINDS = {
    "multi_label": (several_labels, BertForSequenceClassification, ["bad", "good", "town"]),
    "scores": (scores, BertForSequenceClassification, ["score"]),
    "tags": (tags, BertForTokenClassification, ["B-bad", "B-good", "O"]),
    "spans": (questions, BertForQuestionAnswering, ["start", "end"]),
}


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture
def checkpoint(kind, weather_tokenizer, tmp_path) -> Path:
    """A model with a head for the task, as if somebody had tuned it."""
    _, head, names = KINDS[kind]
    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=48,
        initializer_range=0.3,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = head(config)
    model.save_pretrained(tmp_path / "model")
    weather_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_of_the_kind_is_quantised_and_scored(
    kind, checkpoint, run_cli, weather_rows, weather_words, tmp_path
):
    task = KINDS[kind][0](weather_rows, weather_words, tmp_path)
    lengths = ["--set", "task.max_length=32", "--set", "task.stride=8"] if kind == "spans" else []
    code, out, err = run_cli(
        "quantise", checkpoint, "--task", task, "--bits", "3", "--run", tmp_path / "run", *lengths,
        "--epochs", "4", "--set", "distill.precision=float32", "--set", "quantise.label_weight=0.1",
        "--set", "quantise.batch_size=32",
    )  # fmt: skip
    assert code == 0, err
    folder = tmp_path / "run" / "model"
    told = json.loads((folder / "metrics.json").read_text())
    assert told["task_kind"] == kind
    for name in ("quality", "float_quality", "post_training_quality"):
        assert np.isfinite(told[name])
        assert f"{told[name]:.4f}" in out
    if kind == "scores":
        assert told["loyalty"]["label"] is None
        assert "same answer" not in out
    else:
        assert 0 <= told["loyalty"]["label"] <= 1
        assert "same answer as float32" in out
    model = load_quantised(folder)
    assert hasattr(model.config, "no_answer_threshold") == (kind == "spans")
    code, out, err = run_cli("evaluate", folder, "--task", task, *lengths)
    assert code == 0, err
    assert f"{told['metric']} {told['quality']:.4f}" in out
