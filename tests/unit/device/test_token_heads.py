"""Models that answer every token, in every runtime of the processor."""

import pytest
from transformers import BertConfig

from stillhouse.device.kinds import MEASURED
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.runtimes import OnnxRuntime, make_runtime, why_unusable
from stillhouse.model.heads import auto_class_of
from stillhouse.model.onnx_graph import open_session, read_graph

WORKLOAD = Workload(length=12, batch=2, threads=1, padding_fraction=0.25)
OUTPUTS = {"tags": ("logits",), "spans": ("start_logits", "end_logits")}


@pytest.fixture(params=OUTPUTS)
def kind(request):
    return request.param


@pytest.fixture
def build(kind):
    """Makes a model of a shape, with a head for the kind of task."""

    def make(architecture):
        config = BertConfig(
            vocab_size=50,
            max_position_embeddings=24,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.ffn_size,
            num_labels=5 if kind == "tags" else 2,
        )
        return auto_class_of(kind).from_config(config)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, one in MEASURED.items() if not one.is_cuda])
def test_every_runtime_times_and_weighs_them(name, build, shape):
    reason = why_unusable(name)
    if reason is not None:
        pytest.skip(reason)
    device = MeasuredDevice(make_runtime(name), teacher=build(shape(2)), build=build, longest_s=0.0)
    comparison = device.compare(shape(1), WORKLOAD)
    assert comparison.student.runs == comparison.teacher.runs == 20
    assert comparison.student.median_ms > 0
    assert device.peak_memory_mb(shape(1), WORKLOAD) > 0


def test_a_timed_file_answers_every_token(kind, build, shape):
    loaded = OnnxRuntime().load(build(shape()), WORKLOAD)
    assert read_graph(loaded.file).outputs == OUTPUTS[kind]
    session = open_session(loaded.file, threads=1)
    inputs = {
        name: [[1] * WORKLOAD.length] * WORKLOAD.batch for name in ("input_ids", "attention_mask")
    }
    for found in session.run(None, inputs):
        assert found.shape[:2] == (WORKLOAD.batch, WORKLOAD.length)
