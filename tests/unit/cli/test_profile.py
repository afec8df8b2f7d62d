import json

import pytest
from transformers import BertConfig

from stillhouse.cli.students import latency_told
from stillhouse.recipe import profiling
from stillhouse.recipe.profile_job import SPACES


class Student:
    def __init__(self, how, high_ms=2.0):
        self.metrics = {
            "latency_how": how,
            "latency_ms": 2.0,
            "latency_high_ms": high_ms,
            "workload_label": "batch 1, length 16",
        }


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A profile of models of a few thousand weights, each timed for an instant."""
    measured = profiling.MeasuredDevice
    monkeypatch.setattr(
        profiling,
        "MeasuredDevice",
        lambda runtime, *, longest_s, **models: measured(runtime, longest_s=0.0, **models),
    )
    BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
    ).save_pretrained(tmp_path / "teacher")
    return [
        "--space", "kd-nas", "--teacher", tmp_path / "teacher", "--device", "cpu",
        "--length", "16", "--threads", "1", "--points", "10", "--out", tmp_path / "kd.json",
    ]  # fmt: skip


def test_a_profile_is_written_and_its_errors_are_told(run_cli, options, tmp_path):
    code, out, err = run_cli("profile", *options)
    assert code == 0, err
    told = " ".join(out.split())
    profile = json.loads((tmp_path / "kd.json").read_text())
    assert len(profile["rows"]) == 10
    assert "10 architectures in" in told
    assert f"± {profile['noise_fraction']:.1%}" in told
    assert f"{profile['errors']['mape_fraction']:.1%}" in told
    assert f"{profile['errors']['p95_fraction']:.1%}" in told
    assert f"{profile['errors']['spearman']:.3f}" in told
    assert "batch 1, length 16, float32, 1 thread" in told
    assert f"--device {tmp_path / 'kd.json'}" in err


def test_ctrl_c_keeps_what_is_measured_and_says_so(run_cli, options, tmp_path, monkeypatch):
    measure, keys = profiling._measured, []

    def stopped(device, architecture, workload):
        if len(keys) == 3:
            raise KeyboardInterrupt
        keys.append(architecture.key)
        return measure(device, architecture, workload)

    monkeypatch.setattr(profiling, "_measured", stopped)
    code, _, err = run_cli("profile", *options)
    file = tmp_path / "kd.json.partial.jsonl"
    assert code == 130
    assert f"kept in {file}; the same command again goes on there" in err
    kept = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    assert [one["architecture"] for one in kept] == keys
    monkeypatch.setattr(profiling, "_measured", measure)
    code, _, err = run_cli("profile", *options)
    assert code == 0
    assert "3 of 10 are measured already." in err
    profile = json.loads((tmp_path / "kd.json").read_text())
    for point, row in zip(kept, profile["rows"], strict=False):
        assert row["architecture"] == point["architecture"]
        assert row["latency_ms"] == pytest.approx(point["ratio"] * profile["reference_ms"])


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--device", "tpu-v4i", "--device must be one that is measured (cpu, cuda, "),
        ("--space", "bert", "--space must be one of default, kd-nas, "),
        ("--points", "5", "--points must be at least 10"),
        ("--precision", "int8", "device.precision must be one of float32, bfloat16"),
        ("--batch", "0", "device.batch must be above 0"),
    ],
)
def test_what_cannot_be_profiled_is_one_message(run_cli, options, option, value, told):
    code, out, err = run_cli("profile", *options, option, value)
    assert (code, out) == (1, "")
    assert told in err


def test_the_help_names_every_space(run_cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = run_cli("profile", "--help")
    assert code == 0
    *all_but_last, last = SPACES
    assert f"{', '.join(all_but_last)} or {last}." in out


@pytest.mark.parametrize(
    ("students", "told"),
    [
        ([Student("measured")], "measured"),
        ([Student("predicted", 2.15)], "predicted to ± 7%"),
        ([Student("predicted", 2.2), Student("measured")] * 2, "predicted to ± 10% and measured"),
    ],
)
def test_a_table_tells_how_latencies_are_known(students, told):
    assert latency_told(students) == f"latency: {told}, batch 1, length 16"
