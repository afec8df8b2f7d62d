import math

import numpy as np
import pytest

from stillhouse.search.halving import Halving, judge_by_rungs, latency_bin, standing
from stillhouse.search.loop import Judgement, Screening, run_search
from stillhouse.search.record import Record
from stillhouse.search.trial import CandidateStopped, TrialState


@pytest.fixture
def judged(make_trial):
    """A trial with scores at its rungs, at so many times the latency of the teacher."""

    def make(number, *qualities, ratio=0.5, **fields):
        state = fields.pop("state", TrialState.STOPPED)
        return make_trial(
            number,
            state,
            latency_ms=8.0 * ratio,
            attributes={"teacher_latency_ms": 8.0, "rung_qualities": list(qualities)},
            **fields,
        )

    return make


def test_budgets_grow_by_the_reduction_up_to_the_whole():
    halving = Halving(rungs=3, reduction=4)
    assert [halving.share(rung) for rung in (1, 2, 3)] == [1 / 16, 1 / 4, 1]
    assert halving.total_share == 1.3125
    assert Halving(rungs=1, reduction=3).total_share == 1


@pytest.mark.parametrize(
    ("ratio", "number"),
    [(1.0, 0), (1.41, 0), (1.42, 1), (2.0, 2), (0.99, -1), (0.5, -2), (0.71, -1), (0.70, -2)],
)
def test_a_bin_spans_a_factor_of_the_root_of_two(judged, ratio, number):
    assert latency_bin(judged(0, 0.1, ratio=ratio)) == number


@pytest.mark.parametrize(
    ("others", "quality", "rank", "places", "goes_on"),
    [
        ([], 0.1, 1, 1, True),
        ([0.9], 0.1, 2, 2, True),  # two scores are fewer than three: all go on
        ([0.9, 0.8], 0.1, 3, 1, False),
        ([0.9, 0.8], 0.95, 1, 1, True),
        ([0.9, 0.8, 0.7, 0.6], 0.85, 2, 1, False),  # a third of five, rounded down
        ([0.9, 0.8, 0.7, 0.6, 0.5], 0.85, 2, 2, True),
        ([0.9, 0.9], 0.9, 1, 1, True),  # equal scores share the better rank
        ([0.9, 0.8, 0.8, 0.8, 0.5], 0.8, 2, 2, True),
    ],
)
def test_the_best_third_of_the_own_bin_goes_on(judged, others, quality, rank, places, goes_on):
    earlier = [judged(number, other) for number, other in enumerate(others)]
    here = standing(judged(9, 0.0), rung=1, quality=quality, earlier=earlier, reduction=3)
    assert (here.rank, here.scores, here.places) == (rank, len(others) + 1, places)
    assert here.goes_on == goes_on


def test_whose_scores_count(judged, make_trial):
    earlier = [
        judged(0, 0.2, 0.9),
        judged(1, 0.3, 0.9, state=TrialState.COMPLETE, quality=0.9),
        judged(2, 0.4, ratio=0.70),  # the same bin, near its end
        judged(3, 0.9, ratio=0.8),  # the next bin
        judged(4, 0.9, repeat_of=0),
        judged(5, 0.9, state=TrialState.FAILED),
        make_trial(6, TrialState.INFEASIBLE, latency_ms=4.0, violations={"size_mb": 0.1}),
        make_trial(7, TrialState.RUNNING),
    ]
    first = standing(judged(9, 0.0), rung=1, quality=0.25, earlier=earlier, reduction=2)
    assert (first.rank, first.scores) == (3, 4)
    second = standing(judged(9, 0.0), rung=2, quality=0.25, earlier=earlier, reduction=2)
    assert (second.rank, second.scores) == (3, 3)  # trial 2 did not come that far


def test_the_reason_names_rung_score_rank_and_bin(judged):
    earlier = [judged(number, 0.5) for number in range(3)]
    with pytest.raises(CandidateStopped) as caught:
        judge_by_rungs(
            Halving(rungs=2, reduction=2),
            judged(9, 0.0),
            earlier,
            lambda rung: Judgement(quality=0.25, attributes={"steps": 7}),
        )
    assert caught.value.reason == (
        "after rung 1 its score of 0.2500 is number 4 of 4 at 0.50 to 0.71 times the teacher's "
        "latency, of which 2 may go on"
    )
    assert caught.value.attributes == {"steps": 7, "rung_qualities": [0.25]}


