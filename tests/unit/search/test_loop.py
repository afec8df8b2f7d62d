import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise

import numpy as np
import pytest

from stillhouse.errors import TrainingError
from stillhouse.search.loop import Judgement, Screening, run_search
from stillhouse.search.record import Record
from stillhouse.search.trial import CandidateFailed, CandidateStopped, Trial, TrialState


class Scripted:
    """Proposes the architectures at the given places of the enumeration, then the last forever."""

    def __init__(self, space, places):
        self.architectures = list(space.enumerate())
        self.places = list(places)
        self.told = []
        self.asked = 0

    def ask(self, count):
        place = self.places[min(self.asked, len(self.places) - 1)]
        self.asked += 1
        return [self.architectures[place]] * count

    def tell(self, trials):
        self.told.extend(trials)


class Bench:
    """A search with made-up outcomes that notes who was called with what."""

    def __init__(self, url, space, strategy, limit_layers=99):
        self.record = Record(url, space)
        self.strategy = strategy
        self.limit_layers = limit_layers
        self.screened = []
        self.judged = []
        self.finished = []

    def screen(self, architecture):
        self.screened.append(architecture)
        return Screening(
            latency_ms=float(architecture.layers),
            violations={"latency_ms": architecture.layers / self.limit_layers - 1},
            attributes={"parameters": architecture.hidden_size},
        )

    def judge(self, number, architecture, trial):
        self.judged.append((number, architecture, trial))
        return Judgement(quality=architecture.hidden_size / 100, attributes={"steps": 5})

    def run(self, candidates=None, may_start=lambda _: True, judge=None, seed=0, ask=1):
        return run_search(
            strategy=self.strategy,
            record=self.record,
            screen=self.screen,
            judge=judge or self.judge,
            candidates=candidates,
            may_start=may_start,
            on_trial=self.finished.append,
            seed=seed,
            ask=ask,
        )


class ByChance:
    """Proposes architectures by chance, which ones by the trials told alone."""

    def __init__(self, space):
        self.architectures = list(space.enumerate())
        self.told = {}
        self.batches = []

    def ask(self, count):
        self.batches.append((len(self.told), count))
        learnt = sum(trial.architecture.ffn_size for trial in self.told.values())
        generator = np.random.default_rng([len(self.told), learnt])
        return [
            self.architectures[place]
            for place in generator.integers(len(self.architectures), size=count)
        ]

    def tell(self, trials):
        self.told |= {trial.number: trial for trial in trials}


class InTurn(ByChance):
    """Proposes those first of the enumeration that it was not told of."""

    def ask(self, count):
        self.batches.append((len(self.told), count))
        tried = {trial.architecture for trial in self.told.values()}
        return [item for item in self.architectures if item not in tried][:count]


@pytest.fixture
def bench(tmp_path, space):
    def make(places, **settings):
        strategy = Scripted(space, places)
        return Bench(f"sqlite:///{tmp_path}/study.db", space, strategy, **settings)

    return make


def outline(trials):
    return [(trial.state.value, trial.repeat_of) for trial in trials]


def test_a_candidate_from_proposal_to_record(bench, space):
    search = bench([5])
    [trial] = search.run(candidates=1)
    architecture = list(space.enumerate())[5]
    assert trial == Trial(
        number=0,
        architecture=architecture,
        state=TrialState.COMPLETE,
        quality=architecture.hidden_size / 100,
        latency_ms=1.0,
        cost_s=trial.cost_s,
        violations={"latency_ms": 1 / 99 - 1},
        attributes={"parameters": architecture.hidden_size, "steps": 5},
    )
    assert trial.cost_s > 0
    assert search.record.trials() == search.finished == search.strategy.told == [trial]
    [(number, judged, running)] = search.judged
    assert (number, judged) == (0, architecture)
    assert (running.state, running.latency_ms) == (TrialState.RUNNING, 1.0)
    assert running.attributes == {"parameters": architecture.hidden_size}


