from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stillhouse.data.encoding import EncodedSet
from stillhouse.device.latency import Workload
from stillhouse.errors import DataError, DeviceError, SettingsError
from stillhouse.recipe import workbench
from stillhouse.recipe.workbench import (
    at_least,
    resolve_device,
    resolve_device_kind,
    resolve_workload,
)
from stillhouse.run.device_settings import DeviceSettings


def encoded(count, labels=None):
    """Example i holds the one token i."""
    tokens = np.arange(count, dtype=np.int32)
    return EncodedSet(
        input_ids=tokens,
        token_type_ids=np.zeros(count, np.int8),
        offsets=np.arange(count + 1, dtype=np.int64),
        labels=labels,
    )


@pytest.mark.parametrize("wanted", [1, 10, 49])
def test_the_proxy_set_is_a_fixed_part_of_the_examples(bench, wanted):
    def proxy(seed):
        data = SimpleNamespace(transfer=encoded(50))
        made = bench({"search": {"proxy_examples": wanted}, "seed": seed}, data=data)
        return made.proxy.input_ids.tolist()

    assert proxy(0) == proxy(0) == sorted(set(proxy(0)))
    assert len(proxy(0)) == wanted
    assert any(proxy(seed) != proxy(0) for seed in range(1, 9))


def test_few_examples_are_all_in_the_proxy_set(bench):
    data = SimpleNamespace(transfer=encoded(50))
    assert bench({"search": {"proxy_examples": 50}}, data=data).proxy is data.transfer


def test_every_class_is_in_the_proxy_set_or_it_is_refused(bench):
    labels = np.array([0] * 40 + [1] * 4 + [2] + [-100] * 5)
    data = SimpleNamespace(transfer=encoded(50, labels))
    task = SimpleNamespace(label_names=("a", "b", "c"))
    for seed in range(5):
        settings = {"search": {"proxy_examples": 10}, "seed": seed}
        proxy = bench(settings, data=data, task=task).proxy
        assert np.bincount(proxy.labels[proxy.labels >= 0]).tolist() == [7, 1, 1]
    with pytest.raises(DataError, match=r"no example of class '.'.*proxy_examples to at least 3"):
        _ = bench({"search": {"proxy_examples": 2}}, data=data, task=task).proxy


def test_the_workload_follows_the_task_unless_set():
    lengths = np.array([10] * 95 + [100] * 5)
    open_ = resolve_workload(DeviceSettings(), lengths, "cpu")
    assert open_ == Workload(length=16, batch=1, threads=torch.get_num_threads())
    given = DeviceSettings(length=40, batch=3, threads=5, precision="bfloat16")
    assert resolve_workload(given, lengths, "cpu") == Workload(
        length=40, batch=3, threads=5, precision="bfloat16"
    )
    assert resolve_workload(given, lengths, "cuda").threads == 0


