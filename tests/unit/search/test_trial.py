import pytest

from stillhouse.errors import StillhouseError
from stillhouse.search.trial import CandidateFailed, CandidateStopped, TrialState


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


def test_a_stopped_trial_has_a_latency_and_scores_but_no_quality(make_trial):
    trial = make_trial(
        state=TrialState.STOPPED, latency_ms=2.0, attributes={"rung_qualities": [0.1, 0.4]}
    )
    assert trial.rung_qualities == (0.1, 0.4)
    assert trial.quality is None
    assert trial.is_finished
    assert make_trial().rung_qualities == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"latency_ms": 2.0},
        {"latency_ms": 2.0, "attributes": {"rung_qualities": []}},
        {"attributes": {"rung_qualities": [0.1]}},
    ],
)
def test_a_stopped_trial_without_them_is_refused(make_trial, fields):
    with pytest.raises(ValueError, match="needs rung_qualities and latency"):
        make_trial(state=TrialState.STOPPED, **fields)


def test_over_limit_means_strictly_above_one_limit(make_trial):
    assert not make_trial().is_over_limit
    assert not make_trial(violations={"latency_ms": 0.0, "size_mb": -0.5}).is_over_limit
    assert make_trial(violations={"latency_ms": 0.01, "size_mb": -0.5}).is_over_limit


def test_candidate_failed_keeps_its_reason():
    error = CandidateFailed("the loss became NaN")
    assert error.reason == str(error) == "the loss became NaN"
    assert isinstance(error, StillhouseError)


def test_candidate_stopped_keeps_what_is_recorded():
    error = CandidateStopped("number 3 of 3", {"rung_qualities": [0.1]})
    assert error.reason == str(error) == "number 3 of 3"
    assert error.attributes == {"rung_qualities": [0.1]}
    assert isinstance(error, StillhouseError)
