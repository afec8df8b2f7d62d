"""What every strategy must keep, whatever it does inside."""

import random

import numpy as np
import pytest

from stillhouse.search.controller import Controller
from stillhouse.search.controller_settings import default_controller, published_controller
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.reward import Reward
from stillhouse.search.reward_lstm import reward_lstm
from stillhouse.search.samplers import make_sampler
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.constraints import HeadsAtMost
from stillhouse.space.search_space import Dimension, SearchSpace

SPACE = SearchSpace(
    (
        Dimension("layers", (1, 2, 3, 4, 6)),
        Dimension("hidden_size", (32, 64, 96, 128)),
        Dimension("head_size", (16, 32)),
        Dimension("ffn_size", (64, 128, 256)),
        Dimension("activation", ("gelu", "relu")),
    ),
    (HeadsAtMost(heads=4),),
)

# Neither constraint nor free choice of activation: every dimension adds its own share of cost.
SEPARABLE = SearchSpace(
    (
        Dimension("layers", tuple(range(1, 17))),
        Dimension("hidden_size", tuple(range(64, 1088, 64))),
        Dimension("head_size", (16, 32, 64)),
        Dimension("ffn_ratio", (1, 2, 3, 4, 5, 6, 7, 8)),
    )
)

CONTROLLERS = {"controller": default_controller(40), "published controller": published_controller()}
STRATEGIES = ["random", "tpe", "gp", "nsga2", *CONTROLLERS]


def make(name, space=SPACE, seed=0):
    if name in CONTROLLERS:
        reward = Reward(target_ms=2).of
        return Controller(space, CONTROLLERS[name], reward, reward_lstm(space), seed)
    return OptunaStrategy(space, make_sampler(name), seed)


def outcome(number, architecture):
    """Make up what becomes of a candidate: too slow, failed, or a plausible quality."""
    latency_ms = architecture.layers * architecture.hidden_size / 64
    violations = {"latency_ms": latency_ms / 4 - 1, "size_mb": -0.5}
    common = {"number": number, "architecture": architecture, "latency_ms": latency_ms}
    if latency_ms > 4:
        return Trial(state=TrialState.INFEASIBLE, violations=violations, **common)
    if number % 7 == 3:
        return Trial(state=TrialState.FAILED, reason="made up", **common)
    quality = 1 - 1 / (architecture.layers + architecture.ffn_size / 64)
    return Trial(state=TrialState.COMPLETE, quality=quality, violations=violations, **common)


def play(strategy, trials, start=0):
    """Ask and tell one by one; return what was tried."""
    played = []
    for number in range(start, start + trials):
        [architecture] = strategy.ask(1)
        played.append(outcome(number, architecture))
        strategy.tell(played[-1:])
    return played


@pytest.fixture(scope="module", params=STRATEGIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def played(name):
    """Twenty-four trials: past the random start of every sampler, infeasible and failed ones in."""
    return play(make(name), 24)


def test_proposals_are_inside_the_space(played):
    assert all(SPACE.contains(trial.architecture) for trial in played)
    assert {trial.state for trial in played} >= {TrialState.COMPLETE, TrialState.FAILED}
    assert any(trial.state is TrialState.INFEASIBLE for trial in played)


def test_a_batch_has_the_length_asked_for(name, played):
    strategy = make(name)
    strategy.tell(played)
    batch = strategy.ask(3)
    assert len(batch) == 3
    assert all(SPACE.contains(architecture) for architecture in batch)
    assert make(name).ask(2)[0] == make(name).ask(1)[0]


def test_same_seed_same_search_and_another_seed_another(name, played):
    def architectures(trials):
        return [trial.architecture for trial in trials]

    assert architectures(play(make(name), 14)) == architectures(played[:14])
    assert architectures(play(make(name, seed=1), 8)) != architectures(played[:8])


def test_asking_does_not_change_the_state(name, played):
    strategy = make(name)
    strategy.tell(played)
    assert strategy.ask(1) == strategy.ask(1)


def test_saved_and_resumed_equals_uninterrupted(name, played):
    resumed = make(name)
    resumed.tell(played[:20])
    assert play(resumed, 4, start=20) == played[20:]


def test_the_order_of_telling_does_not_matter(name, played):
    shuffled = random.Random(0).sample(played, len(played))
    one_by_one, at_once = make(name), make(name)
    for trial in shuffled:
        one_by_one.tell([trial])
    at_once.tell(played)
    assert one_by_one.ask(1) == at_once.ask(1)


def test_telling_again_replaces(name, played):
    once, twice = make(name), make(name)
    once.tell(played)
    twice.tell(played)
    twice.tell(played[3:9])
    assert once.ask(1) == twice.ask(1)


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.INFEASIBLE])
def test_goes_on_when_nothing_ever_completes(name, state):
    strategy = make(name)
    strategy.tell(
        [
            Trial(
                number=number,
                architecture=architecture,
                state=state,
                latency_ms=9.0,
                violations={"latency_ms": 0.1},
            )
            for number, architecture in zip(range(25), SPACE.enumerate(), strict=False)
        ]
    )
    [proposal] = strategy.ask(1)
    assert SPACE.contains(proposal)


