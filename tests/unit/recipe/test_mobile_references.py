import json
from types import SimpleNamespace

import pytest

from stillhouse.errors import DeviceError
from stillhouse.recipe import mobile_references
from stillhouse.recipe.mobile_references import judge_references
from stillhouse.run.directory import RunDirectory
from stillhouse.run.settings import settings_from_dict
from stillhouse.search.loop import Judgement
from stillhouse.search.trial import CandidateFailed
from stillhouse.space.architecture import BertArchitecture

COSTS = {
    "latency_ms": 2.0,
    "latency_low_ms": 1.9,
    "latency_high_ms": 2.1,
    "latency_how": "measured",
    "latency_runs": 30,
    "speedup": 3.0,
    "parameters": 1_000,
    "size_mb": 0.004,
    "flops_fraction": 0.2,
    "within_limit": False,
}


@pytest.fixture
def nursery(talk, tmp_path):
    """As much of a nursery as judging asks for."""
    return SimpleNamespace(
        run=RunDirectory(path=tmp_path),
        narrator=talk,
        settings=settings_from_dict({"recipe": "autodistill"}),
        teacher_architecture=BertArchitecture(layers=2, hidden_size=32, heads=2, ffn_size=64),
    )


@pytest.fixture
def judged(monkeypatch):
    """Names that were flash distilled, of a training that tells their number as the quality."""
    names = []

    def flash_distil(_nursery, name, _architecture, *, deadline):
        names.append(name)
        return Judgement(quality=float(len(names)), attributes={"flash_steps": 4})

    monkeypatch.setattr(mobile_references, "costs", lambda *_: dict(COSTS))
    monkeypatch.setattr(mobile_references, "flash_distil", flash_distil)
    return names


def read(nursery):
    return json.loads((nursery.run.path / "references.json").read_text(encoding="utf-8"))


def names_of(points):
    return [one["name"] for one in points]


def test_each_reference_is_kept_with_quality_and_costs(nursery, judged):
    judge_references(nursery)
    first, second = read(nursery)["points"]

    assert judged == ["reference-MobileBERT", "reference-MobileBERT-tiny"]
    assert (first["quality"], second["quality"]) == (1.0, 2.0)
    assert (first["latency_ms"], first["speedup"], first["within_limit"]) == (2.0, 3.0, False)
    assert second["architecture"]["attention"] == "bottleneck"
    assert "MobileBERT-tiny (" in nursery.narrator.said[1]


def test_what_was_judged_is_not_judged_again(nursery, judged, monkeypatch):
    finished = mobile_references.flash_distil

    def stopped(_nursery, name, *given, **named):
        if name == "reference-MobileBERT-tiny":
            raise KeyboardInterrupt
        return finished(_nursery, name, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(mobile_references, "flash_distil", stopped)
        with pytest.raises(KeyboardInterrupt):
            judge_references(nursery)
    assert names_of(read(nursery)["points"]) == ["MobileBERT"]

    judge_references(nursery)
    judge_references(nursery)

    assert judged == ["reference-MobileBERT", "reference-MobileBERT-tiny"]
    assert names_of(read(nursery)["points"]) == ["MobileBERT", "MobileBERT-tiny"]


@pytest.mark.parametrize(
    ("part", "error"),
    [("costs", DeviceError("no such row")), ("flash_distil", CandidateFailed("out of memory"))],
)
def test_what_cannot_be_judged_is_told_once_and_left_out(nursery, judged, monkeypatch, part, error):
    real = getattr(mobile_references, part)
    calls = []

    def failing(*given, **named):
        calls.append(given)
        if len(calls) == 1:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(mobile_references, part, failing)
    judge_references(nursery)
    judge_references(nursery)
    told = read(nursery)

    assert told["left_out"] == [{"name": "MobileBERT", "reason": str(error)}]
    assert names_of(told["points"]) == ["MobileBERT-tiny"]
    assert len(calls) == 2
    assert f"MobileBERT is left out of the comparison: {error}" in nursery.narrator.said[0]
