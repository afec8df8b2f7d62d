"""What every device must keep, however it knows its figures."""

import json
from functools import cache
from itertools import product

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from stillhouse.device.chips import find_chip
from stillhouse.device.features import features_of
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.predicted import bare_ends, open_predicted
from stillhouse.device.profile import Fingerprint, Row, Subject, fit_profile
from stillhouse.device.roofline import roofline_device
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.device.table import TableDevice, read_table
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


TEACHER = build(SHAPES[1])


def torch_device(tmp_path, kind="cpu"):
    return MeasuredDevice(
        TorchRuntime(torch.device(kind)), teacher=build(SHAPES[1]), build=build, longest_s=0.0
    )


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


@cache
def profile_of(device):
    config = TEACHER.config
    shapes = [
        BertArchitecture(layers=layers, hidden_size=16, heads=2, ffn_size=ffn_size)
        for layers, ffn_size in product((1, 2, 3), (16, 32, 48, 64))
    ]
    features = features_of(shapes, bare_ends(config), WORKLOADS[0])
    rows = [
        Row(architecture=one.key, latency_ms=one.layers + one.ffn_size / 50, features=tuple(row))
        for one, row in zip(shapes, features.tolist(), strict=True)
    ]
    subject = Subject(
        kind="cpu",
        fingerprint=Fingerprint(device=device, workload=WORKLOADS[0]),
        space="default",
        teacher="tiny",
        config=config.to_diff_dict(),
        points=12,
        seed=0,
    )
    return fit_profile(
        subject,
        reference=shapes[0].to_dict(),
        reference_ms=1.32,
        rows=rows,
        noise_fraction=0.01,
        cost_s=1.0,
    )


def predicted(tmp_path):
    runtime = TorchRuntime(torch.device("cpu"))
    profile = profile_of(runtime.name)
    path = tmp_path / "kd.json"
    return open_predicted(profile, path, runtime, teacher=TEACHER, build=build, longest_s=0.0)


def cuda_device(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch_device(tmp_path, "cuda")


MAKERS = [
    torch_device,
    table_device,
    table_from_file,
    phone,
    predicted,
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


@pytest.mark.slow
def test_memory_is_positive_or_a_device_error_that_says_where_it_is_measured(device):
    try:
        assert 0 < device.peak_memory_mb(SHAPES[0], WORKLOADS[0]) < 1_000
    except DeviceError as error:
        assert "take one of the devices cpu, " in str(error)  # noqa: PT017  only some raise