def test_candidates_count_trained_ones_only(bench):
    # Places 0 to 11 have one layer, 12 to 23 two, 24 to 35 four.
    search = bench([0, 0, 30, 12, 1, 30, 2], limit_layers=2)
    trials = search.run(candidates=4)
    assert outline(trials) == [
        ("complete", None),
        ("complete", 0),
        ("infeasible", None),
        ("complete", None),
        ("complete", None),
        ("infeasible", 2),
        ("complete", None),
    ]
    assert [number for number, _, _ in search.judged] == [0, 3, 4, 6]
    assert len(search.screened) == 5
    assert [trial.number for trial in search.finished] == list(range(7))


def test_infeasible_says_why_and_is_not_trained(bench):
    search = bench([30], limit_layers=2)
    trials = search.run(may_start=lambda finished: not finished)
    assert trials[0].reason == "latency_ms 100.0% over"
    assert trials[0].violations == {"latency_ms": 1.0}
    assert (trials[0].quality, trials[0].latency_ms) == (None, 4.0)
    assert search.judged == []


def test_a_repeat_has_the_first_outcome(bench):
    first, repeat = bench([3, 3, 4]).run(may_start=lambda finished: len(finished) < 2)
    assert (repeat.number, repeat.repeat_of, repeat.cost_s) == (1, 0, 0.0)
    for name in ("architecture", "state", "quality", "latency_ms", "violations", "attributes"):
        assert getattr(repeat, name) == getattr(first, name)


@pytest.mark.parametrize("error", [CandidateFailed("loss is NaN"), TrainingError("loss is NaN")])
def test_failed_candidates_are_recorded_and_not_tried_again(bench, error):
    def judge(number, architecture, trial):
        if number == 1:
            raise error
        return Judgement(quality=0.5)

    search = bench([0, 1, 1, 2])
    trials = search.run(candidates=3, judge=judge)
    assert outline(trials) == [
        ("complete", None),
        ("failed", None),
        ("failed", 1),
        ("complete", None),
    ]
    assert [trial.reason for trial in trials] == ["", "loss is NaN", "loss is NaN", ""]
    assert trials[1].latency_ms == 1.0
    assert search.record.trials() == trials


def test_a_stopped_candidate_is_recorded_counted_and_not_tried_again(bench):
    def judge(number, architecture, trial):
        if number == 1:
            raise CandidateStopped("too poor", {"rung_qualities": [0.1], "steps": 3})
        return Judgement(quality=0.5)

    search = bench([0, 1, 1, 2])
    trials = search.run(candidates=3, judge=judge)
    assert outline(trials) == [
        ("complete", None),
        ("stopped", None),
        ("stopped", 1),
        ("complete", None),
    ]
    stopped = trials[1]
    assert (stopped.quality, stopped.latency_ms, stopped.reason) == (None, 1.0, "too poor")
    assert stopped.rung_qualities == (0.1,)
    assert stopped.attributes == {"parameters": 16, "rung_qualities": [0.1], "steps": 3}
    assert stopped.violations == {"latency_ms": 1 / 99 - 1}
    assert stopped.cost_s > 0
    assert search.record.trials() == trials == search.strategy.told


def test_a_failing_screen_fails_the_candidate(bench):
    search = bench([0])

    def screen(architecture):
        raise CandidateFailed("does not fit the device")

    search.screen = screen
    [trial] = search.run(candidates=1)
    assert (trial.state, trial.reason) == (TrialState.FAILED, "does not fit the device")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outcomes_that_are_no_numbers_fail_the_candidate(bench, value):
    search = bench([0, 1])
    judged = search.run(candidates=1, judge=lambda *_: Judgement(quality=value))
    search.screen = lambda _: Screening(latency_ms=value)
    screened = search.run(candidates=2)
    assert [trial.state for trial in (*judged, screened[1])] == ["failed", "failed"]
    assert "not a finite number" in judged[0].reason
    assert "not a finite number" in screened[1].reason


def test_other_errors_pass_through_and_leave_it_running(bench):
    def judge(number, architecture, trial):
        raise ZeroDivisionError

    search = bench([0])
    with pytest.raises(ZeroDivisionError):
        search.run(candidates=1, judge=judge)
    assert outline(search.record.trials()) == [("running", None)]


def test_after_20_repeats_an_untried_one_is_drawn(bench, tmp_path):
    search = bench([0])
    trials = search.run(candidates=3)
    assert [trial.number for trial in trials if trial.repeat_of is None] == [0, 21, 42]
    assert len({trial.architecture for trial in trials}) == 3
    assert search.strategy.asked == 41  # not for the two that were drawn


