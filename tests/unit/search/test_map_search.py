"""The search for a layer map: trials of a study, each map once, failures kept, resumed."""

import math

import optuna
import pytest

from stillhouse.errors import RunError, TrainingError
from stillhouse.search.genetic import GeneticMaps, RandomMaps
from stillhouse.search.map_search import MapJudgement, best_map, search_maps
from stillhouse.search.map_space import MapSpace
from stillhouse.search.trial import CandidateFailed, TrialState

SPACE = MapSpace(layers=2, teacher_layers=3)


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def search(storage):
    def run(judge, *, evaluations=5, space=SPACE, strategy=None, on_trial=lambda _: None):
        return search_maps(
            judge,
            space=space,
            strategy=strategy or GeneticMaps(space, 0),
            evaluations=evaluations,
            storage_url=storage,
            study_name="maps",
            on_trial=on_trial,
        )

    return run


def judged(genes):
    return MapJudgement(fitness=float(-sum(genes)), attributes={"scores": {"sst2": 0.5}})


def test_every_map_is_a_trial_with_its_genes_its_fitness_and_what_was_found(search, storage):
    told = []
    trials = search(judged, on_trial=lambda so_far: told.append(len(so_far)))
    assert told == [1, 2, 3, 4, 5]
    study = optuna.load_study(study_name="maps", storage=storage)
    assert [one.params for one in study.trials] == [
        {"g1": trial.genes[0], "g2": trial.genes[1]} for trial in trials
    ]
    assert [one.value for one in study.trials] == [-sum(trial.genes) for trial in trials]
    assert study.trials[0].user_attrs["scores"] == {"sst2": 0.5}
    assert study.trials[0].user_attrs["cost_s"] == trials[0].cost_s >= 0
    assert trials[0].attributes == {"scores": {"sst2": 0.5}}
    assert study.best_trial.number == best_map(trials).number


def test_a_search_ends_when_all_maps_are_judged(search):
    asked = []

    def judge(genes):
        asked.append(genes)
        return judged(genes)

    trials = search(judge, evaluations=1_000)
    assert sorted(asked) == sorted(SPACE.enumerate())  # each once
    assert len(trials) == SPACE.size()


@pytest.mark.parametrize("strategy", [GeneticMaps, RandomMaps])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_search_goes_on_as_an_unbroken_one(search, storage, strategy, error):
    space = MapSpace(layers=4, teacher_layers=6)
    asked = []

    def judge(genes):
        asked.append(genes)
        if len(asked) == 31:
            raise error
        return judged(genes)

    with pytest.raises(error):
        search(judge, evaluations=40, space=space, strategy=strategy(space, 0))
    study = optuna.load_study(study_name="maps", storage=storage)
    assert study.trials[-1].state is optuna.trial.TrialState.RUNNING
    trials = search(judge, evaluations=40, space=space, strategy=strategy(space, 0))
    assert [trial.number for trial in trials] == list(range(40))
    assert asked[30] == asked[31] == trials[30].genes  # judged again under its number

    maker, unbroken = strategy(space, 0), []
    for _ in range(40):
        [genes] = maker.ask(1)
        unbroken.append(genes)
        maker.tell({genes: judged(genes).fitness})
    assert [trial.genes for trial in trials] == unbroken


def test_the_time_of_a_judgement_counts_what_was_interrupted(search, monkeypatch):
    class Clock:
        now_s = 100.0

    monkeypatch.setattr("time.perf_counter", lambda: Clock.now_s)

    def stopped(genes):
        Clock.now_s += 20.0
        raise KeyboardInterrupt

    def slow(genes):
        Clock.now_s += 5.0
        return judged(genes)

    with pytest.raises(KeyboardInterrupt):
        search(stopped, evaluations=1)
    [trial] = search(slow, evaluations=1)
    assert trial.cost_s == 25.0


def test_nothing_is_judged_again_when_there_are_enough(search):
    first = search(judged)

    def never(genes):
        raise AssertionError(genes)

    assert search(never) == first


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (TrainingError("loss is not finite"), "loss is not finite"),
        (CandidateFailed("out of memory: 3 GB"), "out of memory: 3 GB"),
        (MapJudgement(fitness=math.nan), "its fitness is nan, not a finite number"),
        (MapJudgement(fitness=math.inf), "its fitness is inf, not a finite number"),
    ],
)
def test_a_failure_is_a_trial_with_its_reason_and_the_search_goes_on(search, failure, reason):
    count = 0

    def judge(genes):
        nonlocal count
        count += 1
        if count != 2:
            return judged(genes)
        if isinstance(failure, Exception):
            raise failure
        return failure

    trials = search(judge, evaluations=4)
    assert [trial.state for trial in trials].count(TrialState.FAILED) == 1
    assert trials[1].state is TrialState.FAILED
    assert (trials[1].fitness, trials[1].reason) == (None, reason)
    assert search(judge, evaluations=4) == trials  # a failure is not tried again


def test_a_mistake_of_ours_is_no_failed_trial(search):
    def judge(genes):
        raise KeyError(genes)

    with pytest.raises(KeyError):
        search(judge)


def test_the_best_of_equals_is_the_first_and_there_is_none_without_a_fitness(search):
    trials = search(lambda _: MapJudgement(fitness=-1.0))
    assert best_map(trials) == trials[0]
    assert best_map([]) is None


def test_a_study_of_other_maps_is_refused(search):
    search(judged)
    other = MapSpace(layers=2, teacher_layers=3, any_order=True)
    with pytest.raises(RunError, match=r"made over other layer maps .*'any_order': False"):
        search(judged, space=other)
