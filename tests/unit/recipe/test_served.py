import numpy as np
import pytest

from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.device.latency import Workload
from stillhouse.device.runtimes import why_unusable
from stillhouse.model.predict import predict
from stillhouse.recipe import autodistil, autodistill, nas_bert, served
from stillhouse.recipe.served import predict_served, served_precision
from stillhouse.run.device_settings import DeviceSettings


@pytest.fixture(scope="module")
def encoded(weather_rows, weather_tokenizer):
    texts = [text for text, _ in weather_rows[:40]]
    return encode(Examples(text_a=texts).to_dataset(()), weather_tokenizer, max_length=16)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "onnxruntime-cpu", "precision": "int8"}, "int8"),
        ({"kind": "onnxruntime-cpu", "precision": "int8-static"}, "int8-static"),
        ({"kind": "openvino-cpu", "precision": "int8"}, "int8-static"),
        ({"kind": "onnxruntime-cpu"}, None),
        ({"kind": "cpu", "precision": "bfloat16"}, None),
        ({"kind": "analytic", "chip": "tpu-v1-int8", "precision": "int8"}, None),
        ({"kind": "table", "table": "board.csv", "precision": "int8"}, None),
    ],
)
def test_only_a_device_that_runs_eight_bits_here_serves_them(settings, expected):
    assert served_precision(DeviceSettings(**settings)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"),
    [("onnxruntime-cpu", "int8"), ("onnxruntime-cpu", "int8-static"), ("openvino-cpu", "int8")],
)
def test_answers_are_near_those_in_float_and_in_the_sets_order(
    kind, precision, weather_teacher, encoded
):
    reason = why_unusable(kind)
    if reason is not None:
        pytest.skip(reason)
    logits_NC = predict_served(
        weather_teacher,
        encoded,
        settings=DeviceSettings(kind=kind, precision=precision),
        workload=Workload(length=16, precision=precision, threads=1),
        calibration=encoded,
    )
    expected_NC = predict(weather_teacher, encoded)
    assert logits_NC.shape == expected_NC.shape
    gap = np.abs(logits_NC - expected_NC).mean()
    assert 0 < gap < 0.2 * np.abs(expected_NC).mean()
    agree = (logits_NC.argmax(axis=1) == expected_NC.argmax(axis=1)).mean()
    assert agree >= 0.9


def test_the_model_stays_on_its_device_and_in_one_piece(weather_teacher, encoded):
    before = {name: value.clone() for name, value in weather_teacher.state_dict().items()}
    predict_served(
        weather_teacher,
        encoded,
        settings=DeviceSettings(kind="onnxruntime-cpu", precision="int8"),
        workload=Workload(length=16, batch=3, precision="int8", threads=1),
        calibration=encoded,
    )
    assert all(
        bool((value == before[name]).all()) for name, value in weather_teacher.state_dict().items()
    )


def test_a_file_that_cannot_be_written_is_said_and_loses_nothing(
    bench, talk, monkeypatch, tmp_path
):
    def refuse(*args, **more):
        raise served.ExportError("no such operator")

    monkeypatch.setattr(served, "export_onnx_checkpoint", refuse)
    made = bench({"device": {"kind": "onnxruntime-cpu"}})
    served.export_for_device(made, [tmp_path / "1"])
    assert talk.said == [f"No ONNX file of {tmp_path / '1'}: no such operator"]


def test_devices_without_files_get_none(bench, monkeypatch, tmp_path):
    monkeypatch.setattr(served, "export_onnx_checkpoint", lambda *_, **__: pytest.fail("exported"))
    for device in ({}, {"kind": "cpu"}, {"kind": "table", "table": "board.csv"}):
        served.export_for_device(bench({"device": device}), [tmp_path])


@pytest.mark.parametrize(
    ("settings", "in_float", "in_8_bits"),
    [
        ({}, False, None),
        ({"kind": "onnxruntime-cpu"}, False, None),
        ({"kind": "onnxruntime-cpu", "precision": "int8-static"}, False, "int8-static"),
        ({"kind": "openvino-cpu", "precision": "int8"}, False, "int8-static"),
        ({"kind": "analytic", "chip": "tpu-v1-int8"}, True, None),
        ({"kind": "table", "table": "board.csv", "precision": "int8"}, True, None),
    ],
)
def test_what_is_said_of_scores_is_what_the_device_can_do(talk, settings, in_float, in_8_bits):
    device = DeviceSettings(**settings)
    served.say_scored_in_float(device, talk)
    assert [text for text in talk.said if "chosen by what they do in float32" in text] == talk.said
    assert bool(talk.said) == in_float
    talk.said.clear()
    served.say_how_far_served(device, talk, "words are told in {}")
    told = f"Latencies and sizes are those of {in_8_bits}; words are told in {in_8_bits}."
    assert talk.said == ([] if in_8_bits is None else [told])


@pytest.mark.parametrize(
    "scored", [autodistill.SCORED, nas_bert.SCORED, *autodistil.SCORED.values()]
)
def test_recipes_without_a_task_say_one_sentence_of_their_scores(talk, scored):
    device = DeviceSettings(kind="onnxruntime-cpu", precision="int8")
    served.say_how_far_served(device, talk, scored)
    [text] = talk.said
    assert text.startswith("Latencies and sizes are those of int8; ")
    assert not set("{}") & set(text)
    assert text.count(".") == 1
