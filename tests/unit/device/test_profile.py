"""Profiles are the same after a file, and hold for nothing but what they were measured for."""

import json
from dataclasses import replace

import numpy as np
import pytest

from stillhouse.device.features import FEATURES
from stillhouse.device.predictor import Choice
from stillhouse.device.profile import read_architecture, read_profile
from stillhouse.errors import DeviceError, SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.mobilebert import MobileBertArchitecture


@pytest.fixture
def path(profile, tmp_path):
    path = tmp_path / "latency.json"
    profile.write(path)
    return path


@pytest.mark.parametrize("kind", ["linear", "sum", "process"])
def test_a_file_gives_the_same_predictions(profile, tmp_path, kind):
    kept = replace(profile, choice=Choice(kind=kind, ridge=0.03))
    kept.write(tmp_path / "latency.json")
    found = read_profile(tmp_path / "latency.json")
    assert found == kept
    features = np.array([row.features for row in profile.rows]) * 1.1
    before, after = (one.predictor().predict(features) for one in (kept, found))
    assert before.latency_ms.tolist() == after.latency_ms.tolist()
    assert before.standard_error_ms.tolist() == after.standard_error_ms.tolist()


def test_a_profile_predicts_what_was_not_measured(path, profiled_shapes, features_told, work_ms):
    found = read_profile(path)
    unseen = profiled_shapes[1::2]
    told = found.predictor().predict(features_told(unseen)).latency_ms
    assert told == pytest.approx([work_ms(one) for one in unseen], rel=0.05)
    assert found.errors.count == 24
    assert 0.01 < found.errors.mape_fraction < 0.05


def test_the_file_is_plain_and_keeps_what_was_measured(path, profile):
    data = json.loads(path.read_text())
    assert data["subject"]["fingerprint"]["device"] == "EPYC 9654, PyTorch 2.13.0"
    assert data["subject"]["fingerprint"]["workload"]["threads"] == 1
    assert data["subject"]["seed"] == 3
    assert [row["latency_ms"] for row in data["rows"]] == [row.latency_ms for row in profile.rows]
    assert tuple(data["columns"]) == FEATURES
    reference = read_profile(path).reference_architecture()
    assert reference.key == data["rows"][5]["architecture"]


@pytest.mark.parametrize(
    "change",
    [
        {"device": "Xeon, PyTorch 2.13.0"},
        {"device": "EPYC 9654, PyTorch 2.14.0"},
        {"length": 128},
        {"batch": 8},
        {"threads": 2},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_another_machine_or_workload_is_refused_with_both_named(path, change):
    here = read_profile(path).subject.fingerprint
    if "device" in change:
        other = replace(here, **change)
    else:
        other = replace(here, workload=replace(here.workload, **change))
    read_profile(path).check_holds_for(here, path)
    with pytest.raises(DeviceError) as caught:
        read_profile(path).check_holds_for(other, path)
    assert here.label in str(caught.value)
    assert other.label in str(caught.value)


def test_other_features_are_refused(profile, tmp_path):
    replace(profile, columns=("width", *FEATURES[1:])).write(tmp_path / "other.json")
    with pytest.raises(DeviceError, match=f"other features .*{FEATURES[0]}, width"):
        read_profile(tmp_path / "other.json")
    replace(profile, columns=FEATURES[::-1]).write(tmp_path / "order.json")
    with pytest.raises(DeviceError, match=r"other features .*in another order"):
        read_profile(tmp_path / "order.json")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"unknown": 1},
        {"columns": ["width"]},
        {"choice": {"kind": "forest", "ridge": 1.0}},
        {"rows": [{"architecture": "a", "latency_ms": "fast", "features": []}]},
        {"subject": {"kind": "abacus"}},
    ],
    ids=str,
)
def test_a_damaged_file_is_refused(path, change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DeviceError, match="is damaged or none; measure again"):
        read_profile(path)


def test_a_file_that_is_cut_off_or_missing_is_refused(path):
    path.write_text(path.read_text()[:200])
    with pytest.raises(DeviceError, match="is damaged or none"):
        read_profile(path)
    with pytest.raises(DeviceError, match="cannot be read"):
        read_profile(path.with_name("none.json"))


@pytest.mark.parametrize(
    "shape",
    [
        BertArchitecture(layers=2, hidden_size=32, heads=2, head_size=8, ffn_size=64),
        ChainArchitecture(
            embedding_size=16,
            blocks=(ChainBlock(hidden_size=16, operations=("M", "S3")),),
            head_size=8,
        ),
        MobileBertArchitecture(
            layers=2,
            hidden_size=32,
            bottleneck_size=8,
            heads=2,
            ffn_size=32,
            ffn_count=2,
            embedding_size=16,
        ),
    ],
    ids=lambda shape: shape.family,
)
def test_every_family_is_read_from_plain_data(shape):
    assert read_architecture(json.loads(json.dumps(shape.to_dict()))) == shape


def test_what_is_no_architecture_is_refused():
    with pytest.raises(SpaceError, match="family must be one of"):
        read_architecture({"family": "forest"})
