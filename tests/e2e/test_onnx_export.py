"""Checkpoints of every family and head as ONNX folders that run without torch."""

import json
import math

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    MobileBertConfig,
)

import stillhouse
from stillhouse.errors import ExportError, SettingsError, TeacherError
from stillhouse.model.chains import chain_config
from stillhouse.model.own_families import add_code, needs_code
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

FREE = BertArchitecture(layers=1, hidden_size=24, heads=2, head_size=16, ffn_size=48)
CHAIN = ChainArchitecture(
    embedding_size=16,
    blocks=(
        ChainBlock(hidden_size=24, operations=("S3", "M", "F")),
        ChainBlock(hidden_size=16, operations=("M", "S7")),
    ),
    head_size=8,
)
CASES = {
    "roberta": AutoModelForMaskedLM,
    "distilbert": AutoModelForSequenceClassification,
    "factored electra": AutoModelForSequenceClassification,
    "mobilebert": AutoModelForMaskedLM,
    "free heads": AutoModel,
    "chain": AutoModelForSequenceClassification,
}
TEXTS = [
    "sunny",
    "a rainy day",
    "the town that look long",
    "this evening road river house garden",
    "a blue bird",
]


def config_of(case, tiny_config, words):
    bert = tiny_config("bert", vocab_size=words, labels=2)
    if case == "free heads":
        return student_config(FREE, bert)
    if case == "chain":
        return chain_config(CHAIN, bert)
    if case == "mobilebert":
        return MobileBertConfig(
            vocab_size=words, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, intra_bottleneck_size=16, embedding_size=8,
            max_position_embeddings=24,
        )  # fmt: skip
    labels = {"factored electra": 1, "distilbert": 3}.get(case, 2)
    padding = {"pad_token_id": 0} if case == "roberta" else {}
    config = tiny_config(case, vocab_size=words, labels=labels, **padding)
    if case == "distilbert":
        config.problem_type = "multi_label_classification"
    return config


@pytest.fixture(scope="module", params=CASES)
def exported(request, tiny_config, weather_tokenizer, tmp_path_factory):
    """A model with random weights, and its folder with a file in 8 bits."""
    case = request.param
    config = config_of(case, tiny_config, len(weather_tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CASES[case].from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1 and weight.numel():
                    weight.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    if needs_code(config):
        add_code(folder)
    result = stillhouse.export_onnx(folder, precision="int8", check=TEXTS)
    assert result.path == folder / "onnx-int8"
    return case, model, result


@pytest.mark.slow
def test_a_checkpoint_becomes_a_folder_that_runs_alone(exported, weather_tokenizer):
    case, model, result = exported
    told = result.told
    assert told["checked_on"]["texts"] == len(TEXTS)
    assert max(told["differences_fraction"]["onnx float32"].values()) <= 1e-4
    outputs = ["last_hidden_state", "pooler_output"] if case == "free heads" else ["logits"]
    assert told["outputs"] == outputs
    one_type = case in ("roberta", "distilbert")
    assert ("token_type_ids" in told["inputs"]) is not one_type

    session = onnxruntime.InferenceSession(result.path / "model.onnx")
    for texts in (TEXTS, TEXTS[3:4], TEXTS[:2]):
        encoded = weather_tokenizer(texts, padding=True, return_tensors="pt")
        fed = {name: encoded[name] for name in told["inputs"]}
        with torch.no_grad():
            expected = model(**fed)[outputs[0]].numpy()
        [found] = session.run(outputs[:1], {name: value.numpy() for name, value in fed.items()})
        assert found.shape == expected.shape
        gap = np.abs(found - expected).max()
        assert gap <= 0.2 * np.abs(expected).max()
        assert gap > 1e-5  # it is the file in 8 bits


@pytest.mark.slow
def test_the_example_answers_as_the_file_does(exported, weather_tokenizer, infer):
    case, _, result = exported
    texts = ["a rainy day", "the [MASK] road", "sunny"]
    lines = infer(result.path, *texts)
    encoded = weather_tokenizer(texts, padding=True, return_tensors="np")
    fed = {name: encoded[name] for name in result.told["inputs"]}
    session = onnxruntime.InferenceSession(result.path / "model.onnx")
    output = session.run(result.told["outputs"][:1], fed)[0]
    scores = [float(score) for _, score, _ in lines]
    match case:
        case "roberta" | "mobilebert":
            row = torch.tensor(output[1][2]).softmax(0)  # after [CLS] and "the"
            best = row.topk(5)
            words = weather_tokenizer.convert_ids_to_tokens(best.indices.tolist())
            assert [word for word, _, _ in lines] == words
            assert scores == pytest.approx(best.values.tolist(), abs=1e-4)
        case "distilbert":
            assert [label for label, _, _ in lines] == [f"label {i}" for i in range(3)] * 3
            assert scores == pytest.approx(
                [1 / (1 + math.exp(-x)) for x in output.ravel()], abs=1e-4
            )
        case "factored electra":
            assert scores == pytest.approx(output[:, 0].tolist(), abs=1e-4)
        case "free heads":
            assert scores[0] == pytest.approx(1, abs=1e-4)
            assert len(scores) == 3
        case _:
            best = torch.tensor(output).softmax(1).max(1)
            assert scores == pytest.approx(best.values.tolist(), abs=1e-4)
            assert [label for label, _, _ in lines] == [f"label {i}" for i in best.indices.tolist()]


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_the_command_scores_the_files_on_a_task(
    run_cli, weather_teacher_folder, weather_csv, weather_rows, tmp_path, precision, infer
):
    out = tmp_path / "served"
    code, told, err = run_cli(
        "export", weather_teacher_folder, "--to", "onnx", "--precision", precision,
        "--check", weather_csv, "--out", out,
    )  # fmt: skip
    assert code == 0, err
    assert "accuracy" in told
    calibrated = "scales fixed on 108 texts of the training set of weather.csv"
    assert (calibrated in told) is (precision == "int8-static")
    export = json.loads((out / "export.json").read_text())
    scores, file = export["scores"], f"onnx {precision}"
    assert set(scores) == {"pytorch float32", "onnx float32", file}
    evaluated = stillhouse.evaluate(weather_teacher_folder, str(weather_csv))
    assert scores["pytorch float32"] == scores["onnx float32"] == pytest.approx(evaluated.scores)
    assert scores[file]["accuracy"] > 0.9
    assert 0.9 < export["int8_agreement_fraction"] <= 1
    assert export["size_mb"][file] < export["size_mb"]["onnx float32"]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| {scores[file]['accuracy']:.4f} |" in card
    texts, labels = zip(*weather_rows[:6], strict=True)  # which the teacher names right
    assert [label for label, _, _ in infer(out, *texts)] == list(labels)


def test_what_cannot_be_exported_is_refused(
    weather_teacher_folder, weather_tokenizer, tmp_path, run_cli
):
    code, _, err = run_cli("export", weather_teacher_folder, "--to", "tflite")
    assert code == 1
    assert "--to is onnx" in err
    with pytest.raises(SettingsError, match="precision is one of float32, int8, int8-static,"):
        stillhouse.export_onnx(weather_teacher_folder, precision="int4")
    with pytest.raises(ExportError, match="would be replaced"):
        stillhouse.export_onnx(weather_teacher_folder, check=["a"], out=weather_teacher_folder)
    config = json.loads((weather_teacher_folder / "config.json").read_text())
    config["architectures"] = ["BertForMultipleChoice"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TeacherError, match="is a BertForMultipleChoice; supported are"):
        stillhouse.export_onnx(tmp_path)
