"""Limits by hand: a student of a million parameters beside a teacher of 8 ms."""

from dataclasses import replace

import pytest

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.errors import DeviceError
from stillhouse.recipe.limits import (
    Weighed,
    compare_finished,
    cost_metrics,
    is_over,
    is_within,
    size_mb,
    teacher_costs,
    violations,
    weigh,
    weigh_finished,
)
from stillhouse.run.device_settings import LimitSettings
from stillhouse.space.architecture import BertArchitecture

SHAPE = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=64)
WORKLOAD = Workload(length=16)


def latency(median_ms, high_ms=None):
    return Latency(
        median_ms=median_ms,
        low_ms=median_ms,
        high_ms=median_ms if high_ms is None else high_ms,
        p10_ms=median_ms,
        p90_ms=median_ms,
        runs=20,
        how="measured",
        device="here",
        workload=WORKLOAD,
    )


# The student's median is 4 ms and its interval ends at 6 ms; the teacher takes 8 ms.
COMPARISON = Comparison(student=latency(4.0, high_ms=6.0), teacher=latency(8.0, high_ms=9.0))
WEIGHED = Weighed(
    parameters=1_000_000,
    flops_fraction=0.3,
    precision="float32",
    comparison=COMPARISON,
    memory_mb=50.0,
)
IN_8_BITS = replace(WEIGHED, precision="int8")
FILE = replace(COMPARISON, file_mb=1.5)


class Chip:
    """Tells one latency and one memory, and remembers what it was asked."""

    name = "chip"

    def __init__(self, memory_mb=50.0, comparison=COMPARISON):
        self._memory_mb, self._comparison = memory_mb, comparison
        self.asked = []

    def compare(self, architecture, workload):
        assert (architecture, workload.length) == (SHAPE, WORKLOAD.length)
        self.asked.append("latency")
        return self._comparison

    def peak_memory_mb(self, architecture, workload):
        assert (architecture, workload.length) == (SHAPE, WORKLOAD.length)
        self.asked.append("memory")
        if isinstance(self._memory_mb, Exception):
            raise self._memory_mb
        return self._memory_mb


COUNTS = {"parameters": 1_000_000, "flops_fraction": 0.3}


@pytest.mark.parametrize(
    ("limit", "over"),
    [
        ({"latency_ms": 5.0}, 0.2),  # 6 / 5: the median alone would meet it
        ({"latency_ms": 12.0}, -0.5),
        ({"speedup": 2.0}, 0.5),  # 8 / 2 = 4 ms allowed, 6 ms used
        ({"speedup": 1.0}, -0.25),
        ({"size_mb": 5.0}, -0.2),  # 1e6 parameters of 4 bytes are 4 MB
        ({"size_mb": 3.2}, 0.25),
        ({"memory_mb": 40.0}, 0.25),
        ({"memory_mb": 100.0}, -0.5),
        ({"parameters": 8e5}, 0.25),
        ({"params_m": 0.8}, 0.25),
        ({"params_m": 4.0}, -0.75),
        ({"flops_fraction": 0.2}, 0.5),  # 0.3 used
        ({"flops_fraction": 0.4}, -0.25),
    ],
)
def test_each_limit_by_hand(limit, over):
    found = violations(LimitSettings(**limit), WEIGHED)
    assert found == {name: pytest.approx(over) for name in limit}


@pytest.mark.parametrize("parameters", [6_200, 1_234_567, 109_483_778])
def test_exactly_at_the_limit_is_met_whatever_the_unit(parameters):
    weighed = replace(WEIGHED, parameters=parameters)
    limits = LimitSettings(
        latency_ms=6.0,
        speedup=8 / 6,
        size_mb=parameters * 4e-6,
        memory_mb=50.0,
        parameters=parameters,
        params_m=parameters * 1e-6,
        flops_fraction=0.3,
    )
    met = violations(limits, weighed)
    assert met == dict.fromkeys(limits.given(), 0.0)
    assert is_within(limits, met)


def test_several_limits_in_their_order_and_none():
    limits = LimitSettings(flops_fraction=0.5, parameters=2e6, memory_mb=60, latency_ms=6.0)
    names = ["latency_ms", "memory_mb", "parameters", "flops_fraction"]
    assert list(violations(limits, WEIGHED)) == names
    assert violations(LimitSettings(), WEIGHED) == {}


def test_what_is_not_known_is_neither_over_nor_within():
    counted = replace(WEIGHED, comparison=None, memory_mb=None)
    limits = LimitSettings(parameters=2e6, flops_fraction=0.6)
    over = violations(limits, counted)
    assert over == {"parameters": pytest.approx(-0.5), "flops_fraction": pytest.approx(-0.5)}
    assert is_within(limits, over)
    for name in ("latency_ms", "speedup", "memory_mb"):
        asked = replace(limits, **{name: 1000.0})
        assert violations(asked, counted) == over
        assert not is_within(asked, over)


def test_size_of_bert_base():
    assert size_mb(109_483_778) == pytest.approx(437.9, abs=0.05)  # its file on the hub: 438 MB


