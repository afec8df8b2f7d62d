import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from stillhouse.errors import ExportError
from stillhouse.export.card import model_card
from stillhouse.export.checkpoint import read_metrics, save_checkpoint

TEXTS = ["a b c", "d", "a d d b a"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "students" / "1"


def save(folder, model, tokenizer, metrics, card="# card\n"):
    save_checkpoint(folder, model, tokenizer, metrics=metrics, card=card)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits(model, tokenizer):
    with torch.no_grad():
        return model.eval()(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits


def test_transformers_alone_loads_the_same_classifier(make_bert, tokenizer, metrics, folder):
    model = make_bert()
    save(folder, model, tokenizer, metrics)
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    words = AutoTokenizer.from_pretrained(folder)
    assert words(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert torch.equal(logits(again, words), logits(model, tokenizer))
    assert again.config.id2label == {0: "no", 1: "perhaps", 2: "yes"}


def test_the_line_of_the_card_works(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(), tokenizer, metrics)
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    [answer] = classify("a b")
    assert answer["label"] in {"no", "perhaps", "yes"}


def test_measures_and_card_lie_beside_the_weights(make_bert, tokenizer, metrics, folder):
    card = model_card(metrics, teacher="some/teacher", task="embedded")
    save(folder, make_bert(), tokenizer, metrics, card)
    assert (folder / "README.md").read_text(encoding="utf-8") == card
    assert json.loads((folder / "metrics.json").read_text(encoding="utf-8")) == metrics
    assert read_metrics(folder) == metrics
    names = files(folder)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_a_newer_checkpoint_replaces_the_older_whole(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(0), tokenizer, metrics)
    (folder / "left-over.txt").write_text("old")
    newer = make_bert(1)
    save(folder, newer, tokenizer, {"quality": 1.0})
    again = AutoModelForSequenceClassification.from_pretrained(folder)
    assert torch.equal(logits(again, tokenizer), logits(newer, tokenizer))
    assert read_metrics(folder) == {"quality": 1.0}
    assert "left-over.txt" not in files(folder)


def test_a_failure_leaves_the_old_checkpoint(make_bert, tokenizer, metrics, folder):
    save(folder, make_bert(0), tokenizer, metrics)
    before = files(folder)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save(folder, make_bert(1), tokenizer, {"quality": object()})
    assert files(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["1"]


def test_a_checkpoint_of_other_outputs_is_refused(make_bert, tokenizer, metrics, folder):
    model, other = make_bert(0), make_bert(1)
    model.save_pretrained = other.save_pretrained
    with pytest.raises(ExportError, match="gives logits that differ by"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []


def test_weights_that_are_not_numbers_are_refused(make_bert, tokenizer, metrics, folder):
    model = make_bert()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ExportError, match="differ by nan"):
        save(folder, model, tokenizer, metrics)
    assert not folder.exists()
