"""The controller of KD-NAS: a learnt predictor of rewards that ranks random architectures.

Source: Trivedi et al., arXiv 2303.09639, as two independent re-implementations describe it. It is
no policy: a regressor reads the best state of the previous episode, the best state so far and a
candidate's, and says what reward the candidate will get.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

from stillhouse.search.controller_settings import ControllerSettings
from stillhouse.search.episodes import EpisodeReport, rank_correlation
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture
from stillhouse.space.search_space import SearchSpace

_FIRST_STATE, _MODEL, _RANDOM, _POOL, _LEFT_OVER = range(5)  # what a seed is spent on


class RewardModel(Protocol):
    """A regressor from three states to a reward; it is a function of its seed and its lessons."""

    def fit(
        self,
        inputs: NDArray[np.int64],
        rewards: NDArray[np.float64],
        *,
        passes: int,
        learning_rate: float,
    ) -> None:
        """Go on training.

        Args:
            inputs: Indices of shape (examples, 3, dimensions): best state of the previous episode,
                best state so far, candidate; each an index per dimension of the space.
            rewards: Targets of shape (examples,).
            passes: How often each example is seen.
            learning_rate: Above 0.
        """

    def predict(self, inputs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return a prediction of shape (examples,) for inputs shaped as in `fit`."""


@final
class Controller:
    """Proposes random architectures first, then more and more of those predicted to be good.

    An episode is `per_episode` trained trials in the order of their numbers. A proposal that turns
    out infeasible costs no training: it belongs to its episode and is replaced by another of its
    kind. Tried architectures come again only once nothing else is left.

    Args:
        space: Where to search.
        settings: `default_controller`, `published_controller` or one's own.
        reward: What is maximised, None for a trial that has none (`Reward.of`).
        model: Makes a fresh regressor from a seed (`reward_lstm(space)`).
        seed: Of all proposals, at least 0.
    """

    def __init__(
        self,
        space: SearchSpace,
        settings: ControllerSettings,
        reward: Callable[[Trial], float | None],
        model: Callable[[int], RewardModel],
        seed: int,
    ) -> None:
        """Start knowing no trial."""
        self._space = space
        self._settings = settings
        self._reward = reward
        self._new_model = model
        self._seed = seed
        self._told: dict[int, Trial] = {}
        self._learner: _Learner | None = None
        self._ranked: dict[tuple[int, int], list[Architecture]] = {}

    def ask(self, count: int) -> list[Architecture]:
        """Propose as `Strategy` says; a batch never reaches into the next episode."""
        learner, current = self._learn()
        tried = {trial.architecture for trial in self._told.values()}
        position = sum(_is_trained(trial) for trial in current)
        proposals: list[Architecture] = []
        for place in range(position, position + count):
            proposals.append(self._propose(learner, place, tried))
            tried.add(proposals[-1])
        return proposals

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember finished trials as `Strategy` says.

        Raises:
            ValueError: A trial is still running.
        """
        for trial in trials:
            if not trial.is_finished:
                raise ValueError(f"only finished trials are told, trial {trial.number} is running")
            self._told[trial.number] = trial

    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Return the rewards that are predicted now; random numbers before anything is learnt.

        Args:
            architectures: At least one, all of the space.
        """
        learner, _ = self._learn()
        return learner.predict(architectures)

    def episodes(self) -> tuple[EpisodeReport, ...]:
        """Report every episode that has a trial, the unfinished one included."""
        learner, current = self._learn()
        return (*learner.reports, learner.report(current)) if current else tuple(learner.reports)

    def _learn(self) -> tuple["_Learner", Sequence[Trial]]:
        """Bring the learner to the trials told; return it and those of the unfinished episode."""
        told = [self._told[number] for number in sorted(self._told)]
        *finished, current = _split(told, self._settings.per_episode)
        learner = self._learner
        # What was learnt serves as long as the past stays; when it changes, all is learnt anew.
        if learner is None or learner.lessons != finished[: len(learner.lessons)]:
            learner = _Learner(
                self._space, self._settings, self._reward, self._new_model, self._seed
            )
            self._ranked = {}
        for trials in finished[len(learner.lessons) :]:
            learner.learn(trials)
            self._ranked = {}
        self._learner = learner
        return learner, current

    def _propose(
        self, learner: "_Learner", position: int, tried: set[Architecture]
    ) -> Architecture:
        episode = len(learner.lessons)
        is_random = position < self._settings.random_draws(episode)
        places = self._places(_RANDOM if is_random else _POOL, episode)
        step = len(places) if is_random else self._settings.pool
        for start in range(0, len(places), step):
            drawn = places[start : start + step]
            ordered = drawn if is_random else self._rank(learner, start, drawn)
            for architecture in ordered:
                if architecture not in tried:
                    return architecture
        return self._space.sample(np.random.default_rng([self._seed, _LEFT_OVER, len(self._told)]))

    def _places(self, purpose: int, episode: int) -> list[Architecture]:
        """Return the whole space in a random order; consecutive stretches of it are the pools."""
        architectures = list(self._space.enumerate())
        generator = np.random.default_rng([self._seed, purpose, episode])
        return [architectures[place] for place in generator.permutation(len(architectures))]

    def _rank(
        self, learner: "_Learner", start: int, pool: Sequence[Architecture]
    ) -> list[Architecture]:
        """Order a pool by predicted reward, the best first; tried ones stay in.

        So the ranking is the same at every ask of an episode.
        """
        key = (len(learner.lessons), start)
        if key not in self._ranked:
            order = np.argsort(-learner.predict(pool), kind="stable")
            self._ranked[key] = [pool[place] for place in order]
        return self._ranked[key]


