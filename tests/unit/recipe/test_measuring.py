import json
from dataclasses import replace

import pytest
from transformers import AutoConfig

from stillhouse.device import measured
from stillhouse.device.latency import Workload
from stillhouse.device.runtimes import OnnxRuntime, TorchRuntime
from stillhouse.device.stopwatch import Timing
from stillhouse.errors import DeviceError, SettingsError, TeacherError
from stillhouse.recipe import measuring
from stillhouse.recipe.measuring import MeasureSettings, measure_checkpoint
from stillhouse.run.progress import LoggingNarrator

QUICK = MeasureSettings(devices=("cpu",), lengths=(8,), threads=1, has_memory=False, longest_s=0.0)


def measure(folder, settings, against=None, on_row=lambda _: None):
    name = None if against is None else str(against)
    return measure_checkpoint(str(folder), name, settings, LoggingNarrator(), on_row)


@pytest.fixture
def clock(monkeypatch):
    """Times by hand: first the model's, 2 ms, then the teacher's, 10 ms; gives what was timed."""
    timed = []

    def time_in_turn(passes, *, longest_s):
        for one in passes:
            one()
        timed.append(len(passes))
        times_ms = ((2.0,) * 20, (10.0,) * 20)[: len(passes)]
        return Timing(times_ms=times_ms, noise_fraction=0.12, attempts=3)

    monkeypatch.setattr(measured, "time_in_turn", time_in_turn)
    monkeypatch.setattr(measuring, "time_in_turn", time_in_turn)
    return timed


def test_a_model_alone_is_timed_alone(weather_teacher_folder, clock):
    settings = replace(QUICK, batches=(1, 4), lengths=(8, 16))
    found = measure(weather_teacher_folder, settings)
    assert clock == [1] * 4
    assert [(row.workload.batch, row.workload.length) for row in found.rows] == [
        (1, 8),
        (1, 16),
        (4, 8),
        (4, 16),
    ]
    assert [row.examples_per_s for row in found.rows] == [500, 500, 2_000, 2_000]
    assert {row.speedup for row in found.rows} == {None}
    assert found.chains == ()
    assert found.rows[0].latency.workload == Workload(length=8, batch=1, threads=1)


def test_beside_a_teacher_both_are_timed_in_turn(
    weather_teacher_folder, weather_encoder_folder, clock
):
    found = measure(weather_encoder_folder, QUICK, against=weather_teacher_folder)
    assert clock == [2]  # the whole chain is the same pair again, and not timed again
    [row], [chain] = found.rows, found.chains
    assert (row.latency.median_ms, row.teacher.median_ms, row.speedup) == (2, 10, 5)
    assert chain.row == row
    assert (row.is_noisy, row.attempts) == (True, 3)


@pytest.mark.slow
def test_sizes_are_those_of_the_weights_and_of_the_file(
    weather_teacher_folder, weather_teacher, clock
):
    pytest.importorskip("onnxruntime")
    weights_mb = sum(weight.numel() * 4 for weight in weather_teacher.parameters()) / 1e6
    settings = replace(QUICK, devices=("cpu", "onnxruntime-cpu"), precisions=("float32", "int8"))
    found = measure(weather_teacher_folder, settings, against=weather_teacher_folder)
    plain, refused, file, small = found.rows
    assert plain.size_mb == pytest.approx(weights_mb)
    assert weights_mb < file.size_mb < weights_mb + 0.3
    assert small.size_mb < file.size_mb
    assert "cpu has no int8: take float32 or bfloat16" in refused.problem
    assert [chain.row.latency is None for chain in found.chains] == [False, True, False, False]
    last = found.chains[-1]
    assert last.smaller == pytest.approx(weights_mb / small.size_mb)
    assert last.row.teacher.device == TorchRuntime(weather_teacher.device).name
    assert last.row.teacher.workload.precision == "float32"
    assert last.row.latency.device == OnnxRuntime().name
    assert last.row.latency.workload.precision == "int8"


def test_what_is_known_is_told_after_every_row(weather_teacher_folder, clock):
    told = []
    settings = replace(QUICK, batches=(1, 2))
    found = measure(
        weather_teacher_folder, settings, against=weather_teacher_folder, on_row=told.append
    )
    assert [(len(one.rows), len(one.chains)) for one in told] == [(1, 0), (2, 0), (2, 1)]
    assert told[-1] == found
    data = json.loads(json.dumps(found.to_dict()))
    assert data["model"] == data["against"] == str(weather_teacher_folder)
    assert data["rows"][1]["workload"]["batch"] == 2
    assert data["rows"][1]["latency"]["median_ms"] == 2
    assert data["rows"][1]["noise_fraction"] == 0.12
    assert data["rows"][1]["speedup"] == 5
    assert data["rows"][1]["examples_per_s"] == 1_000
    assert data["rows"][1]["peak_memory_mb"] is None
    assert data["whole_chain"][0]["smaller"] == 1