def test_one_architecture_alone_is_proposed(name):
    single = SearchSpace(
        (
            Dimension("layers", (2,)),
            Dimension("hidden_size", (32,)),
            Dimension("heads", (2,)),
            Dimension("ffn_size", (64,)),
        )
    )
    [architecture] = single.enumerate()
    strategy = make(name, single)
    for number in range(12):
        assert strategy.ask(1) == [architecture]
        strategy.tell([outcome(number, architecture)])


def cost(architecture):
    """Distance to a hidden optimum, a sum of one term per dimension; 0 at the optimum."""
    at = SEPARABLE.encode(architecture)
    return (
        abs(at["layers"] - 11) / 16
        + abs(at["hidden_size"] - 4) / 16
        + abs(at["ffn_ratio"] - 5) / 8
        + (at["head_size"] != 1) / 5
    )


def late_cost(strategy, trials):
    """Mean cost of the proposals in the second half."""
    costs = []
    for number in range(trials):
        [architecture] = strategy.ask(1)
        costs.append(cost(architecture))
        told = {"quality": 1 - costs[-1], "latency_ms": 1 + costs[-1]}
        strategy.tell(
            [Trial(number=number, architecture=architecture, state=TrialState.COMPLETE, **told)]
        )
    return np.mean(costs[trials // 2 :])


@pytest.mark.parametrize(
    ("learner", "trials"), [("tpe", 40), ("gp", 20), ("nsga2", 80), ("controller", 40)]
)
def test_beats_random_on_a_separable_cost(learner, trials):
    def mean_cost(name):
        return np.mean([late_cost(make(name, SEPARABLE, seed), trials) for seed in range(2)])

    assert mean_cost(learner) < 0.75 * mean_cost("random")


def late_share_over_limit(strategy, trials, limit_ms=3):
    """Share of infeasible proposals in the second half, where quality grows with latency."""
    over = []
    for number in range(trials):
        [architecture] = strategy.ask(1)
        latency_ms = architecture.layers * architecture.hidden_size / 1_000
        over.append(latency_ms > limit_ms)
        trial = Trial(
            number=number,
            architecture=architecture,
            state=TrialState.INFEASIBLE if over[-1] else TrialState.COMPLETE,
            quality=None if over[-1] else 1 - 1 / (1 + latency_ms),
            latency_ms=latency_ms,
            violations={"latency_ms": latency_ms / limit_ms - 1},
        )
        strategy.tell([trial])
    return np.mean(over[trials // 2 :])


@pytest.mark.parametrize(
    ("learner", "trials"), [("tpe", 30), ("gp", 24), ("nsga2", 80), ("controller", 100)]
)
def test_learns_a_limit_from_infeasible_trials(learner, trials):
    def mean_share(name):
        shares = [late_share_over_limit(make(name, SEPARABLE, seed), trials) for seed in range(2)]
        return np.mean(shares)

    assert mean_share(learner) < 0.75 * mean_share("random")