def test_the_draw_depends_on_the_seed(space):
    def drawn(seed):
        search = Bench("sqlite:///:memory:", space, Scripted(space, [0]))
        return search.run(candidates=2, seed=seed)[-1].architecture

    first = drawn(0)
    assert drawn(0) == first
    assert {drawn(1), drawn(2)} != {first}


def test_stops_when_everything_is_tried(bench, space):
    trials = bench(range(36)).run()
    assert len(trials) == space.size() == 36


def test_stops_after_200_idle_proposals(space):
    search = Bench("sqlite:///:memory:", space, Scripted(space, [30]), limit_layers=0.5)
    # Every architecture is infeasible; with one drawn after every 20 repeats, 200 proposals do
    # not exhaust the space.
    trials = search.run(candidates=5)
    assert len(trials) == 200
    assert search.judged == []


def test_may_start_sees_the_finished_trials(bench):
    seen = []

    def may_start(finished):
        seen.append([trial.number for trial in finished])
        return len(finished) < 2

    bench(range(9)).run(may_start=may_start)
    assert seen == [[], [0], [0, 1]]


def test_nothing_to_do(bench):
    search = bench([0])
    assert search.run(candidates=0) == []
    assert search.run(may_start=lambda _: False) == []


def test_a_finished_search_is_told_and_left_alone(bench):
    trials = bench(range(3)).run(candidates=3)
    again = bench(range(3))
    assert again.run(candidates=3) == trials
    assert again.strategy.told == trials
    assert again.finished == again.judged == []


@pytest.mark.parametrize("stage", ["screen", "judge"])
def test_an_interrupted_candidate_is_continued_under_its_number(bench, stage):
    def interrupt(*_):
        raise KeyboardInterrupt

    search = bench(range(9))
    search.run(candidates=2)
    broken = bench([2])
    setattr(broken, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        broken.run(candidates=4)
    assert outline(broken.record.running()) == [("running", None)]

    resumed = bench([3])
    trials = resumed.run(candidates=4)
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.number for trial in resumed.finished] == [2, 3]
    # What was screened before the interruption is not screened again.
    assert len(resumed.screened) == (2 if stage == "screen" else 1)
    assert resumed.judged[0][2].latency_ms == 1.0
    assert resumed.judged[0][2].attributes == {"parameters": 16}


def test_a_repeat_that_was_interrupted_is_not_trained(bench):
    search = bench([0])
    [first] = search.run(candidates=1)
    search.record.start(first.architecture)
    resumed = bench([1])
    trials = resumed.run(candidates=1)
    assert outline(trials) == [("complete", None), ("complete", 0)]
    assert resumed.judged == resumed.screened == []


def test_a_batch_is_proposed_at_once_and_no_larger_than_wanted(bench, space):
    search = bench([])
    search.strategy = InTurn(space)
    trials = search.run(candidates=5, ask=2)
    assert search.strategy.batches == [(0, 2), (2, 2), (4, 1)]
    assert [trial.architecture for trial in trials] == search.strategy.architectures[:5]
    assert [number for number, _, _ in search.judged] == list(range(5))


def test_a_batch_is_no_larger_than_what_is_untried(space):
    search = Bench("sqlite:///:memory:", space, InTurn(space))
    assert len(search.run(ask=30)) == 36
    assert search.strategy.batches == [(0, 30), (30, 6)]


def test_infeasible_ones_of_a_batch_are_made_up_for(space):
    search = Bench("sqlite:///:memory:", space, Scripted(space, [0, 30, 1]), limit_layers=2)
    trials = search.run(candidates=3, ask=2)
    # Wanted are 3, so 2 at a time and never more than the 2 that are left.
    assert outline(trials)[:4] == [
        ("complete", None),
        ("complete", 0),
        ("infeasible", None),
        ("infeasible", 2),
    ]
    assert sum(trial.repeat_of is None and trial.quality is not None for trial in trials) == 3


def test_a_draw_takes_the_place_of_a_batch(space):
    search = Bench("sqlite:///:memory:", space, Scripted(space, [0]))
    trials = search.run(candidates=3, ask=8)
    firsts = [trial.number for trial in trials if trial.repeat_of is None]
    assert firsts[0] == 0
    assert len(firsts) == 3
    assert all(later - earlier > 20 for earlier, later in pairwise(firsts))


