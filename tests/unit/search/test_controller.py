import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from stillhouse.search.controller import Controller
from stillhouse.search.controller_settings import (
    ControllerSettings,
    default_controller,
    published_controller,
)
from stillhouse.search.episodes import learnt
from stillhouse.search.reward import Reward
from stillhouse.search.reward_lstm import reward_lstm
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.search_space import Dimension, SearchSpace

COMPLETE, FAILED, INFEASIBLE = TrialState.COMPLETE, TrialState.FAILED, TrialState.INFEASIBLE

SMALL = ControllerSettings(
    episodes=4,
    per_episode=4,
    first_epsilon=1.0,
    last_epsilon=0.25,
    epsilon_fall=0.25,
    pool=50,
    passes=7,
    learning_rate=0.5,
    standardise=False,
    memory="all",
)


class Deeper:
    """A model that prefers high indices of the candidate, and writes down what it is given."""

    def __init__(self, seed, log):
        self.lessons = []
        self.asked = []
        log.append(self)

    def fit(self, inputs, rewards, *, passes, learning_rate):
        assert (passes, learning_rate) == (7, 0.5)
        self.lessons.append((inputs, rewards))

    def predict(self, inputs):
        self.asked.append(inputs)
        return inputs[:, 2].sum(axis=1).astype(float)


@pytest.fixture
def log():
    return []


@pytest.fixture
def make(space, log):
    def build(seed=0, **changes):
        settings = dataclasses.replace(SMALL, **changes)
        return Controller(
            space, settings, lambda trial: trial.quality, lambda seed: Deeper(seed, log), seed
        )

    return build


def trial_of(number, architecture, state=COMPLETE, quality=None):
    quality = 1 / (1 + number) if quality is None else quality
    outcome = {"quality": quality, "latency_ms": 1.0} if state is COMPLETE else {}
    return Trial(number=number, architecture=architecture, state=state, **outcome)


def play(controller, states, start=0):
    """Ask and tell one by one, each with the state given."""
    played = []
    for number, state in enumerate(states, start):
        [architecture] = controller.ask(1)
        played.append(trial_of(number, architecture, state))
        controller.tell(played[-1:])
    return played


def state_of(space, architecture):
    indices = space.encode(architecture)
    return [indices[dimension.name] for dimension in space.dimensions]


# The schedule


def test_published_schedule():
    settings = published_controller()
    shares = [settings.epsilon(episode) for episode in range(15)]
    assert shares == pytest.approx(np.linspace(1.0, 0.3, 15))
    draws = [settings.random_draws(episode) for episode in range(15)]
    assert draws == list(range(20, 5, -1))
    assert sum(draws) / (15 * 20) == 0.65
    assert settings.epsilon(40) == pytest.approx(0.3)
    longer = dataclasses.replace(settings, episodes=40)
    assert longer.epsilon(39) == 0.05


def test_default_schedule():
    settings = default_controller(60)
    assert (settings.episodes, settings.per_episode) == (12, 5)
    assert [settings.epsilon(episode) for episode in (0, 11, 99)] == pytest.approx([1, 0.1, 0.1])
    draws = [settings.random_draws(episode) for episode in range(12)]
    assert draws == [5, 4, 4, 3, 3, 2, 2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize(("candidates", "episodes"), [(1, 1), (5, 1), (6, 2), (61, 13)])
def test_default_spreads_the_candidates(candidates, episodes):
    settings = default_controller(candidates)
    assert settings.episodes == episodes
    assert settings.epsilon(0) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"episodes": 0},
        {"per_episode": 0},
        {"pool": -1},
        {"learning_rate": 0.0},
        {"first_epsilon": 1.5},
        {"last_epsilon": -0.1},
        {"first_epsilon": 0.1, "last_epsilon": 0.2},
        {"epsilon_fall": -0.1},
    ],
)
def test_impossible_settings(wrong):
    with pytest.raises(ValueError, match="must"):
        dataclasses.replace(SMALL, **wrong)


# What is proposed


