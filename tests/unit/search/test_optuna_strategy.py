import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from stillhouse.search.objectives import objectives_of
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.samplers import make_sampler
from stillhouse.search.trial import TrialState
from stillhouse.space.constraints import HeadsAtMost


class Spy(optuna.samplers.RandomSampler):
    """Draws at random and keeps what it was shown at each proposal."""

    def __init__(self, seen, seed):
        super().__init__(seed=seed)
        self.seen = seen
        self.seed = seed

    def infer_relative_search_space(self, study, trial):
        shown = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        self.seen.append((self.seed, shown))
        return {}


class Fixed(optuna.samplers.RandomSampler):
    """Proposes the largest index of every dimension, come what may."""

    def sample_independent(self, study, trial, name, distribution):
        return getattr(distribution, "high", None) or distribution.to_external_repr(0)


def shown(space, trials, count=1):
    seen = []
    strategy = OptunaStrategy(space, lambda seed: Spy(seen, seed), 0)
    strategy.tell(trials)
    strategy.ask(count)
    return seen


def test_translation_of_each_state(space, make_trial):
    trials = [
        make_trial(0, quality=0.2, latency_ms=4.0, violations={"latency_ms": -0.2}),
        make_trial(1, quality=0.6, latency_ms=5.0, violations={"latency_ms": 0.0}),
        make_trial(2, quality=0.9, latency_ms=3.0, violations={"latency_ms": -0.4}),
        make_trial(3, TrialState.INFEASIBLE, latency_ms=9.0, violations={"latency_ms": 0.8}),
        make_trial(4, TrialState.FAILED, latency_ms=2.0),
    ]
    [(_, told)] = shown(space, trials)
    assert [trial.state for trial in told] == [OptunaState.COMPLETE] * 4 + [OptunaState.FAIL]
    # The infeasible one carries the median quality, its own latency and its violation.
    assert [trial.values for trial in told[:4]] == [[0.2, 4.0], [0.6, 5.0], [0.9, 3.0], [0.6, 9.0]]
    assert [trial.constraints for trial in told[:4]] == [
        {"latency_ms": -0.2},
        {"latency_ms": 0.0},
        {"latency_ms": -0.4},
        {"latency_ms": 0.8},
    ]
    assert told[1].params == {
        "layers": 0,
        "hidden_size": 0,
        "head_size": 0,
        "ffn_ratio": 1,
        "activation": "gelu",
    }


def test_a_stopped_one_is_told_with_its_last_score(space, make_trial):
    trials = [
        make_trial(0, quality=0.8, latency_ms=4.0),
        make_trial(
            1, TrialState.STOPPED, latency_ms=3.0, attributes={"rung_qualities": [0.1, 0.3]}
        ),
    ]
    [(_, told)] = shown(space, trials)
    assert [trial.state for trial in told] == [OptunaState.COMPLETE] * 2
    assert [trial.values for trial in told] == [[0.8, 4.0], [0.3, 3.0]]


def test_infeasible_is_pruned_while_no_quality_is_known(space, make_trial):
    trial = make_trial(0, TrialState.INFEASIBLE, latency_ms=9.0, violations={"latency_ms": 0.8})
    [(_, [told])] = shown(space, [trial])
    assert told.state is OptunaState.PRUNED
    assert told.constraints == {"latency_ms": 0.8}


def test_every_trial_has_every_limit_in_the_same_order(space, make_trial):
    trials = [
        make_trial(0, violations={"size_mb": -0.1, "latency_ms": -0.2}),
        make_trial(1, violations={"latency_ms": -0.3}),
        make_trial(2),
    ]
    [(_, told)] = shown(space, trials)
    assert [list(trial.constraints.items()) for trial in told] == [
        [("latency_ms", -0.2), ("size_mb", -0.1)],
        [("latency_ms", -0.3), ("size_mb", 0.0)],
        [("latency_ms", 0.0), ("size_mb", 0.0)],
    ]


def test_without_limits_there_are_no_constraints(space, make_trial):
    [(_, [told])] = shown(space, [make_trial(0)])
    assert told.constraints == {}


