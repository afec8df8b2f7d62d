"""One search with a teacher of each family beside BERT, from a bare encoder to a loaded student."""

import json

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    RobertaTokenizer,
    pipeline,
)

import stillhouse
from stillhouse.search.trial import TrialState

CLASSES = {
    "roberta": "RobertaForSequenceClassification",
    "distilbert": "DistilBertForSequenceClassification",
    "factored electra": "ElectraForSequenceClassification",
}


@pytest.fixture(scope="module")
def byte_tokenizer(weather_rows, tmp_path_factory):
    """RoBERTa's kind: bytes, a padding that is not 0, no token types."""
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        [text for text, _ in weather_rows], vocab_size=400, special_tokens=special,
        show_progress=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tokenizer")
    trained.save_model(str(folder))
    merges = [tuple(line.split()) for line in (folder / "merges.txt").read_text().splitlines()[1:]]
    vocabulary = json.loads((folder / "vocab.json").read_text())
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=512)
    assert tokenizer.pad_token_id == 1
    assert "token_type_ids" not in tokenizer("a day")
    return tokenizer


@pytest.fixture(scope="module", params=CLASSES)
def found(
    request, tiny_config, byte_tokenizer, weather_tokenizer, weather_csv, table_settings,
    tmp_path_factory,
):  # fmt: skip
    """A search whose teacher is an encoder of 2 layers of 32 that was never trained."""
    family = request.param
    tokenizer = byte_tokenizer if family == "roberta" else weather_tokenizer
    config = tiny_config(
        family, labels=2, vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2,
        intermediate_size=128, **({"embedding_size": 16} if "electra" in family else {}),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = AutoModel.from_config(config)
    folder = tmp_path_factory.mktemp("encoder")
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return family, stillhouse.search(
        teacher=str(folder),
        task=str(weather_csv),
        limit={"latency_ms": 1.0},
        candidates=3,
        settings={
            **table_settings,
            "teacher": {"learning_rates": [2e-3], "epochs": 20.0, "batch_size": 16},
            "distill": {"precision": "float32", "learning_rate": 3e-3, "hidden_weight": 0.1},
            "final": {"students": 1, "epochs": 8.0},
        },
        run=tmp_path_factory.mktemp("runs") / "run",
    )


def test_a_search_ends_with_students_of_the_teachers_family(found):
    family, result = found
    complete = [trial for trial in result.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == 3
    assert result.students
    for folder in (result.path / "teacher", *(student.path for student in result.students)):
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == [CLASSES[family]]
        assert "auto_map" not in config


def test_students_learn_what_the_teacher_learnt(found):
    _, result = found
    for student in result.students:
        assert student.metrics["teacher_quality"] > 0.9
        assert student.metrics["quality_search"] > 0.7


def test_students_load_without_stillhouse_and_are_as_large_as_told(found):
    _, result = found
    for student in result.students:
        model = AutoModelForSequenceClassification.from_pretrained(student.path).eval()
        assert sum(p.numel() for p in model.parameters()) == student.metrics["parameters"]
        tokenizer = AutoTokenizer.from_pretrained(student.path)
        alone = tokenizer("a sunny day", return_tensors="pt")
        padded = tokenizer("a sunny day", padding="max_length", max_length=20, return_tensors="pt")
        with torch.no_grad():
            logits = model(**alone).logits
            torch.testing.assert_close(model(**padded).logits, logits, atol=1e-5, rtol=0)
        [answer] = pipeline("text-classification", model=str(student.path))("a sunny day")
        assert answer["label"] == ("bad", "good")[logits.argmax()]


def test_counts_of_the_record_are_those_of_the_models(found):
    _, result = found
    trials = {trial.number: trial for trial in result.trials}
    for student in result.students:
        trial = trials[student.metrics["trial"]]
        for name in ("parameters", "parameters_encoder", "flops"):
            assert trial.attributes[name] == student.metrics[name]
