"""Candidates that fail are recorded with their reason, and the search goes on."""

import pytest

import stillhouse
from stillhouse.distill.loop import train
from stillhouse.errors import RunError, TrainingError
from stillhouse.recipe import candidates
from stillhouse.search.trial import CandidateFailed, TrialState

ERRORS = [
    CandidateFailed("made up"),
    TrainingError("gradient is not finite at step 3"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    MemoryError(),
]


@pytest.fixture
def search(weather_teacher, weather_tokenizer, weather_dataset, table_settings, tmp_path):
    def run(candidates, **changes):
        settings = {**table_settings, "search": {"epochs": 1.0, **changes}}
        return stillhouse.search(
            teacher=weather_teacher,
            tokenizer=weather_tokenizer,
            task=weather_dataset,
            text=("text",),
            label="label",
            limit={"latency_ms": 1.5},
            candidates=candidates,
            settings=settings,
            run=tmp_path / "run",
        )

    return run


def test_the_search_goes_on_after_failures(search, monkeypatch):
    pending = list(ERRORS)

    def stumbling(*arguments, **options):
        if pending:
            raise pending.pop(0)
        return train(*arguments, **options)

    monkeypatch.setattr(candidates, "train", stumbling)
    result = search(candidates=len(ERRORS) + 2)
    fresh = [trial for trial in result.trials if trial.repeat_of is None]
    failed = [trial for trial in fresh if trial.state is TrialState.FAILED]
    assert [trial.reason for trial in failed] == [
        "made up",
        "gradient is not finite at step 3",
        "out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
        "out of memory: MemoryError",
    ]
    assert all(trial.latency_ms is not None for trial in failed)
    assert [trial.state for trial in fresh].count(TrialState.COMPLETE) == 2
    assert len(result.students) in (1, 2)
    assert "can&#39;t allocate memory" in result.report.read_text(encoding="utf-8")


def test_a_search_in_which_everything_fails_says_why(search):
    with pytest.raises(RunError, match=r"no candidate could be trained \(2 failed\).*out of time"):
        search(candidates=2, candidate_seconds=1e-9)


def test_our_own_mistakes_are_no_failed_candidates(search, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(candidates, "train", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        search(candidates=2)
    monkeypatch.undo()
    result = search(candidates=2)  # the trial that was running is continued
    assert [trial.state for trial in result.trials].count(TrialState.COMPLETE) == 2
