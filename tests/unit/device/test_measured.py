import copy

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from stillhouse.device.host import processor_name
from stillhouse.device.latency import Workload
from stillhouse.device.measured import MeasuredDevice
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.errors import DeviceError

WORKLOAD = Workload(length=16)


@pytest.fixture
def device(cpu, make_bert, shape):
    return MeasuredDevice(
        TorchRuntime(cpu), teacher=make_bert(shape(6)), build=make_bert, longest_s=0.0
    )


def test_one_layer_is_faster_than_six(cpu, make_bert, shape):
    device = MeasuredDevice(
        TorchRuntime(cpu), teacher=make_bert(shape(6, 32)), build=make_bert, longest_s=0.5
    )
    comparison = device.compare(shape(1, 32), WORKLOAD)
    assert comparison.student.median_ms < comparison.teacher.median_ms
    assert comparison.speedup > 1
    for latency in (comparison.student, comparison.teacher):
        assert 20 <= latency.runs <= 400
        assert latency.p10_ms <= latency.median_ms <= latency.p90_ms


def test_student_and_teacher_run_in_turn_after_a_warm_up(cpu, make_bert, shape):
    calls = []

    def watch(model, name):
        model.register_forward_hook(lambda *_: calls.append((name, model.training)))
        return model

    device = MeasuredDevice(
        TorchRuntime(cpu),
        teacher=watch(make_bert(shape(2)), "teacher"),
        build=lambda architecture: watch(make_bert(architecture).train(), "student"),
        longest_s=0.0,
    )
    comparison = device.compare(shape(1), WORKLOAD)
    assert comparison.student.runs == comparison.teacher.runs == 20
    assert calls == [("student", False), ("teacher", False)] * (5 + 20)


@pytest.mark.parametrize(("threads", "inside"), [(2, 2), (0, 1)])
def test_the_threads_are_those_of_the_workload(cpu, make_bert, shape, threads, inside):
    before = torch.get_num_threads()
    seen = set()

    def build(architecture):
        model = make_bert(architecture)
        model.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
        return model

    torch.set_num_threads(1)
    try:
        device = MeasuredDevice(
            TorchRuntime(cpu), teacher=make_bert(shape(1)), build=build, longest_s=0.0
        )
        device.compare(shape(1), Workload(length=8, threads=threads))
        assert seen == {inside}
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_the_workload_decides_shape_and_precision(cpu, make_bert, shape):
    seen = []

    def build(architecture):
        model = make_bert(architecture)
        model.classifier.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
        model.bert.embeddings.register_forward_hook(
            lambda _, __, output: seen.append(output.shape[:2])
        )
        return model

    device = MeasuredDevice(
        TorchRuntime(cpu), teacher=make_bert(shape(1)), build=build, longest_s=0.0
    )
    device.compare(shape(1), Workload(length=7, batch=3, precision="bfloat16"))
    assert set(seen) == {(3, 7), torch.bfloat16}


def test_int8_is_refused(cpu, make_bert, shape):
    device = MeasuredDevice(
        TorchRuntime(cpu), teacher=make_bert(shape(1)), build=make_bert, longest_s=0.0
    )
    with pytest.raises(DeviceError, match="float32 or bfloat16, not in int8"):
        device.compare(shape(1), Workload(length=8, precision="int8"))


@pytest.mark.parametrize(("of_student", "of_teacher"), [(24, 12), (12, 24)])
def test_more_tokens_than_positions_are_refused(cpu, make_bert, shape, of_student, of_teacher):
    device = MeasuredDevice(
        TorchRuntime(cpu),
        teacher=make_bert(shape(1), positions=of_teacher),
        build=lambda architecture: make_bert(architecture, positions=of_student),
        longest_s=0.0,
    )
    with pytest.raises(DeviceError, match="length 13 is above the model's 12 positions"):
        device.compare(shape(1), Workload(length=13))
    assert device.compare(shape(1), Workload(length=12)).student.runs == 20


def test_every_family_is_timed_up_to_its_usable_positions(cpu, tiny_config, family, shape):
    def build(architecture):
        config = tiny_config(family, num_hidden_layers=architecture.layers)
        return AutoModelForSequenceClassification.from_config(config)

    device = MeasuredDevice(TorchRuntime(cpu), teacher=build(shape(2)), build=build, longest_s=0.0)
    assert device.compare(shape(1), Workload(length=24)).student.runs == 20
    with pytest.raises(DeviceError, match="length 25 is above the model's 24 positions"):
        device.compare(shape(1), Workload(length=25))


def test_running_out_of_memory_is_a_device_error(cpu, make_bert, shape):
    def build(architecture):
        def run_out(*args):
            raise torch.OutOfMemoryError("too large")

        model = make_bert(architecture)
        model.register_forward_pre_hook(run_out)
        return model

    before = torch.get_num_threads()
    device = MeasuredDevice(TorchRuntime(cpu), teacher=make_bert(shape(1)), build=build)
    with pytest.raises(DeviceError, match="out of memory while timing bert-1x16-a2-f32-gelu"):
        device.compare(shape(1), Workload(length=8, threads=before + 1))
    assert torch.get_num_threads() == before


def test_timing_leaves_the_teachers_weights(device, shape):
    before = copy.deepcopy(device._teacher.state_dict())
    device.compare(shape(1), WORKLOAD)
    for name, weight in device._teacher.state_dict().items():
        assert torch.equal(weight, before[name])


def test_the_teacher_is_loaded_once_for_a_workload(cpu, make_bert, shape):
    seen = []

    class Counting(TorchRuntime):
        def load(self, model, workload):
            seen.append((model.config.num_hidden_layers, workload.length))
            return super().load(model, workload)

    device = MeasuredDevice(
        Counting(cpu), teacher=make_bert(shape(2)), build=make_bert, longest_s=0.0
    )
    for length in (8, 8, 12):
        comparison = device.compare(shape(1), Workload(length=length))
        assert comparison.teacher.workload.length == length
    assert sorted(seen) == [(1, 8), (1, 8), (1, 12), (2, 8), (2, 12)]


def test_the_name_tells_chip_and_runtime(device):
    assert processor_name()
    assert device.name == f"{processor_name()}, PyTorch {torch.__version__}"
