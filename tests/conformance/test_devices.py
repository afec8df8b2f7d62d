"""What every device must keep, however it knows its figures."""

import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from stillhouse.device.chips import find_chip
from stillhouse.device.latency import Workload
from stillhouse.device.roofline import roofline_device
from stillhouse.device.table import TableDevice, read_table
from stillhouse.device.torch_device import TorchDevice
from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture

SHAPES = [
    BertArchitecture(layers=layers, hidden_size=16, heads=2, ffn_size=32) for layers in (1, 2)
]
WORKLOADS = [Workload(length=8), Workload(length=12, batch=3, threads=1)]


def build(architecture):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            max_position_embeddings=16,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.ffn_size,
        )
    )


def torch_device(tmp_path, kind="cpu"):
    return TorchDevice(torch.device(kind), teacher=build(SHAPES[1]), build=build, longest_s=0.0)


def table_device(tmp_path):
    rows = {SHAPES[0].key: 1.5, SHAPES[1].key: 2.5, "teacher": 10.0}
    return TableDevice(name="board", latency_ms=rows)


def table_from_file(tmp_path):
    path = tmp_path / "board.csv"
    rows = "".join(f"{shape.key},{shape.layers}.5\n" for shape in SHAPES)
    path.write_text(f"architecture,latency_ms\nteacher,10\n{rows}", encoding="utf-8")
    return read_table(path)


def phone(tmp_path):
    return roofline_device(find_chip("phone-cpu"), build(SHAPES[1]).config, bare=False)


def cuda_device(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch_device(tmp_path, "cuda")


MAKERS = [
    torch_device,
    table_device,
    table_from_file,
    phone,
    pytest.param(cuda_device, marks=pytest.mark.gpu),
]


@pytest.fixture(params=MAKERS)
def device(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture(params=SHAPES, ids=lambda shape: shape.key)
def shape(request):
    return request.param


@pytest.fixture(params=WORKLOADS, ids=lambda workload: workload.label)
def workload(request):
    return request.param


def test_figures_are_positive_ordered_and_say_what_they_are(device, shape, workload):
    comparison = device.compare(shape, workload)
    for latency in (comparison.student, comparison.teacher):
        assert 0 < latency.low_ms <= latency.median_ms <= latency.high_ms
        assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
        assert latency.device == device.name
        assert latency.workload == workload
        assert (latency.how == "measured") == (latency.runs > 0)
        assert json.loads(json.dumps(latency.to_dict()))["median_ms"] == latency.median_ms
    assert comparison.speedup * comparison.student.median_ms == pytest.approx(
        comparison.teacher.median_ms
    )


def test_the_name_is_one_line_and_does_not_change(device, shape):
    before = device.name
    device.compare(shape, WORKLOADS[0])
    assert device.name == before
    assert before.strip()
    assert "\n" not in before


def test_comparing_leaves_the_process_as_it_was(device, shape, workload):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.random.fork_rng():
        device.compare(shape, workload)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_what_cannot_be_told_is_a_device_error(device):
    unknown = BertArchitecture(layers=9, hidden_size=16, heads=2, ffn_size=32)
    too_long = Workload(length=17)
    with pytest.raises(DeviceError):
        device.compare(unknown, too_long)
