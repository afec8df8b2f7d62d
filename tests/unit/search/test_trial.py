import pytest

from stillhouse.errors import StillhouseError
from stillhouse.search.trial import CandidateFailed, TrialState


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["quality", "latency_ms"])
def test_complete_trials_have_finite_outcomes(make_trial, name, value):
    with pytest.raises(ValueError, match="finite quality and latency"):
        make_trial(**{name: value})


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.INFEASIBLE, TrialState.FAILED])
def test_other_trials_need_none(make_trial, state):
    trial = make_trial(state=state)
    assert trial.quality is None
    assert trial.is_finished == (state != "running")


def test_over_limit_means_strictly_above_one_limit(make_trial):
    assert not make_trial().is_over_limit
    assert not make_trial(violations={"latency_ms": 0.0, "size_mb": -0.5}).is_over_limit
    assert make_trial(violations={"latency_ms": 0.01, "size_mb": -0.5}).is_over_limit


def test_candidate_failed_keeps_its_reason():
    error = CandidateFailed("the loss became NaN")
    assert error.reason == str(error) == "the loss became NaN"
    assert isinstance(error, StillhouseError)