@pytest.mark.parametrize(
    ("precision", "file_mb", "expected_mb"),
    [
        ("float32", None, 4.0),
        ("float32", 4.3, 4.0),  # comparable with recipes and devices that write no file
        ("bfloat16", None, 4.0),
        ("int8", None, 1.0),
        ("int8", 1.5, 1.5),
        ("int8-static", None, 1.0),
        ("int8-static", 1.5, 1.5),
    ],
)
def test_the_size_is_that_of_what_is_served(precision, file_mb, expected_mb):
    assert size_mb(1_000_000, precision, file_mb) == expected_mb
    weighed = Weighed(
        parameters=1_000_000,
        flops_fraction=0.3,
        precision=precision,
        comparison=replace(COMPARISON, file_mb=file_mb),
    )
    assert weighed.size_mb == expected_mb
    assert violations(LimitSettings(size_mb=2.0), weighed)["size_mb"] == expected_mb / 2 - 1
    assert weighed.measured() == ({} if file_mb is None else {"file_mb": file_mb})


def test_without_a_comparison_8_bits_are_a_byte_a_parameter():
    assert replace(IN_8_BITS, comparison=None).size_mb == 1.0
    assert replace(IN_8_BITS, comparison=FILE).size_mb == 1.5


def test_the_teachers_size_is_told_where_it_is_the_same_thing_as_a_students():
    assert teacher_costs(2_000_000, WEIGHED)["teacher_size_mb"] == 8.0
    assert teacher_costs(2_000_000, replace(WEIGHED, comparison=FILE))["teacher_size_mb"] == 8.0
    assert teacher_costs(2_000_000, IN_8_BITS)["teacher_size_mb"] == 2.0
    told = teacher_costs(2_000_000, replace(IN_8_BITS, comparison=FILE))
    assert told == {"teacher_parameters": 2_000_000}  # its file is never written


@pytest.mark.parametrize(
    ("limits", "asked"),
    [
        ({}, ["latency"]),
        ({"latency_ms": 9.0}, ["latency"]),
        ({"memory_mb": 60.0}, ["latency", "memory"]),
        ({"memory_mb": 60.0, "latency_ms": 9.0}, ["latency", "memory"]),
        ({"memory_mb": 60.0, "latency_ms": 5.0}, ["latency"]),
        ({"memory_mb": 60.0, "size_mb": 3.0}, ["latency"]),
        ({"memory_mb": 60.0, "flops_fraction": 0.2}, ["latency"]),
    ],
)
def test_memory_is_asked_for_only_where_it_decides(limits, asked):
    chip = Chip()
    weighed = weigh(chip, SHAPE, WORKLOAD, LimitSettings(**limits), **COUNTS)
    assert chip.asked == asked
    assert weighed.memory_mb == (50.0 if "memory" in asked else None)


def test_a_device_that_cannot_tell_memory_says_so_to_a_candidate():
    chip = Chip(DeviceError("tells no memory"))
    with pytest.raises(DeviceError, match="tells no memory"):
        weigh(chip, SHAPE, WORKLOAD, LimitSettings(memory_mb=60.0), **COUNTS)
    assert weigh(chip, SHAPE, WORKLOAD, LimitSettings(), **COUNTS).memory_mb is None


def test_a_finished_students_memory_is_told_without_a_limit():
    told = cost_metrics(LimitSettings(), weigh_finished(Chip(), SHAPE, WORKLOAD, **COUNTS))
    assert told == {
        "parameters": 1_000_000,
        "size_mb": 4.0,
        "memory_mb": 50.0,
        "flops_fraction": 0.3,
        "limits": {},
        "violations": {},
        "within_limit": True,
    }


def test_what_a_device_predicts_of_a_candidate_it_measures_of_a_finished_student(predicting):
    device = predicting(Chip())
    candidate = weigh(device, SHAPE, WORKLOAD, LimitSettings(), **COUNTS)
    assert candidate.comparison.student.how == "predicted"
    finished = weigh_finished(device, SHAPE, WORKLOAD, **COUNTS)
    assert finished.comparison == replace(COMPARISON, predicted=candidate.comparison.student)
    limits = LimitSettings(latency_ms=5.0)  # 3 ms predicted at most, 6 ms measured
    assert not is_over(violations(limits, candidate))
    assert cost_metrics(limits, finished)["violations"] == {"latency_ms": pytest.approx(0.2)}
    assert compare_finished(Chip(), SHAPE, WORKLOAD) == COMPARISON


def test_in_8_bits_a_predicted_student_has_a_file_once_it_is_finished(predicting):
    chip = Chip(comparison=FILE)
    in_8_bits = replace(WORKLOAD, precision="int8")
    device = predicting(chip)
    assert weigh(device, SHAPE, in_8_bits, LimitSettings(), **COUNTS).size_mb == 1.0
    finished = cost_metrics(
        LimitSettings(size_mb=1.2), weigh_finished(device, SHAPE, in_8_bits, **COUNTS)
    )
    assert (finished["size_mb"], finished["file_mb"]) == (1.5, 1.5)
    assert finished["within_limit"] is False


@pytest.mark.parametrize(
    "error",
    [DeviceError("no"), OSError(12, "no"), RuntimeError("no"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
def test_no_finished_student_is_lost_where_its_memory_cannot_be_measured(error):
    weighed = weigh_finished(Chip(error), SHAPE, WORKLOAD, **COUNTS)
    free = cost_metrics(LimitSettings(latency_ms=9.0), weighed)
    assert "memory_mb" not in free
    assert free["within_limit"] is True
    limited = cost_metrics(LimitSettings(memory_mb=60.0, latency_ms=9.0), weighed)
    assert limited["violations"] == {"latency_ms": pytest.approx(-1 / 3)}
    assert limited["within_limit"] is False  # nobody knows