@final
class _Learner:
    """The model and the best states after so many finished episodes."""

    def __init__(
        self,
        space: SearchSpace,
        settings: ControllerSettings,
        reward: Callable[[Trial], float | None],
        model: Callable[[int], RewardModel],
        seed: int,
    ) -> None:
        self.lessons: list[tuple[Trial, ...]] = []
        self.reports: list[EpisodeReport] = []
        self._space = space
        self._settings = settings
        self._reward = reward
        self._new_model = model
        self._seed = seed
        first = space.sample(np.random.default_rng([seed, _FIRST_STATE]))
        self._previous_best = first
        self._best = first
        self._best_reward = -math.inf
        self._known: dict[int, float] = {}  # rewards by number
        self._model = self._fresh_model()
        self._mean, self._deviation = 0.0, 1.0
        self._trained_on: set[int] = set()

    def learn(self, trials: tuple[Trial, ...]) -> None:
        """Close an episode: report it, update the best states, train."""
        self.reports.append(self.report(trials))
        self.lessons.append(trials)
        rewards = _rewards(self._reward, trials)
        self._known.update(rewards)
        self._update_bests(trials, rewards)
        self._train()

    def predict(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        """Predict rewards under the best states of this moment."""
        return self._model.predict(self._inputs(architectures)) * self._deviation + self._mean

    def report(self, trials: Sequence[Trial]) -> EpisodeReport:
        """Describe the next episode, finished or not, by its trials."""
        number = len(self.lessons)
        rewards = _rewards(self._reward, trials)
        complete = [trial.architecture for trial in trials if trial.number in rewards]
        predicted = self.predict(complete).tolist() if complete else []
        draws = self._settings.random_draws(number)
        random = sum(position < draws for position in _positions(trials))
        true = tuple(rewards.values())
        return EpisodeReport(
            number=number,
            epsilon=self._settings.epsilon(number),
            trials=tuple(trial.number for trial in trials),
            random=random,
            exploited=len(trials) - random,
            failed=sum(trial.state is TrialState.FAILED for trial in trials),
            infeasible=sum(trial.state is TrialState.INFEASIBLE for trial in trials),
            best_reward=max(true, default=None),
            predicted=tuple(predicted),
            rewards=true,
            correlation=rank_correlation(predicted, true),
            trained_on=len(self._trained_on),
        )

    def _update_bests(self, trials: Sequence[Trial], rewards: dict[int, float]) -> None:
        if not rewards:
            return  # every candidate failed: what was best stays best
        by_number = {trial.number: trial.architecture for trial in trials}
        number = max(rewards, key=lambda item: rewards[item])
        self._previous_best = by_number[number]
        if rewards[number] > self._best_reward:
            self._best, self._best_reward = by_number[number], rewards[number]

    def _train(self) -> None:
        everything = self._settings.memory == "all"
        lessons = self.lessons if everything else self.lessons[-1:]
        examples = self._examples([trial for trials in lessons for trial in trials])
        if not examples:
            return
        self._trained_on |= {trial.number for trial, _ in examples}
        architectures = [trial.architecture for trial, _ in examples]
        rewards = [reward for _, reward in examples]
        if everything:
            self._model = self._fresh_model()
        else:
            self._add_bests(architectures, rewards)
        if self._settings.standardise:
            self._mean, self._deviation = float(np.mean(rewards)), float(np.std(rewards)) or 1.0
        self._model.fit(
            self._inputs(architectures),
            (np.array(rewards) - self._mean) / self._deviation,
            passes=self._settings.passes,
            learning_rate=self._settings.learning_rate,
        )

    def _examples(self, trials: Sequence[Trial]) -> list[tuple[Trial, float]]:
        """Return the trials to learn from, each with its reward.

        Infeasible ones get the lowest reward known. Left out, they would look like anything else,
        and large architectures, often the better ones but for the limit, would be proposed for
        ever; much lower, and fitting the gap would take all that the model can tell apart.
        """
        lowest = min(self._known.values(), default=None)
        examples = []
        for trial in trials:
            infeasible = trial.state is TrialState.INFEASIBLE
            reward = lowest if infeasible else self._known.get(trial.number)
            if reward is not None:
                examples.append((trial, reward))
        return examples

    def _add_bests(self, architectures: list[Architecture], rewards: list[float]) -> None:
        if self._best_reward == -math.inf:
            return
        for best in (self._best, self._previous_best):
            architectures.append(best)
            rewards.append(
                max(
                    self._known[trial.number]
                    for trials in self.lessons
                    for trial in trials
                    if trial.architecture == best and trial.number in self._known
                )
            )

    def _inputs(self, architectures: Sequence[Architecture]) -> NDArray[np.int64]:
        # Training has the same best states in front as the predictions to come.
        context = [self._state(self._previous_best), self._state(self._best)]
        return np.array([[*context, self._state(item)] for item in architectures], dtype=np.int64)

    def _state(self, architecture: Architecture) -> list[int]:
        indices = self._space.encode(architecture)
        return [indices[dimension.name] for dimension in self._space.dimensions]

    def _fresh_model(self) -> RewardModel:
        sequence = np.random.SeedSequence([self._seed, _MODEL, len(self.lessons)])
        return self._new_model(int(sequence.generate_state(1)[0]))


def _is_trained(trial: Trial) -> bool:
    return trial.state is not TrialState.INFEASIBLE


def _split(trials: Sequence[Trial], per_episode: int) -> list[tuple[Trial, ...]]:
    """Cut trials into episodes; the last one is unfinished, and maybe empty.

    Repeats are left out: they took no training, and nothing is learnt from them.
    """
    episodes: list[list[Trial]] = [[]]
    for trial in trials:
        if trial.repeat_of is None:
            episodes[-1].append(trial)
            if sum(map(_is_trained, episodes[-1])) == per_episode:
                episodes.append([])
    return [tuple(episode) for episode in episodes]


def _positions(trials: Sequence[Trial]) -> list[int]:
    """Return, for each trial of an episode, how many trained ones went before."""
    trained = [_is_trained(trial) for trial in trials]
    return [sum(trained[:place]) for place in range(len(trials))]


def _rewards(reward: Callable[[Trial], float | None], trials: Sequence[Trial]) -> dict[int, float]:
    """Return the rewards of those trials that have one, by number."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    found = ((trial.number, reward(trial)) for trial in complete)
    return {number: value for number, value in found if value is not None}
