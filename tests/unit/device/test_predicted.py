"""Predictions, and measurements where they would be bad, all in the profile's milliseconds."""

from dataclasses import replace

import pytest
from transformers import BertConfig

from stillhouse.device.latency import Comparison, Latency
from stillhouse.device.predicted import (
    MOST_ERROR_FRACTION,
    PredictedDevice,
    build_profiled,
    open_predicted,
)
from stillhouse.device.runtimes import TorchRuntime
from stillhouse.errors import DeviceError
from stillhouse.model.described import described
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.mobilebert import MobileBertArchitecture

TEACHER_MS, STUDENT_MS = 12.0, 6.0
CHAIN = ChainArchitecture(
    embedding_size=16, blocks=(ChainBlock(hidden_size=16, operations=("M", "S3")),), head_size=8
)
MOBILE = MobileBertArchitecture(
    layers=2,
    hidden_size=32,
    bottleneck_size=8,
    heads=2,
    ffn_size=32,
    ffn_count=2,
    embedding_size=16,
)


def latency(ms, workload):
    return Latency(
        median_ms=ms,
        low_ms=0.9 * ms,
        high_ms=1.2 * ms,
        p10_ms=0.8 * ms,
        p90_ms=1.5 * ms,
        runs=20,
        how="measured",
        device="EPYC 9654, PyTorch 2.13.0",
        workload=workload,
    )


class Beside:
    """Stands for what measures students, always `STUDENT_MS`, in turn with a model."""

    def __init__(self, other_ms, student_ms=STUDENT_MS, asked=None):
        self.other_ms, self.student_ms = other_ms, student_ms
        self.asked = [] if asked is None else asked
        self.weighed = []

    def timing(self, model):
        return Beside(self.other_ms, model.ms, self.asked)

    def peak_memory_mb(self, architecture, workload):
        self.weighed.append(architecture.key)
        return 40.0

    def compare(self, architecture, workload):
        self.asked.append((architecture.key, self.student_ms))
        return Comparison(
            student=latency(self.student_ms, workload),
            teacher=latency(self.other_ms, workload),
            noise_fraction=0.03,
            file_mb=1.5,
        )


class Model:
    """Stands for a model that takes so long; its vocabulary and the like are BERT's."""

    config = BertConfig(vocab_size=50, max_position_embeddings=24)

    def __init__(self, ms):
        self.ms = ms


@pytest.fixture
def beside_reference(profile):
    """The machine is half as fast as when the profile was made."""
    return Beside(2 * profile.reference_ms)


@pytest.fixture
def device(profile, beside_reference):
    return PredictedDevice(
        profile,
        beside_reference=beside_reference,
        beside_teacher=Beside(TEACHER_MS),
        teacher=Model(TEACHER_MS),
    )


def test_a_prediction_says_what_it_is_and_how_well_it_is_known(
    device, profile, profiled_shapes, features_told
):
    shape = profiled_shapes[21]
    found = device.compare(shape, profile.workload).student
    told = profile.predictor().predict(features_told([shape]))
    assert found.median_ms == told.latency_ms[0]
    assert (found.how, found.runs, found.device) == ("predicted", 0, device.name)
    assert found.median_ms - found.low_ms == pytest.approx(1.96 * told.standard_error_ms[0])
    assert found.high_ms - found.median_ms == pytest.approx(1.96 * told.standard_error_ms[0])


def test_intervals_hold_nineteen_of_twenty(device, profile, profiled_shapes, work_ms):
    unseen = profiled_shapes[1::2]
    found = [device.compare(shape, profile.workload).student for shape in unseen]
    inside = [
        one.low_ms < work_ms(shape) < one.high_ms for one, shape in zip(found, unseen, strict=True)
    ]
    assert sum(inside) >= 22
    assert all(0.02 < one.high_ms / one.median_ms - 1 < 0.2 for one in found)


def test_the_teacher_is_measured_once_and_told_in_the_profiles_milliseconds(
    device, beside_reference, profile, profiled_shapes
):
    first, second = (device.compare(one, profile.workload) for one in profiled_shapes[:2])
    assert [ms for _, ms in beside_reference.asked] == [TEACHER_MS]
    teacher = first.teacher
    assert second.teacher == teacher
    assert (teacher.how, teacher.device) == ("measured", device.name)
    told = (teacher.median_ms, teacher.low_ms, teacher.high_ms, teacher.p10_ms, teacher.p90_ms)
    assert told == pytest.approx((6.0, 5.4, 7.2, 4.8, 9.0))
    half_width = 1 - first.student.low_ms / first.student.median_ms
    assert first.noise_fraction == pytest.approx((half_width**2 + 0.03**2) ** 0.5)


@pytest.mark.parametrize(
    "shape", [CHAIN, MOBILE, "deep"], ids=["another family", "one more", "far away"]
)
def test_what_is_far_from_the_profile_is_measured(
    device, beside_reference, profile, profiled_shapes, shape, caplog
):
    if shape == "deep":
        shape = replace(profiled_shapes[-1], layers=40)
    for _ in range(2):
        found = device.compare(shape, profile.workload)
    assert beside_reference.asked[-1] == (shape.key, STUDENT_MS)
    assert (found.student.how, found.student.runs) == ("measured", 20)
    assert (found.student.median_ms, found.teacher.median_ms) == (STUDENT_MS / 2, TEACHER_MS / 2)
    assert (found.noise_fraction, found.file_mb) == (0.03, 1.5)
    assert caplog.text.count("is measured, and so are others like it") == 1


