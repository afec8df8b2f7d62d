import numpy as np
import onnx
import pytest
import torch

from stillhouse.device import runtimes
from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.runtimes import (
    OnnxRuntime,
    TorchRuntime,
    make_runtime,
    why_unusable,
    workload_inputs,
    write_onnx,
)
from stillhouse.errors import DeviceError
from stillhouse.model.lsq import quantise_model
from stillhouse.model.onnx_graph import Graph, float_weights

ON_PROCESSOR = [name for name, kind in MEASURED.items() if not kind.is_cuda]


def usable(kind):
    reason = why_unusable(kind)
    if reason is not None:
        pytest.skip(reason)
    return make_runtime(kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"),
    [(kind, precision) for kind in ON_PROCESSOR for precision in MEASURED[kind].precisions],
)
def test_every_runtime_times_in_every_precision_that_it_names(kind, precision, make_bert, shape):
    device = MeasuredDevice(
        usable(kind), teacher=make_bert(shape(2)), build=make_bert, longest_s=0.0
    )
    workload = Workload(length=12, batch=2, precision=precision, threads=1, padding_fraction=0.25)
    comparison = device.compare(shape(1), workload)
    assert comparison.student.runs == comparison.teacher.runs == 20
    assert comparison.student.workload == workload
    assert MEASURED[kind].engine in device.name
    has_file = "ONNX" in MEASURED[kind].engine or MEASURED[kind].engine == "OpenVINO"
    assert (comparison.file_mb is not None) == has_file


def test_a_file_in_eight_bits_is_smaller_and_holds_no_float_weights(make_bert, shape):
    model = make_bert(shape(2, 64))
    sizes = {}
    for precision in ("float32", "int8", "int8-static"):
        loaded = OnnxRuntime().load(model, Workload(length=8, precision=precision, threads=1))
        sizes[precision] = loaded.file_mb
        assert bool(float_weights(loaded.file)) == (precision == "float32")
    assert max(sizes["int8"], sizes["int8-static"]) < 0.7 * sizes["float32"]


def test_a_model_trained_in_few_bits_is_run_in_eight_bits_alone(make_bert, shape, monkeypatch):
    """However its scales were fixed: they are those of its training."""
    written = []

    def write(model, path, *, inputs):
        written.append((model, inputs))
        path.write_bytes(b"")
        return Graph(path=path, inputs=inputs, outputs=("logits",), opset=20, size_mb=0.0)

    monkeypatch.setattr(runtimes, "write_trained_graph", write)
    model = make_bert(shape())
    quantise_model(model, weight_bits=2)
    workload = Workload(length=8, threads=1)
    for precision in ("int8", "int8-static"):
        _, file = write_onnx(model, workload, precision)
        assert file.name == "int8.onnx"
    assert written == [(model, ("input_ids", "attention_mask"))] * 2
    with pytest.raises(DeviceError, match=r"no ONNX file of float32: measure it in int8"):
        OnnxRuntime().load(model, workload)


def test_the_file_goes_with_what_was_loaded(make_bert, shape):
    loaded = OnnxRuntime().load(make_bert(shape()), Workload(length=8, threads=1))
    file = loaded.file
    assert file.exists()
    assert onnx.load(file).graph.node
    del loaded
    assert not file.exists()


def test_a_session_has_the_threads_of_the_workload(make_bert, shape, monkeypatch):
    seen = []

    def open_session(path, *, threads, provider):
        seen.append((threads, provider))
        return original(path, threads=threads, provider=provider)

    original = runtimes.open_session
    monkeypatch.setattr(runtimes, "open_session", open_session)
    OnnxRuntime().load(make_bert(shape()), Workload(length=8, threads=2))
    assert seen == [(2, "CPUExecutionProvider")]


@pytest.mark.parametrize(("share", "kept"), [(0.0, 8), (0.25, 6), (0.99, 1)])
def test_padding_is_behind_the_tokens_and_never_all_of_a_text(share, kept):
    inputs = workload_inputs(Workload(length=8, batch=3, padding_fraction=share))
    assert inputs["input_ids"].shape == (3, 8)
    mask_BT = inputs["attention_mask"]
    assert (mask_BT.sum(axis=1) == kept).all()
    assert (np.diff(mask_BT, axis=1) <= 0).all()


@pytest.mark.parametrize(("share", "has_mask"), [(0.0, False), (0.5, True)])
def test_pytorch_gets_a_mask_where_there_is_padding(cpu, make_bert, shape, share, has_mask):
    seen = []
    model = make_bert(shape())
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append("attention_mask" in given), with_kwargs=True
    )
    TorchRuntime(cpu).load(model, Workload(length=8, padding_fraction=share)).run()
    assert seen == [has_mask]


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("stillhouse.device.kinds.find_spec", lambda _: None)
    reason = "onnx, onnxscript, onnxruntime not installed: pip install 'stillhouse\\[onnx\\]'"
    with pytest.raises(DeviceError, match=f"device onnxruntime-cpu: {reason}"):
        make_runtime("onnxruntime-cpu")
    assert why_unusable("cpu") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("kind", ["cuda", "compiled-cuda"])
def test_cuda_is_refused_where_there_is_none(kind):
    with pytest.raises(DeviceError, match=f"device {kind}: no CUDA device is visible"):
        make_runtime(kind)


def test_onnx_runtime_without_cuda_says_so():
    import onnxruntime  # noqa: PLC0415  an extra

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(DeviceError, match="has no CUDA: pip install 'stillhouse"):
        make_runtime("onnxruntime-cuda")


def test_a_model_that_cannot_be_exported_is_a_device_error(make_bert, shape, monkeypatch):
    monkeypatch.setattr("stillhouse.model.onnx_graph.MOST_BYTES", 10)
    with pytest.raises(DeviceError, match="an ONNX file holds less than"):
        OnnxRuntime().load(make_bert(shape()), Workload(length=8))
