"""A classifier trained in few bits as a folder with a file of 8 bits, from the command line."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

import stillhouse
from stillhouse.model.checkpoint_heads import load_headed
from stillhouse.model.lsq import is_quantised, quantise_model, settle
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips


@pytest.fixture(scope="module")
def checkpoint(weather_teacher_folder, weather_tokenizer, weather_rows, tmp_path_factory):
    """The teacher with ranges of its texts, and weights of 6 bits."""
    model = load_headed(str(weather_teacher_folder)).model
    texts = [text for text, _ in weather_rows[:40]]
    quantise_model(model, weight_bits=6)
    set_weight_clips(model, "quantile")
    set_activation_clips(
        model, weather_tokenizer(texts, padding=True, return_tensors="pt"), "quantile"
    )
    settle(model)
    folder = tmp_path_factory.mktemp("run") / "students" / "1" / "quantised"
    model.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


def test_the_command_scores_the_file_on_a_task(
    run_cli, checkpoint, weather_csv, weather_rows, weather_tokenizer, infer
):
    code, told, err = run_cli("export", checkpoint, "--check", weather_csv)
    assert code == 0, err
    assert "answers in int8 that are those in PyTorch: 100.00%" in told
    folder = checkpoint / "onnx-int8"
    export = json.loads((folder / "export.json").read_text())
    assert set(export["scores"]) == {"pytorch float32", "onnx int8"}
    evaluated = stillhouse.evaluate(checkpoint, str(weather_csv))
    assert export["scores"]["pytorch float32"] == pytest.approx(evaluated.scores)
    assert evaluated.scores["accuracy"] > 0.9
    assert export["trained_weight_bits"] == 6
    assert export["calibrated_on"] is None
    assert "trained in 6 bits" in (folder / "README.md").read_text(encoding="utf-8")
    texts = [text for text, _ in weather_rows[:8]]
    labels = [label for label, _, _ in infer(folder, *texts)]

    model = load_headed(str(checkpoint)).model
    assert is_quantised(model)
    encoded = weather_tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**encoded).logits.numpy()
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    [found] = session.run(None, {name: encoded[name].numpy() for name in export["inputs"]})
    np.testing.assert_allclose(found, expected, atol=0.05 * np.abs(expected).max())
    assert labels == [("bad", "good")[row.argmax()] for row in expected]


def test_what_it_cannot_be_is_told(run_cli, checkpoint):
    code, _, err = run_cli("export", checkpoint, "--precision", "float32")
    assert code == 1
    assert "trained in few bits and is exported in int8" in err
    code, told, err = run_cli(
        "measure", checkpoint, "--device", "onnxruntime-cpu", "--length", 8, "--seconds", 0
    )
    assert "no ONNX file of float32: measure it in int8" in told + err


@pytest.mark.slow
@pytest.mark.parametrize("device", ["onnxruntime-cpu", "openvino-cpu"])
def test_runtimes_time_its_own_file(checkpoint, device):
    settings = stillhouse.MeasureSettings(
        devices=(device,), precisions=("int8",), lengths=(8,), has_memory=False, longest_s=0.0
    )
    [row] = stillhouse.measure(checkpoint, settings=settings).rows
    assert row.problem == ""
    assert row.latency.runs == 20
    weights = sum(p.numel() for p in load_headed(str(checkpoint)).model.parameters())
    assert weights / 1e6 < row.size_mb < 4 * weights / 1e6
