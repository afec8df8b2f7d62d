"""Profiles are the same after a file, and hold for nothing but what they were measured for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stillhouse.device.latency import Workload
from stillhouse.device.predictor import Choice
from stillhouse.device.profile import Fingerprint, fit_profile, read_profile
from stillhouse.errors import DeviceError

HERE = Fingerprint(
    processor="EPYC 9654", runtime="PyTorch 2.13.0", workload=Workload(length=64, threads=2)
)
COLUMNS = ("width", "depth")
FEATURES = np.random.default_rng(0).uniform(1, 5, size=(24, 2))
LATENCY_MS = 1 / 3 + FEATURES @ np.array([0.1, 1.7])


@pytest.fixture
def profile():
    return fit_profile(HERE, COLUMNS, FEATURES, LATENCY_MS, seed=3)


@pytest.fixture
def path(profile, tmp_path):
    path = tmp_path / "latency.json"
    profile.write(path)
    return path


@pytest.mark.parametrize("kind", ["linear", "sum", "process"])
def test_a_file_gives_the_same_predictions(profile, tmp_path, kind):
    kept = replace(profile, choice=Choice(kind=kind, ridge=0.03))
    kept.write(tmp_path / "latency.json")
    found = read_profile(tmp_path / "latency.json", HERE, COLUMNS)
    assert found == kept
    before, after = (one.predictor().predict(FEATURES + 0.1) for one in (kept, found))
    assert before.latency_ms.tolist() == after.latency_ms.tolist()
    assert before.standard_error_ms.tolist() == after.standard_error_ms.tolist()


def test_a_profile_predicts_what_was_measured(path):
    predictor = read_profile(path, HERE, COLUMNS).predictor()
    told = predictor.predict(np.array([[2.0, 3.0]])).latency_ms[0]
    assert told == pytest.approx(1 / 3 + 0.2 + 5.1, rel=0.01)
    assert predictor.errors.count == 24


def test_the_file_is_plain_and_keeps_what_was_measured(path):
    data = json.loads(path.read_text())
    assert data["fingerprint"]["processor"] == "EPYC 9654"
    assert data["fingerprint"]["workload"]["threads"] == 2
    assert data["latency_ms"] == LATENCY_MS.tolist()
    assert data["seed"] == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, processor="Xeon"),
        replace(HERE, runtime="PyTorch 2.14.0"),
        *(
            replace(HERE, workload=replace(HERE.workload, **change))
            for change in ({"length": 128}, {"batch": 8}, {"threads": 1}, {"precision": "bfloat16"})
        ),
    ],
    ids=lambda other: other.label,
)
def test_another_machine_or_workload_is_refused_with_both_named(path, other):
    with pytest.raises(DeviceError) as caught:
        read_profile(path, other, COLUMNS)
    assert HERE.label in str(caught.value)
    assert other.label in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "named"), [(("width", "heads"), "depth, heads"), (COLUMNS[::-1], "another order")]
)
def test_other_features_are_refused(path, columns, named):
    with pytest.raises(DeviceError, match=f"other features .*{named}"):
        read_profile(path, HERE, columns)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"unknown": 1},
        {"columns": ["width"]},
        {"choice": {"kind": "forest", "ridge": 1.0}},
        {"fingerprint": {"processor": "x", "runtime": "y", "workload": {"length": 0}}},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DeviceError, match="is damaged or none; measure again"):
        read_profile(path, HERE, COLUMNS)


def test_a_file_that_is_cut_off_or_missing_is_refused(path):
    path.write_text(path.read_text()[:200])
    with pytest.raises(DeviceError, match="is damaged or none"):
        read_profile(path, HERE, COLUMNS)
    with pytest.raises(DeviceError, match="cannot be read"):
        read_profile(path.with_name("none.json"), HERE, COLUMNS)
