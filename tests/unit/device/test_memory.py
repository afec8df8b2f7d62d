import json
import sys

import numpy as np
import pytest

from stillhouse.device import runtimes
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.memory import Probe, probe_mb
from stillhouse.device.runtimes import OnnxRuntime, TorchRuntime, make_runtime, why_unusable
from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture

WORKLOAD = Workload(length=8, threads=1)
INPUTS = {"input_ids": np.full((1, 8), 5)}

FAKE_RUNTIME = """
import json, os, sys

gone = b"x" * 90_000_000  # what importing needs for a moment is not the model's
del gone

class SessionOptions:
    pass

class InferenceSession:
    def __init__(self, file, sess_options, providers):
        self.kept = b"x" * 40_000_000
        self.told = {
            "file": file,
            "threads": sess_options.intra_op_num_threads,
            "openmp": os.environ["OMP_NUM_THREADS"],
            "modules": list(sys.modules),
            "runs": 0,
        }

    def get_providers(self):
        return ["CPUExecutionProvider"]

    def run(self, outputs, inputs):
        for_a_moment = b"x" * 30_000_000
        self.told["runs"] += 1
        self.told["inputs"] = {name: values.tolist() for name, values in inputs.items()}
        with open(TOLD, "w") as file:
            json.dump(self.told, file)
"""


@pytest.fixture
def fake_runtime(tmp_path, monkeypatch):
    """An ONNX Runtime that takes known amounts of memory; gives the file of what it saw."""
    told = tmp_path / "told.json"
    code = FAKE_RUNTIME.replace("TOLD", repr(str(told)))
    (tmp_path / "onnxruntime.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return told


def probe(tmp_path, *imports):
    return Probe(engine="onnxruntime", file=tmp_path / "model.onnx", imports=imports)


def test_the_peak_counts_from_after_the_imports(tmp_path, fake_runtime):
    added_mb = probe_mb(probe(tmp_path, "onnxruntime"), WORKLOAD, INPUTS)
    assert added_mb == pytest.approx(70, abs=6)


def test_the_process_has_the_runtime_the_request_and_the_threads_alone(tmp_path, fake_runtime):
    probe_mb(probe(tmp_path, "onnxruntime"), Workload(length=8, threads=3), INPUTS)
    told = json.loads(fake_runtime.read_text(encoding="utf-8"))
    assert (told["threads"], told["openmp"]) == (3, "3")
    assert told["file"] == str(tmp_path / "model.onnx")
    assert told["inputs"] == {"input_ids": [[5] * 8]}
    assert told["runs"] > 1
    rooms = {name.partition(".")[0] for name in told["modules"]}
    assert not rooms & {"torch", "transformers", "stillhouse", "onnx"}


def test_a_process_that_fails_is_a_device_error_with_its_last_words(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(DeviceError, match=r"batch 1, length 8.* failed: .*model.onnx"):
        probe_mb(probe(tmp_path, "onnxruntime"), WORKLOAD, INPUTS)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
def test_a_process_that_is_killed_is_a_device_error(tmp_path, monkeypatch):
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "greedy_import.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="was ended by SIGKILL, as for want of memory"):
        probe_mb(probe(tmp_path, "greedy_import"), WORKLOAD, INPUTS)


def large(make_bert, layers, **more):
    """A model of 16 or more MB: each of its layers has 3.2 MB, its words 10."""
    shape = BertArchitecture(layers=layers, hidden_size=256, heads=4, ffn_size=1024)
    model = make_bert(shape, **more)
    model.resize_token_embeddings(10_000, mean_resizing=False)
    return model, sum(weight.numel() * 4 for weight in model.parameters()) / 1e6


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["cpu", "onnxruntime-cpu", "openvino-cpu", pytest.param("cuda", marks=pytest.mark.gpu)],
)
def test_a_larger_model_needs_more_and_each_of_the_order_of_its_weights(kind, make_bert):
    reason = why_unusable(kind)
    if reason is not None:
        pytest.skip(reason)
    runtime = make_runtime(kind)
    (small, small_mb), (large_one, large_mb) = large(make_bert, 1), large(make_bert, 10)
    peaks_mb = [runtime.peak_memory_mb(model, WORKLOAD) for model in (small, large_one)]
    assert large_mb > 40
    assert small_mb < peaks_mb[0] < 10 * small_mb
    assert large_mb < peaks_mb[1] < 10 * large_mb
    assert peaks_mb[1] > peaks_mb[0] + (large_mb - small_mb) / 2


@pytest.mark.slow
def test_a_compiled_model_is_compiled_there_as_well(make_bert, shape):
    reason = why_unusable("compiled-cpu")
    if reason is not None:
        pytest.skip(reason)
    plain_mb, compiled_mb = (
        make_runtime(kind).peak_memory_mb(make_bert(shape()), WORKLOAD)
        for kind in ("cpu", "compiled-cpu")
    )
    assert compiled_mb > plain_mb + 10  # the compiler itself


def test_a_precision_that_pytorch_lacks_is_refused_before_anything_is_loaded(cpu, make_bert, shape):
    with pytest.raises(DeviceError, match="float32 or bfloat16, not in int8"):
        TorchRuntime(cpu).peak_memory_mb(make_bert(shape()), Workload(length=8, precision="int8"))


def test_a_student_is_written_once_for_its_time_and_its_memory(make_bert, shape, monkeypatch):
    pytest.importorskip("onnxruntime")
    written, probed, built = [], [], []

    def write_onnx(model, workload, precision):
        written.append(model)
        return original(model, workload, precision)

    def probe_mb(one, workload, inputs):
        assert one.file.exists()
        probed.append((one.file.name, workload))
        return 12.5

    def build(architecture):
        built.append(architecture.key)
        return make_bert(architecture)

    original = runtimes.write_onnx
    monkeypatch.setattr(runtimes, "write_onnx", write_onnx)
    monkeypatch.setattr(runtimes, "probe_mb", probe_mb)
    teacher = make_bert(shape(2))
    device = MeasuredDevice(OnnxRuntime(), teacher=teacher, build=build, longest_s=0.0)
    device.compare(shape(1), WORKLOAD)
    longer = Workload(length=12, threads=1)
    device.compare(shape(1), longer)
    assert device.peak_memory_mb(shape(1), longer) == 12.5
    assert built == [shape(1).key]
    assert len(written) == 2
    assert written[0] is teacher
    assert probed == [("float32.onnx", longer)]


def test_more_tokens_than_positions_are_refused(cpu, make_bert, shape):
    device = MeasuredDevice(TorchRuntime(cpu), teacher=make_bert(shape()), build=make_bert)
    with pytest.raises(DeviceError, match="length 25 is above the model's 24 positions"):
        device.peak_memory_mb(shape(), Workload(length=25))