def test_a_batch_sees_its_earlier_proposals_as_running(space, make_trial):
    seen = shown(space, [make_trial(0)], count=3)
    assert [[trial.state.name for trial in told] for _, told in seen] == [
        ["COMPLETE"],
        ["COMPLETE", "RUNNING"],
        ["COMPLETE", "RUNNING", "RUNNING"],
    ]
    assert len({seed for seed, _ in seen}) == 3


def test_generations_are_as_if_the_sampler_had_proposed_itself(space, make_trial):
    """Compare with the marks that NSGA-II leaves in a study of its own."""
    sampler = optuna.samplers.NSGAIISampler(population_size=4, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for value in range(14):
        trial = study.ask({"layers": optuna.distributions.IntDistribution(0, 9)})
        study.tell(trial, [value % 3, value % 5])
    key = "NSGAIISampler:generation"
    expected = [trial.system_attrs[key] for trial in study.trials]

    replayed = []

    class Evolution(optuna.samplers.NSGAIISampler):
        def sample_relative(self, study, trial, search_space):
            told = [t for t in study.get_trials() if t.number < 13]
            replayed.extend(t.system_attrs["Evolution:generation"] for t in told)
            return super().sample_relative(study, trial, search_space)

    strategy = OptunaStrategy(space, lambda seed: Evolution(population_size=4, seed=seed), 0)
    strategy.tell([make_trial(number) for number in range(13)])
    strategy.ask(1)
    assert replayed == expected[:13]


def test_a_sampler_that_insists_on_the_outside_is_overruled(space):
    narrow = space.with_constraint(HeadsAtMost(heads=1))
    strategy = OptunaStrategy(narrow, lambda seed: Fixed(seed=seed), 5)
    proposals = strategy.ask(8)
    assert all(narrow.contains(proposal) for proposal in proposals)
    assert len(set(proposals)) > 1
    assert strategy.ask(8) == proposals


def test_running_trials_are_not_told(space, make_trial):
    strategy = OptunaStrategy(space, make_sampler("random"), 0)
    with pytest.raises(ValueError, match="trial 3 is running"):
        strategy.tell([make_trial(3, TrialState.RUNNING)])


def test_optuna_stays_silent(space, make_trial, capfd):
    strategy = OptunaStrategy(space, make_sampler("tpe"), 0)
    strategy.tell([make_trial(0)])
    strategy.ask(2)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["random", "tpe", "gp", "nsga2"])
@pytest.mark.parametrize("wanted", [["quality", "latency_ms", "size_mb"], ["reward"]])
def test_samplers_take_three_objectives_and_one(space, make_trial, name, wanted):
    strategy = OptunaStrategy(space, make_sampler(name), 0, objectives=objectives_of(wanted))
    strategy.tell(
        [
            make_trial(
                number,
                quality=number / 12,
                latency_ms=1 + number % 5,
                attributes={"size_mb": float(number % 3), "reward": number / 24},
            )
            for number in range(12)
        ]
    )
    (proposal,) = strategy.ask(1)
    assert space.contains(proposal)


def test_a_sampler_sees_each_objective_and_medians_for_what_is_not_known(space, make_trial):
    seen = []

    class Looks(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            seen.append([told.values for told in study.get_trials() if told.values])
            seen.append(study.directions)

    objectives = objectives_of(["quality", "size_mb"])
    strategy = OptunaStrategy(space, lambda seed: Looks(seed=seed), 0, objectives=objectives)
    strategy.tell(
        [
            make_trial(0, quality=0.2, attributes={"size_mb": 4.0}),
            make_trial(1, quality=0.4, attributes={"size_mb": 8.0}),
            make_trial(
                2,
                TrialState.INFEASIBLE,
                latency_ms=9.0,
                violations={"latency_ms": 0.5},
                attributes={"size_mb": 16.0},
            ),
        ]
    )
    strategy.ask(1)
    values, directions = seen
    assert values == [[0.2, 4.0], [0.4, 8.0], [pytest.approx(0.3), 16.0]]
    assert [direction.name for direction in directions] == ["MAXIMIZE", "MINIMIZE"]