def test_random_first_then_the_best_predicted(make, space):
    controller = make()
    played = play(controller, [COMPLETE] * 16)
    reports = controller.episodes()
    assert [report.random for report in reports] == [4, 3, 2, 1]
    assert [report.exploited for report in reports] == [0, 1, 2, 3]
    tried = set()
    for place, trial in enumerate(played):
        if place % 4 >= [4, 3, 2, 1][place // 4]:
            untried = [item for item in space.enumerate() if item not in tried]
            best = max(sum(state_of(space, item)) for item in untried)
            assert sum(state_of(space, trial.architecture)) == best
        tried.add(trial.architecture)
    assert len(tried) == 16


def test_infeasible_ones_are_replaced_by_their_kind(make, space):
    controller = make()
    states = (
        [COMPLETE] * 4 + [INFEASIBLE, COMPLETE, INFEASIBLE, COMPLETE, FAILED] + [INFEASIBLE] * 3
    )
    played = play(controller, [*states, COMPLETE, COMPLETE])
    second, third = controller.episodes()[1:]
    assert second.trials == tuple(range(4, 13))
    assert (second.random, second.exploited) == (5, 4)  # two and three of them infeasible
    assert (second.failed, second.infeasible) == (1, 5)
    assert third.trials == (13,)
    exploited = [sum(state_of(space, trial.architecture)) for trial in played[9:13]]
    assert exploited == sorted(exploited, reverse=True)


def test_a_small_pool_is_followed_by_another(make):
    controller = make(pool=3, first_epsilon=0.0, last_epsilon=0.0)
    architectures = [trial.architecture for trial in play(controller, [INFEASIBLE] * 36)]
    assert len(set(architectures)) == 36


def test_a_pool_is_as_large_as_said(make, log):
    controller = make(pool=5, first_epsilon=0.0, last_epsilon=0.0)
    controller.ask(1)
    assert [len(asked) for asked in log[-1].asked] == [5]
    assert len(np.unique(log[-1].asked[0][:, 2], axis=0)) == 5


def test_everything_tried_comes_again(make, space):
    controller = make()
    controller.tell([trial_of(number, item) for number, item in enumerate(space.enumerate())])
    proposals = controller.ask(3)
    assert len(proposals) == 3
    assert all(space.contains(item) for item in proposals)


def test_a_batch_has_no_repeats(make):
    controller = make()
    play(controller, [COMPLETE] * 5)
    assert len(set(controller.ask(20))) == 20


def test_running_trials_are_not_told(make, space):
    [architecture] = make().ask(1)
    with pytest.raises(ValueError, match="trial 3 is running"):
        make().tell([trial_of(3, architecture, TrialState.RUNNING)])


# What is learnt from


def test_the_model_reads_the_best_states_and_the_candidate(make, space, log):
    controller = make()
    first = play(controller, [COMPLETE] * 4)  # the first of each episode is its best
    second = play(controller, [COMPLETE] * 4, start=4)
    controller.ask(1)
    inputs, rewards = log[-1].lessons[0]
    assert inputs.shape == (8, 3, 5)
    assert (inputs[:, 0] == state_of(space, second[0].architecture)).all()
    assert (inputs[:, 1] == state_of(space, first[0].architecture)).all()
    told = [*first, *second]
    assert inputs[:, 2].tolist() == [state_of(space, trial.architecture) for trial in told]
    assert rewards.tolist() == [trial.quality for trial in told]


def test_before_anything_is_known_both_best_states_are_one_random_state(make, log):
    states = set()
    for seed in range(5):
        controller = make(seed=seed, first_epsilon=0.0, last_epsilon=0.0)
        controller.ask(1)
        [asked] = log[-1].asked
        assert (asked[:, 0] == asked[0, 0]).all()
        assert (asked[:, 0] == asked[:, 1]).all()
        states.add(tuple(asked[0, 0]))
    assert len(states) > 1


def test_memory_of_an_episode_goes_on_with_one_model(make, space, log):
    controller = make(memory="episode")
    first = play(controller, [COMPLETE] * 4)
    second = play(controller, [COMPLETE] * 4, start=4)
    controller.ask(1)
    [model] = log
    assert [len(rewards) for _, rewards in model.lessons] == [4 + 2, 4 + 2]
    inputs, rewards = model.lessons[1]
    assert rewards.tolist()[-2:] == [first[0].quality, second[0].quality]
    assert inputs[-2, 2].tolist() == state_of(space, first[0].architecture)
    assert [report.trained_on for report in controller.episodes()] == [0, 4]
    play(controller, [COMPLETE], start=8)
    assert controller.episodes()[2].trained_on == 8


def test_memory_of_all_starts_afresh(make, log):
    controller = make()
    play(controller, [COMPLETE] * 12)
    controller.ask(1)
    assert [len(model.lessons) for model in log] == [0, 1, 1, 1]  # the first is never trained
    assert [len(model.lessons[0][1]) for model in log[1:]] == [4, 8, 12]


def test_standardised_rewards_are_put_back(make, space, log):
    controller = make(standardise=True)
    play(controller, [COMPLETE] * 4)
    [architecture] = controller.ask(1)
    _, rewards = log[-1].lessons[0]
    assert (rewards.mean(), rewards.std()) == pytest.approx((0, 1), abs=1e-12)
    # 1, 1/2, 1/3, 1/4 have the mean 0.52083 and the deviation 0.29092
    expected = 0.52083 + 0.29092 * sum(state_of(space, architecture))
    assert controller.predict([architecture]) == pytest.approx(expected, abs=1e-4)


def test_an_infeasible_trial_counts_as_the_lowest_reward(make, log):
    controller = make()
    play(controller, [COMPLETE, INFEASIBLE, COMPLETE, FAILED, INFEASIBLE, COMPLETE])
    controller.ask(1)
    _, rewards = log[-1].lessons[0]
    assert rewards.tolist() == [1, 1 / 6, 1 / 3, 1 / 6, 1 / 6]


def test_infeasible_trials_alone_teach_nothing(make, log):
    controller = make()
    play(controller, [INFEASIBLE, FAILED, INFEASIBLE, FAILED, FAILED, FAILED])
    controller.ask(1)
    assert not any(model.lessons for model in log)


@pytest.mark.parametrize("memory", ["all", "episode"])
def test_an_episode_of_failures_changes_nothing(make, space, log, memory):
    controller = make(memory=memory)
    first = play(controller, [COMPLETE] * 4)
    play(controller, [FAILED] * 4, start=4)
    play(controller, [COMPLETE] * 2, start=8)
    reports = controller.episodes()
    assert (reports[1].failed, reports[1].best_reward, reports[1].predicted) == (4, None, ())
    assert (reports[2].trained_on, len(reports[2].predicted)) == (4, 2)
    inputs = log[-1].asked[-1]
    assert (inputs[:, 0] == state_of(space, first[0].architecture)).all()


def test_repeats_are_passed_over(make):
    controller = make()
    played = play(controller, [COMPLETE] * 6)
    again = dataclasses.replace(played[0], number=6, repeat_of=0)
    before = controller.ask(1)
    controller.tell([again])
    assert controller.ask(1) == before
    assert controller.episodes()[1].trials == (4, 5)


def test_an_earlier_number_told_late_is_learnt_from(make):
    controller, at_once = make(seed=3), make(seed=3)
    played = play(make(seed=3), [COMPLETE, INFEASIBLE, *[COMPLETE] * 9])
    for trial in [*played[:2], *played[3:], played[2]]:
        controller.tell([trial])
        controller.ask(1)  # whatever it keeps of the past must not show
    at_once.tell(played)
    assert controller.ask(2) == at_once.ask(2)
    assert controller.episodes() == at_once.episodes()


# With the model of the paper

SEPARABLE = SearchSpace(
    (
        Dimension("layers", tuple(range(1, 9))),
        Dimension("hidden_size", (64, 128, 192, 256, 320, 384)),
        Dimension("head_size", (16, 32)),
        Dimension("ffn_ratio", (1, 2, 3, 4)),
    )
)


def separable(architecture):
    at = SEPARABLE.encode(architecture)
    return 0.5 + at["layers"] / 20 + at["hidden_size"] / 30 - at["ffn_ratio"] / 20


def searched(settings, seed, trials):
    reward = Reward(target_ms=1, alpha=0)
    controller = Controller(SEPARABLE, settings, reward.of, reward_lstm(SEPARABLE), seed)
    for number in range(trials):
        [architecture] = controller.ask(1)
        controller.tell([trial_of(number, architecture, quality=separable(architecture))])
    return controller


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_learns_a_separable_reward_within_40_trials(seed):
    controller = searched(default_controller(40), seed, 40)
    everything = list(SEPARABLE.enumerate())
    true = [separable(architecture) for architecture in everything]
    assert spearmanr(controller.predict(everything), true).statistic > 0.5
    assert learnt(controller.episodes()).has_learnt


def test_published_constants_are_mostly_random_at_40_trials():
    reports = searched(published_controller(), 0, 40).episodes()
    assert [report.random for report in reports] == [20, 19]
    assert learnt(reports).random_share == 39 / 40