def test_time_that_ends_within_a_batch_leaves_nothing_behind(bench, space, tmp_path):
    whole = Bench("sqlite:///:memory:", space, ByChance(space))
    expected = [trial.architecture for trial in whole.run(candidates=9, ask=4)]

    search = bench([])
    search.strategy = ByChance(space)
    trials = search.run(candidates=9, ask=4, may_start=lambda finished: len(finished) < 6)
    assert len(trials) == 6
    assert search.record.running() == []

    resumed = bench([])
    resumed.strategy = ByChance(space)
    trials = resumed.run(candidates=9, ask=4)
    assert [trial.architecture for trial in trials] == expected


@pytest.mark.parametrize("ask", [2, 5])
def test_killed_within_any_batch_and_resumed_equals_uninterrupted(tmp_path, space, ask):
    def outcomes(trials):
        return [(t.number, t.architecture, t.state, t.repeat_of, t.quality) for t in trials]

    def searching(name):
        url = f"sqlite:///{tmp_path}/{name}.db"
        return Bench(url, space, ByChance(space), limit_layers=2)

    whole = searching("whole").run(candidates=9, ask=ask)
    killed = 0
    while True:
        broken = searching("broken")
        judge, judged = broken.judge, []

        def stumbling(*given, judge=judge, judged=judged):
            judged.append(given)
            if len(judged) == 3:
                raise KeyboardInterrupt
            return judge(*given)

        try:
            trials = broken.run(candidates=9, ask=ask, judge=stumbling)
            break
        except KeyboardInterrupt:
            killed += 1
            assert len(broken.record.running()) == 1
    assert killed >= 3
    assert outcomes(trials) == outcomes(whole)
    states = {trial.state for trial in whole} | {trial.repeat_of is None for trial in whole}
    assert states >= {TrialState.COMPLETE, TrialState.INFEASIBLE, False}


SEARCH = """
    import os, signal, sys
    from stillhouse.search.loop import Judgement, Screening, run_search
    from stillhouse.search.optuna_strategy import OptunaStrategy
    from stillhouse.search.record import Record
    from stillhouse.search.samplers import make_sampler
    from stillhouse.space.search_space import Dimension, SearchSpace

    url, last = sys.argv[1], int(sys.argv[2])
    space = SearchSpace((
        Dimension("layers", (1, 2, 4)), Dimension("hidden_size", (16, 32, 64)),
        Dimension("head_size", (8, 16)), Dimension("ffn_ratio", (2, 4)),
        Dimension("activation", ("gelu",)),
    ))

    def screen(architecture):
        latency_ms = architecture.layers * architecture.hidden_size / 10
        return Screening(latency_ms=latency_ms, violations={"latency_ms": latency_ms / 15 - 1})

    def judge(number, architecture, trial):
        if number >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return Judgement(quality=architecture.ffn_size ** 0.5 + architecture.layers / 7)

    run_search(
        strategy=OptunaStrategy(space, make_sampler("tpe"), 3), record=Record(url, space),
        screen=screen, judge=judge, candidates=18, may_start=lambda _: True,
        on_trial=lambda _: None, seed=3,
    )
"""


def search_process(url, last):
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", textwrap.dedent(SEARCH), url, str(last)]
    return subprocess.run(command, env=environment, check=False).returncode


def test_killed_twice_and_resumed_equals_uninterrupted(tmp_path, space):
    whole, broken = f"sqlite:///{tmp_path}/whole.db", f"sqlite:///{tmp_path}/broken.db"
    assert search_process(whole, 10_000) == 0
    assert search_process(broken, 4) == -signal.SIGKILL
    assert search_process(broken, 13) == -signal.SIGKILL
    assert search_process(broken, 10_000) == 0

    def outcomes(url):
        return [
            (trial.number, trial.architecture, trial.state, trial.repeat_of, trial.quality)
            for trial in Record(url, space).trials()
        ]

    assert outcomes(whole) == outcomes(broken)
    states = [trial[2] for trial in outcomes(whole)]
    assert states.count(TrialState.COMPLETE) >= 18
    assert TrialState.INFEASIBLE in states