@pytest.mark.slow
def test_real_times_and_memory_in_two_runtimes(weather_teacher_folder):
    pytest.importorskip("onnxruntime")
    settings = replace(QUICK, devices=("cpu", "onnxruntime-cpu"), has_memory=True)
    found = measure(weather_teacher_folder, settings, against=weather_teacher_folder)
    assert [row.device for row in found.rows] == ["cpu", "onnxruntime-cpu"]
    for row in (*found.rows, *(chain.row for chain in found.chains)):
        assert not row.problem
        assert row.latency.runs == row.teacher.runs == 20
        assert 0 < row.latency.median_ms < 1_000
        assert row.size_mb / 2 < row.peak_memory_mb < 500


def test_memory_that_cannot_be_told_loses_no_time(weather_teacher_folder, clock, monkeypatch):
    def fail(*_):
        raise DeviceError("the process was ended")

    monkeypatch.setattr(TorchRuntime, "peak_memory_mb", fail)
    [row] = measure(weather_teacher_folder, replace(QUICK, has_memory=True)).rows
    assert (row.latency.median_ms, row.peak_memory_mb) == (2, None)
    assert row.memory_problem == "the process was ended"


def test_a_row_that_fails_tells_why_and_the_next_is_measured(
    weather_teacher_folder, clock, monkeypatch
):
    original = TorchRuntime.load

    def load(self, model, workload):
        if workload.batch == 2:
            raise DeviceError("no room")
        return original(self, model, workload)

    monkeypatch.setattr(TorchRuntime, "load", load)
    settings = replace(QUICK, batches=(1, 2, 4))
    found = measure(weather_teacher_folder, settings, against=weather_teacher_folder)
    assert [row.problem for row in found.rows] == ["", "no room", ""]
    assert found.rows[1].latency is None


def test_one_length_too_many_is_a_row_and_only_such_are_refused(weather_teacher_folder, clock):
    settings = replace(QUICK, lengths=(8, 33))
    reason = "length 33 is above the 32 tokens that can be read"
    assert [row.problem for row in measure(weather_teacher_folder, settings).rows] == ["", reason]
    with pytest.raises(DeviceError, match=f"^nothing of this can be measured: {reason}$"):
        measure(weather_teacher_folder, replace(QUICK, lengths=(33,), batches=(1, 2)))


def test_without_a_length_it_is_what_the_model_can_read_and_128_at_most(
    weather_teacher_folder, weather_tokenizer, tmp_path, clock
):
    [row] = measure(weather_teacher_folder, replace(QUICK, lengths=())).rows
    assert row.workload.length == 32
    from transformers import BertConfig, BertModel  # noqa: PLC0415  only here

    config = AutoConfig.from_pretrained(weather_teacher_folder).to_dict()
    BertModel(BertConfig(**{**config, "max_position_embeddings": 200})).save_pretrained(tmp_path)
    weather_tokenizer.save_pretrained(tmp_path)
    [row] = measure(tmp_path, replace(QUICK, lengths=())).rows
    assert row.workload.length == 128


def test_what_no_device_has_is_refused_before_a_checkpoint_is_read():
    settings = replace(QUICK, devices=("cpu", "compiled-cpu"), precisions=("int8",))
    reasons = "cpu has no int8: .* compiled-cpu has no int8: take float32 or bfloat16"
    with pytest.raises(DeviceError, match=reasons):
        measure("no-such-checkpoint", settings)
    with pytest.raises(TeacherError, match="no-such-checkpoint"):
        measure("no-such-checkpoint", QUICK)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"devices": ("onnxruntim-cpu",)}, "did you mean 'onnxruntime-cpu'"),
        ({"devices": ("tpu-v4i",)}, "tpu-v4i', which tells latencies of what does not run here"),
        ({"devices": ("board.csv",)}, "board.csv', which tells latencies"),
        ({"precisions": ("int9",)}, "float32, bfloat16, int8, int8-static, got 'int9': did you"),
        ({"batches": (1, 0)}, "--batch must be at least 1, got 0"),
        ({"lengths": (-3,)}, "--length must be at least 1, got -3"),
        ({"threads": 0}, "--threads must be at least 1, got 0"),
        ({"padding_fraction": 1.0}, "--padding must be at least 0 and below 1, got 1.0"),
        ({"longest_s": -1.0}, "--seconds must be finite and not negative, got -1"),
        ({"longest_s": float("nan")}, "--seconds must be finite and not negative, got nan"),
    ],
)
def test_impossible_settings_are_refused(changes, told):
    with pytest.raises(SettingsError, match=told):
        replace(QUICK, **changes)


def test_auto_is_settled_and_a_device_counts_once(monkeypatch):
    monkeypatch.setattr(measuring, "default_kind", lambda: "cpu")
    assert replace(QUICK, devices=("auto", "onnxruntime-cpu", "cpu")).kinds == (
        "cpu",
        "onnxruntime-cpu",
    )


def test_threads_and_padding_are_those_asked_for(weather_teacher_folder, clock, monkeypatch):
    seen = []
    original = TorchRuntime.load

    def load(self, model, workload):
        seen.append((workload.threads, workload.padding_fraction))
        return original(self, model, workload)

    monkeypatch.setattr(TorchRuntime, "load", load)
    measure(weather_teacher_folder, replace(QUICK, threads=2, padding_fraction=0.5))
    assert seen == [(2, 0.5)]
