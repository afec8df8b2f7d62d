import pytest
import torch

from stillhouse.device.latency import Comparison, Workload, told
from stillhouse.errors import DeviceError, TrainingError
from stillhouse.recipe import candidates
from stillhouse.recipe.candidates import describe_trial, judge_candidate, screen_candidate
from stillhouse.run.device_settings import LimitSettings
from stillhouse.search.trial import CandidateFailed, Trial, TrialState
from stillhouse.space.architecture import BertArchitecture

SHAPE = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=64)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TrainingError("gradient is not finite at step 3"), "gradient is not finite at step 3"),
        (
            RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes\nat x"
            ),
            "out of memory: [enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory: CUDA out of memory."),
        (MemoryError("Unable to allocate 9 GiB"), "out of memory: Unable to allocate 9 GiB"),
        (MemoryError(), "out of memory: MemoryError"),
    ],
)
def test_what_fails_a_candidate(monkeypatch, error, reason):
    def judge(*_):
        raise error

    monkeypatch.setattr(candidates, "_judge", judge)
    with pytest.raises(CandidateFailed) as caught:
        judge_candidate(None, 0, SHAPE)
    assert caught.value.reason == reason


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyboardInterrupt(), OSError(28)])
def test_what_is_no_fault_of_the_candidate_passes_through(monkeypatch, error):
    def judge(*_):
        raise error

    monkeypatch.setattr(candidates, "_judge", judge)
    with pytest.raises(type(error)) as caught:
        judge_candidate(None, 0, SHAPE)
    assert caught.value is error


def test_a_device_that_cannot_tell_fails_the_candidate(bench):
    class Blind:
        name = "blind"

        def compare(self, architecture, workload):
            raise DeviceError("no row")

    with pytest.raises(CandidateFailed, match="no row"):
        screen_candidate(
            bench(device=Blind(), workload=Workload(length=16)), LimitSettings(), SHAPE
        )


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"state": TrialState.COMPLETE, "quality": 0.81234, "latency_ms": 1.5},
            "Trial 7 complete: 1 × 32, 1 head, FFN 64, gelu: quality 0.8123, 1.50 ms",
        ),
        (
            {"state": TrialState.INFEASIBLE, "latency_ms": 9.0},
            "Trial 7 infeasible: 1 × 32, 1 head, FFN 64, gelu: not trained, 9.00 ms",
        ),
        (
            {"state": TrialState.FAILED},
            "Trial 7 failed: 1 × 32, 1 head, FFN 64, gelu: not trained",
        ),
        (
            {
                "state": TrialState.STOPPED,
                "latency_ms": 9.0,
                "attributes": {"rung_qualities": [0.1, 0.25]},
            },
            "Trial 7 stopped: 1 × 32, 1 head, FFN 64, gelu: quality 0.2500 at rung 2, 9.00 ms",
        ),
    ],
)
def test_a_line_for_a_person(fields, line):
    assert describe_trial(Trial(number=7, architecture=SHAPE, **fields)) == line


def test_what_is_recorded_before_training_is_what_limits_and_objectives_ask_for(bench):
    class Clock:
        def compare(self, architecture, workload):
            student, teacher = (
                told(ms, how="table", device="board", workload=workload) for ms in (2.0, 8.0)
            )
            return Comparison(student=student, teacher=teacher, file_mb=0.3)

        def peak_memory_mb(self, architecture, workload):
            return 12.5

    made = bench(device=Clock(), workload=Workload(length=16))
    found = screen_candidate(made, LimitSettings(size_mb=1.0, latency_ms=4.0), SHAPE)
    whole = screen_candidate(made, LimitSettings(), made.teacher_architecture)
    facts = found.attributes
    assert found.latency_ms == 2.0
    assert facts["file_mb"] == 0.3
    assert "memory_mb" not in facts  # takes seconds, and no limit asks for it
    limited = screen_candidate(made, LimitSettings(memory_mb=10.0), SHAPE)
    assert limited.attributes["memory_mb"] == 12.5
    assert limited.violations == {"memory_mb": 0.25}
    assert (facts["speedup"], facts["teacher_latency_ms"]) == (4.0, 8.0)
    assert facts["size_mb"] == pytest.approx(4 * facts["parameters"] / 1e6)
    assert 0 < facts["flops_fraction"] < 1 == whole.attributes["flops_fraction"]
    assert found.violations == {
        "latency_ms": -0.5,
        "size_mb": pytest.approx(facts["size_mb"] - 1),
    }