def test_one_that_comes_through_has_the_last_score_and_all_of_them(judged):
    asked = []

    def judge_at(rung):
        asked.append(rung)
        return Judgement(quality=rung / 10, attributes={"steps": rung})

    judgement = judge_by_rungs(Halving(rungs=3, reduction=3), judged(0, 0.0), [], judge_at)
    assert asked == [1, 2, 3]
    assert judgement.quality == 0.3
    assert judgement.attributes == {"steps": 3, "rung_qualities": [0.1, 0.2, 0.3]}


def test_the_last_rung_stops_nobody(judged):
    earlier = [judged(number, 0.5, 0.9) for number in range(9)]
    scores = {1: 0.6, 2: 0.1}
    judgement = judge_by_rungs(
        Halving(rungs=2, reduction=3),
        judged(9, 0.0),
        earlier,
        lambda rung: Judgement(quality=scores[rung]),
    )
    assert judgement.quality == 0.1


def test_one_rung_is_no_halving(judged, make_trial):
    bare = make_trial(0, TrialState.RUNNING)  # not even a latency is needed
    judgement = Judgement(quality=0.5, attributes={"steps": 4})
    assert judge_by_rungs(Halving(rungs=1, reduction=3), bare, [], lambda _: judgement) == judgement


def test_a_score_that_is_no_number_ends_the_climb(judged):
    judgement = judge_by_rungs(
        Halving(rungs=2, reduction=2),
        judged(9, 0.0),
        [judged(number, 0.5) for number in range(3)],
        lambda rung: Judgement(quality=math.nan),
    )
    assert math.isnan(judgement.quality)


class Untried:
    """Proposes untried architectures, which ones by what it was told alone."""

    def __init__(self, space):
        self.architectures = list(space.enumerate())
        self.told = {}

    def ask(self, count):
        told = list(self.told.values())
        tried = {trial.architecture for trial in told}
        learnt = sum(round(1e6 * trial.rung_qualities[-1]) for trial in told)
        order = np.random.default_rng([len(told), learnt]).permutation(len(self.architectures))
        untried = [self.architectures[at] for at in order if self.architectures[at] not in tried]
        return untried[:count]

    def tell(self, trials):
        self.told |= {trial.number: trial for trial in trials}


class Killed(BaseException):
    pass


def search(url, space, *, ask, trainings=math.inf):
    """Search with made-up scores until killed after so many trainings; return who was judged."""
    halving, record, trained = Halving(rungs=3, reduction=2), Record(url, space), []

    def screen(architecture):
        return Screening(
            latency_ms=architecture.hidden_size / 16, attributes={"teacher_latency_ms": 4.0}
        )

    def judge(number, architecture, trial):
        def judge_at(rung):
            if len(trained) >= trainings:
                raise Killed
            trained.append((number, rung))
            return Judgement(quality=math.sin(architecture.ffn_size + number) / 2 + rung / 9)

        return judge_by_rungs(halving, trial, record.trials(), judge_at)

    run_search(
        strategy=Untried(space),
        record=record,
        screen=screen,
        judge=judge,
        candidates=12,
        may_start=lambda _: True,
        on_trial=lambda _: None,
        seed=0,
        ask=ask,
    )
    return trained


def outcomes(url, space):
    return [
        (trial.number, trial.architecture, trial.state, trial.reason, trial.rung_qualities)
        for trial in Record(url, space).trials()
    ]


@pytest.mark.parametrize("ask", [1, 4])
def test_killed_anywhere_and_resumed_equals_uninterrupted(tmp_path, space, ask):
    whole, broken = f"sqlite:///{tmp_path}/whole.db", f"sqlite:///{tmp_path}/broken.db"
    trained = search(whole, space, ask=ask)
    while True:
        try:
            search(broken, space, ask=ask, trainings=7)
        except Killed:
            continue
        break
    assert outcomes(broken, space) == outcomes(whole, space)
    states = [state for _, _, state, _, _ in outcomes(whole, space)]
    assert states.count(TrialState.STOPPED) + states.count(TrialState.COMPLETE) == 12
    assert 3 <= states.count(TrialState.STOPPED) < 12
    assert len(trained) < 3 * 12
