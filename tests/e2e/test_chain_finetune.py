"""A chain of operations, fine-tuned and evaluated like any checkpoint, and refused as a teacher."""

import json
import re

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, pipeline

from stillhouse.model.chains import chain_config, chain_of
from stillhouse.model.own_families import add_code
from stillhouse.space.chain import ChainArchitecture, ChainBlock, chain_from_dict

CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=32, operations=("S3", "M", "F")),
        ChainBlock(hidden_size=24, operations=("S5", "S7")),
    ),
    head_size=8,
)


@pytest.fixture(scope="module")
def chain_folder(weather_tokenizer, tiny_config, tmp_path_factory):
    """A chain with the masked-word head that it has after pre-training, and no other."""
    config = chain_config(CHAIN, tiny_config("bert", vocab_size=len(weather_tokenizer)))
    config.initializer_range = 0.05
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForMaskedLM.from_config(config)
    folder = tmp_path_factory.mktemp("chain")
    model.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    add_code(folder)
    return folder


def test_a_chain_learns_a_task_and_is_scored(
    run_cli, chain_folder, weather_csv, weather_rows, tmp_path
):
    code, out, err = run_cli(
        "finetune", chain_folder, "--task", weather_csv, "--run", tmp_path / "run",
        "--learning-rate", "3e-3", "--epochs", "8", "--batch-size", "8",
        "--set", "distill.precision=float32", "--set", "finetune.dropout=0",
    )  # fmt: skip
    assert code == 0, err
    assert "it gets a fresh one" in err
    folder = tmp_path / "run" / "model"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["quality"] > 0.8
    assert f"accuracy {metrics['quality']:.4f}" in out
    assert chain_from_dict(metrics["architecture"]) == CHAIN
    assert metrics["architecture_label"] == CHAIN.label
    assert f"# {CHAIN.label}" in (folder / "README.md").read_text()
    assert (folder / "modeling_chain_bert.py").exists()

    # The model is a chain still, with a head for the task, and as large as said.
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert chain_of(model.config) == CHAIN
    assert metrics["parameters"] == sum(weight.numel() for weight in model.parameters())
    encoder = sum(weight.numel() for weight in model.bert.encoder.parameters())
    assert metrics["parameters_encoder"] == encoder
    texts, labels = zip(*weather_rows, strict=True)
    answers = pipeline("text-classification", model=str(folder))(list(texts))
    right = [answer["label"] == label for answer, label in zip(answers, labels, strict=True)]
    assert sum(right) > 0.8 * len(right)

    # `evaluate` gives the same figure.
    code, out, err = run_cli("evaluate", folder, "--task", weather_csv)
    assert code == 0, err
    assert re.search(r"accuracy ([\d.]+)", out).group(1) == f"{metrics['quality']:.4f}"


def test_a_damaged_configuration_is_named(run_cli, chain_folder, weather_csv, tmp_path):
    config = json.loads((chain_folder / "config.json").read_text())
    config["blocks"][0]["operations"] = ["S3", "S9"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, _, err = run_cli("finetune", tmp_path, "--task", weather_csv, "--run", tmp_path / "run")
    assert code == 1
    assert "Traceback" not in err
    assert "a block is made of one or more of M, F, S3, S5, S7, got ['S3', 'S9']" in err


def test_a_chain_is_no_teacher(run_cli, chain_folder, weather_csv, weather_text, tmp_path):
    task = ("--task", weather_csv, "--run", tmp_path / "run")
    for command in (
        ("search", "--teacher", chain_folder, *task),
        ("distill", "--teacher", chain_folder, "--student", "layers=1", *task),
        ("search", "autodistil", "--teacher", chain_folder, "--corpus", weather_text,
         "--run", tmp_path / "family", "--limit", "flops_fraction=0.5"),
    ):  # fmt: skip
        code, _, err = run_cli(*command)
        assert code == 1, command
        assert "Traceback" not in err
        assert "'chain_bert' is a chain of operations" in err
        assert "but not be a teacher" in err


def test_a_chain_learns_from_a_teacher_that_knows_the_task(
    run_cli, chain_folder, weather_teacher_folder, weather_csv, tmp_path
):
    given = (
        "distill", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--student", chain_folder, "--epochs", "12",
        "--set", "device.threads=1", "--set", "distill.precision=float32",
        "--set", "distill.learning_rate=3e-3", "--set", "distill.batch_size=8",
        "--set", "distill.label_weight=0.5", "--set", "distill.logit_weight=0.5",
    )  # fmt: skip
    code, _, err = run_cli(*given, "--run", tmp_path / "other", "--set", "distill.hidden_weight=1")
    assert code == 1
    assert "is a chain, whose operations have no counterpart among a teacher's layers" in err

    code, out, err = run_cli(*given, "--run", tmp_path / "run")
    assert code == 0, err
    folder = tmp_path / "run" / "students" / "1"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["quality"] > 0.8
    assert f"{metrics['quality']:.4f}" in out
    assert chain_from_dict(metrics["architecture"]) == CHAIN
    assert metrics["initialisation"]["source"] == str(chain_folder)
    assert metrics["latency_how"] == "measured"
    assert metrics["flops_fraction"] > 0
    assert CHAIN.label in (tmp_path / "run" / "report.html").read_text()
    assert "trust_remote_code=True" in (folder / "README.md").read_text()
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.blocks