@pytest.mark.parametrize(
    ("kind", "has_cuda", "resolved"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_kind_of_device(monkeypatch, kind, has_cuda, resolved):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert resolve_device_kind(DeviceSettings(kind=kind)) == resolved


def test_cuda_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="no CUDA device is visible"):
        resolve_device_kind(DeviceSettings(kind="cuda"))


def test_a_table_is_a_device(weather_table):
    settings = DeviceSettings(kind="table", table=str(weather_table))
    device = resolve_device(settings, "table", teacher=None, build=None)
    assert device.name == "weather-chip"


def test_a_chip_is_a_device(bench):
    settings = DeviceSettings(kind="analytic", chip="tpu-v4i")
    teacher = bench(layers=2, width=64).teacher
    whole, bare = (
        resolve_device(settings, "analytic", teacher=teacher, build=None, bare=bare)
        for bare in (False, True)
    )
    assert whole.name == "TPUv4i (analytic)"
    assert (whole.ends.labels, bare.ends.labels) == (2, 0)
    assert whole.positions == 128


@pytest.mark.parametrize(
    ("chip", "threads", "resolved"),
    [("tpu-v4i", None, 0), ("h100", None, 0), ("phone-cpu", None, 4), ("phone-cpu", 3, 3)],
)
def test_threads_and_precision_follow_the_chip(chip, threads, resolved):
    settings = DeviceSettings(kind="analytic", chip=chip, threads=threads, length=40)
    workload = resolve_workload(settings, np.array([40]), "analytic")
    assert workload.threads == resolved
    own = {"tpu-v4i": "bfloat16", "h100": "bfloat16", "phone-cpu": "float32"}
    assert workload.precision == own[chip]


def test_a_profile_has_its_own_workload(profile_file):
    settings = DeviceSettings(kind="predicted", profile=profile_file(batch=2, threads=3))
    for lengths in (np.array([10]), np.array([300])):
        found = resolve_workload(settings, lengths, "predicted")
        assert found == Workload(length=16, batch=2, threads=3)
    assert resolve_device_kind(settings) == "predicted"


def test_a_profile_is_a_device_of_the_machine_that_it_is_from(profile_file, bench):
    teacher = bench(layers=2, width=64).teacher
    here = DeviceSettings(kind="predicted", profile=profile_file(is_of_this_machine=True))
    device = resolve_device(here, "predicted", teacher=teacher, build=None)
    assert "predicted from 24 measurements" in device.name
    elsewhere = DeviceSettings(kind="predicted", profile=profile_file())
    with pytest.raises(DeviceError, match=r"profile\.json is for EPYC 9654, PyTorch 2\.13\.0"):
        resolve_device(elsewhere, "predicted", teacher=teacher, build=None)


def test_a_profile_of_what_cannot_be_used_here_is_refused(profile_file, monkeypatch):
    monkeypatch.setattr(workbench, "why_unusable", {"cpu": "it is gone"}.get)
    with pytest.raises(SettingsError, match=r"device\.kind cpu: it is gone"):
        resolve_device_kind(DeviceSettings(kind="predicted", profile=profile_file()))


def test_parameters_and_flops_of_the_teachers_shape(bench):
    made = bench(layers=2, width=64, workload=Workload(length=16))
    shape = made.teacher_architecture
    assert (shape.layers, shape.hidden_size, shape.heads, shape.ffn_size) == (2, 64, 2, 256)
    counts = made.counts(shape)
    # Words, positions, two token types and a norm.
    assert counts.embeddings == 64 * (30_000 + 128 + 2) + 2 * 64
    # A layer: 4 x 16 x 64² projections, 2 x 16² x 64 attention, 2 x 16 x 64 x 256 feed-forward.
    layer = 4 * 16 * 64**2 + 2 * 16**2 * 64 + 2 * 16 * 64 * 256
    assert made.flops(shape) == 2 * (2 * layer + 64 * 64 + 64 * 2)


def test_short_examples_are_left_out():
    lengths = [3, 9, 4, 9, 2]
    examples = EncodedSet(
        input_ids=np.arange(sum(lengths), dtype=np.int32),
        token_type_ids=np.zeros(sum(lengths), np.int8),
        offsets=np.cumsum([0, *lengths]),
        labels=np.array([0, 1, 0, -100, 1]),
    )
    assert at_least(examples, 2, "ab") is examples
    kept = at_least(examples, 4, "ab")
    assert kept.lengths.tolist() == [9, 4, 9]
    assert kept.labels.tolist() == [1, 0, -100]
    with pytest.raises(DataError, match="min_length 5 leaves no example of class 'a'; lower it"):
        at_least(examples, 5, "ab")
    with pytest.raises(DataError, match="leaves no example: the longest has 9 tokens"):
        at_least(examples, 10, "ab")


@pytest.mark.parametrize(
    ("search", "final", "expected"),
    [
        ({"proxy_examples": 25}, 3, 1),
        ({"proxy_examples": 50}, 3, 1),
        ({"proxy_examples": 100}, 3, 2),
        ({"proxy_examples": 1000}, 3, 3),
        ({"proxy_examples": 75, "epochs": 2}, 9, 3),
        ({"proxy_examples": 75, "epochs": 2}, 1, 2),
    ],
)
def test_a_small_training_set_is_passed_over_more_often(bench, search, final, expected):
    settings = {"search": search, "final": {"epochs": final}}
    assert bench(settings, data=SimpleNamespace(transfer=encoded(50))).proxy_epochs == expected
