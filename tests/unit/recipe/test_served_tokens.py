"""Answers in 8 bits of models that answer every token."""

import numpy as np
import pytest
import torch

from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.device.latency import Workload
from stillhouse.device.runtimes import why_unusable
from stillhouse.model.heads import auto_class_of
from stillhouse.model.predict import predict
from stillhouse.recipe.served import predict_served
from stillhouse.run.device_settings import DeviceSettings


@pytest.fixture(scope="module")
def encoded(weather_rows, weather_tokenizer):
    """Texts of different lengths, in no order of them."""
    texts = [text for text, _ in weather_rows[:40]]
    return encode(Examples(text_a=texts).to_dataset(()), weather_tokenizer, max_length=16)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tags", "spans"])
@pytest.mark.parametrize(
    ("device", "precision"),
    [("onnxruntime-cpu", "int8"), ("onnxruntime-cpu", "int8-static"), ("openvino-cpu", "int8")],
)
def test_a_row_a_token_is_near_that_in_float_and_in_its_place(
    kind, device, precision, encoded, tiny_config, weather_tokenizer
):
    reason = why_unusable(device)
    if reason is not None:
        pytest.skip(reason)
    outputs = 5 if kind == "tags" else 2
    config = tiny_config("electra", vocab_size=len(weather_tokenizer), labels=outputs)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = auto_class_of(kind).from_config(config)
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.2)
    logits_PC = predict_served(
        model,
        encoded,
        settings=DeviceSettings(kind=device, precision=precision),
        workload=Workload(length=16, batch=3, precision=precision, threads=1),
        calibration=encoded,
    )
    expected_PC = predict(model, encoded)
    assert logits_PC.shape == expected_PC.shape == (len(encoded.input_ids), outputs)
    gap = np.abs(logits_PC - expected_PC).mean()
    assert 0 < gap < 0.1 * np.abs(expected_PC).mean()