def test_a_bad_profile_predicts_nothing(profile, profiled_shapes, beside_reference):
    bad = replace(profile, errors=replace(profile.errors, rms_fraction=1.5 * MOST_ERROR_FRACTION))
    device = PredictedDevice(
        bad,
        beside_reference=beside_reference,
        beside_teacher=Beside(TEACHER_MS),
        teacher=Model(TEACHER_MS),
    )
    found = [device.compare(one, bad.workload).student.how for one in profiled_shapes[:4]]
    assert found == ["measured"] * 4


def test_another_workload_is_measured_beside_the_teacher(device, profile, profiled_shapes):
    workload = replace(profile.workload, length=8)
    found = device.compare(profiled_shapes[0], workload)
    assert (found.student.median_ms, found.teacher.median_ms) == (STUDENT_MS, TEACHER_MS)
    assert found.student.workload == workload
    assert found.student.device == found.teacher.device == device.name


def test_a_given_model_is_measured_as_it_is(device, profile, profiled_shapes, caplog):
    timing = device.timing(Model(3.0))
    found = timing.compare(profiled_shapes[0], profile.workload)
    assert (found.student.how, found.student.median_ms) == ("measured", 1.5)
    assert found.teacher.median_ms == TEACHER_MS / 2
    assert timing.name == device.name
    assert not caplog.text


def test_a_finished_student_is_measured_as_the_teacher_is(
    device, beside_reference, profile, profiled_shapes
):
    shape = profiled_shapes[21]
    predicted = device.compare(shape, profile.workload).student
    found = device.compare_finished(shape, profile.workload)
    assert beside_reference.asked[-1] == (shape.key, STUDENT_MS)
    assert (found.student.how, found.student.runs) == ("measured", 20)
    assert (found.student.median_ms, found.teacher.median_ms) == (STUDENT_MS / 2, TEACHER_MS / 2)
    assert (found.noise_fraction, found.file_mb) == (0.03, 1.5)
    assert found.predicted == predicted
    assert predicted.how == "predicted"


def test_memory_is_measured_where_a_finished_student_was_timed(
    device, beside_reference, profile, profiled_shapes
):
    """There its file is written already."""
    device.compare_finished(profiled_shapes[0], profile.workload)
    assert device.peak_memory_mb(profiled_shapes[0], profile.workload) == 40.0
    assert beside_reference.weighed == [profiled_shapes[0].key]


@pytest.mark.parametrize("shape", [CHAIN, "given"], ids=["unlike the profile", "given"])
def test_what_was_not_predicted_is_measured_once_when_finished(
    device, beside_reference, profile, profiled_shapes, shape
):
    if shape == "given":
        device, shape = device.timing(Model(3.0)), profiled_shapes[0]
    found = device.compare_finished(shape, profile.workload)
    assert found.student.how == "measured"
    assert found.predicted is None
    assert [key for key, _ in beside_reference.asked].count(shape.key) == 1


@pytest.mark.parametrize(
    "error", [DeviceError("no kernel"), RuntimeError("no kernel"), MemoryError("no kernel")]
)
def test_a_finished_student_that_cannot_be_measured_stays_predicted_and_it_is_said(
    device, beside_reference, profile, profiled_shapes, monkeypatch, caplog, error
):
    shape = profiled_shapes[21]
    predicted = device.compare(shape, profile.workload)  # the teacher, too

    def fail(*_):
        raise error

    monkeypatch.setattr(beside_reference, "compare", fail)
    assert device.compare_finished(shape, profile.workload) == predicted
    assert f"the latency of {shape.key} stays predicted" in caplog.text
    assert "no kernel" in caplog.text


def test_the_name_tells_machine_measurements_and_error(device, profile):
    error = f"{profile.errors.mape_fraction:.1%}"
    assert device.name == (
        f"EPYC 9654, PyTorch 2.13.0, predicted from 24 measurements with a mean error of {error}"
    )


def test_a_family_without_features_is_refused(device, profile):
    class Other:
        key = "other-1"

    with pytest.raises(DeviceError, match=r"families bert, chain and mobilebert, got other-1"):
        device.compare(Other(), profile.workload)


def test_another_machine_is_refused_with_both_named(profile, make_bert, shape, cpu, tmp_path):
    with pytest.raises(DeviceError) as caught:
        open_predicted(
            profile,
            tmp_path / "kd.json",
            TorchRuntime(cpu),
            teacher=make_bert(shape()),
            build=make_bert,
        )
    assert "kd.json is for EPYC 9654, PyTorch 2.13.0" in str(caught.value)
    assert f"asked for is {TorchRuntime(cpu).name}" in str(caught.value)


@pytest.mark.parametrize("shape", [CHAIN, MOBILE], ids=lambda one: one.family)
def test_models_of_every_family_are_built_as_they_are_described(shape):
    assert described(build_profiled(shape, Model.config).config) == shape


def test_a_model_is_built_after_the_teacher(profiled_shapes):
    model = build_profiled(profiled_shapes[7], Model.config)
    assert described(model.config) == profiled_shapes[7]
    assert model.get_input_embeddings().num_embeddings == 50
