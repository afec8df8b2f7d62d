import pytest
import yaml
from transformers import BertConfig, BertForQuestionAnswering

from stillhouse.export.card import model_card
from stillhouse.export.onnx_card import onnx_card


@pytest.fixture
def card(metrics):
    return model_card(metrics, teacher="some/teacher", task="glue/sst2")


@pytest.mark.parametrize(
    "text",
    [
        "# 4 × 312, 12 heads, FFN 1200, gelu",
        "`some/teacher`",
        "`glue/sst2`",
        "| accuracy (dev, n = 872) | 0.9123 | 0.9300 |",
        "0.8800 to 0.9346",
        "| latency (median) | 1.235 ms | 9.877 ms |",
        "| parameters | 14,350,248 | 109,483,778 |",
        "Some Chip, PyTorch 2: batch 1, length 64, float32, 2 threads; 8.00 times",
        "First weights: slices.",
    ],
)
def test_the_card_tells_every_figure(card, text):
    assert text in card


@pytest.mark.parametrize(
    ("indices", "told"),
    [("importance", "the most important neurons"), ("random", "neurons drawn by chance")],
)
def test_the_card_tells_how_neurons_were_chosen(metrics, indices, told):
    start = {"kind": "extract", "layers": [0, 5], "indices": indices}
    card = model_card({**metrics, "initialisation": start}, teacher="t", task="t")
    assert f"First weights: {told} of the teacher." in card


def test_the_card_says_what_was_scored_in_8_bits(card, metrics):
    assert "student in" not in card
    card = model_card({**metrics, "served_precision": "int8"}, teacher="t", task="t")
    assert "| accuracy (dev, n = 872, student in int8) | 0.9123 | 0.9300 |" in card


def test_the_card_of_a_multi_label_task_asks_for_every_class(card, metrics):
    assert 'model="path/to/this/folder")' in card
    several = model_card(metrics, teacher="t", task="t", kind="multi_label")
    assert 'model="path/to/this/folder", top_k=None)' in several


def test_the_card_of_a_student_with_code_asks_for_trust(metrics):
    card = model_card(metrics, teacher="t", task="t", kind="multi_label", has_code=True)
    assert 'model="path/to/this/folder", top_k=None, trust_remote_code=True)' in card
    card = model_card(metrics, teacher="t", task="t", has_code=True)
    assert 'model="path/to/this/folder", trust_remote_code=True)' in card


def test_the_card_begins_with_readable_metadata(card):
    _, head, _ = card.split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "transformers"


def test_braces_in_names_do_no_harm(metrics):
    assert "`{odd}`" in model_card(metrics, teacher="{odd}", task="t")


def test_a_missing_measure_is_an_error(metrics):
    del metrics["quality_low"]
    with pytest.raises(KeyError, match="quality_low"):
        model_card(metrics, teacher="t", task="t")


def test_the_card_of_a_tagger_tells_every_label(metrics):
    metrics["scores"] = {"accuracy": 0.912345, "tag_accuracy": 0.98765}
    metrics["labels"] = [
        {"label": "a|`b", "precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 7}
    ]
    card = model_card(metrics, teacher="t", task="t", kind="tags", has_code=True)
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "token-classification"
    assert "| accuracy (dev, n = 872 sentences) | 0.9123 | 0.9300 |" in card
    assert "| tag_accuracy | 0.9877 | |" in card
    assert card.count("0.9123") == 1
    assert r"| a\|\`b | 0.5000 | 0.2500 | 0.3333 | 7 |" in card
    assert 'pipeline("token-classification", model="path/to/this/folder", trust_remote' in card
    assert "no_answer_threshold" not in card


def test_the_card_of_a_reader_tells_when_it_gives_no_answer(metrics):
    metrics["scores"] = {"accuracy": 0.912345, "exact_match": 0.75}
    card = model_card(metrics, teacher="t", task="t", kind="spans")
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "question-answering"
    assert "(dev, n = 872 questions)" in card
    assert "| exact_match | 0.7500 | |" in card
    assert "no_answer_threshold" not in card
    metrics["no_answer_threshold"] = -1.5
    card = model_card(metrics, teacher="t", task="t", kind="spans")
    assert "more than -1.5000, which is\n`no_answer_threshold`" in card


def test_the_code_in_the_card_of_a_reader_runs(metrics, tokenizer, tmp_path):
    """It is transformers' own, which has no pipeline for questions."""
    config = BertConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=24,
    )  # fmt: skip
    BertForQuestionAnswering(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    card = model_card(metrics, teacher="t", task="t", kind="spans")
    code = card.split("```python\n")[1].split("```")[0]
    found = {}
    exec(code.replace("path/to/this/folder", str(tmp_path)), found)
    assert found["first"].ndim == found["last"].ndim == 0


@pytest.mark.parametrize(
    ("head", "unit", "told"),
    [
        ("tagger", "sentences", "The tag of a word is that of its first token."),
        ("reader", "questions", "Cut longer ones into windows"),
        ("classifier", "texts", "The licences of the teacher"),
    ],
)
def test_the_card_of_a_file_speaks_of_what_its_model_reads(head, unit, told):
    export = {
        "head": head, "precision": "int8-static", "opset": 20, "inputs": ["input_ids"],
        "outputs": ["logits"], "max_length": 24, "size_mb": {"onnx float32": 2.0},
        "differences": {"onnx float32": {"logits": 1e-6}}, "scores": {},
        "int8_agreement_fraction": 0.987, "checked_on": {"name": "some", "texts": 7},
        "calibrated_on": {"name": "others", "texts": 16}, "example": "python infer.py 'b'",
        "no_answer_threshold": 0.5 if head == "reader" else None,
        "source": {"name": "a", "weights_mb": 2.0, "weights_sha256": "0", "teacher": None,
                   "licence": None},
    }  # fmt: skip
    card = onnx_card(export, metrics={})
    assert f"Checked on 7 {unit} of some. Of the answers in int8-static, 98.70%" in card
    assert f"Scales fixed on 16 {unit} of others." in card
    assert "python infer.py 'b'" in card
    assert told in card
    assert ("no_answer_threshold" in card) is (head == "reader")
    assert "trained in" not in card
    trained = onnx_card({**export, "trained_weight_bits": 2}, metrics={})
    assert "98.70% are those in PyTorch." in trained
    assert "trained in 2 bits" in trained
    assert "whole numbers of 8 bits (2 bits of which say all)" in trained
