"""Search strategies replayed against a recorded table: best reward found, and what is learnt.

Every candidate of the table was trained with several seeds; a replay draws one of them for each,
the same for every strategy. What counts is the reward of the mean over the seeds, as a share of
the table's best. The samplers of stillhouse have two objectives, quality and latency; TPE and GP
also run on the reward alone, and then take the recorded architecture nearest to their proposal.

    python -m benchmarks.strategies --small --table benchmarks/tables/sst2_minilm.csv
    python -m benchmarks.strategies --full --table ...    # with the two-objective GP
    python -m benchmarks.strategies --tune --table ...    # the controller's constants
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from benchmarks.common import heading, print_stages, spread
from stillhouse.recipe.kd_nas import DEFAULT_ALPHA
from stillhouse.search.controller import Controller
from stillhouse.search.controller_settings import (
    ControllerSettings,
    default_controller,
    published_controller,
)
from stillhouse.search.episodes import learnt, rank_correlation
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.parameters import distributions, to_indices, to_parameters
from stillhouse.search.quiet import quiet_optuna
from stillhouse.search.recorded import RecordedTable, read_recorded
from stillhouse.search.replay import replay
from stillhouse.search.reward import BETA, Reward
from stillhouse.search.reward_lstm import reward_lstm
from stillhouse.search.samplers import make_sampler

if TYPE_CHECKING:
    from stillhouse.search.strategy import Strategy
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import Architecture
    from stillhouse.space.search_space import SearchSpace

CANDIDATES = 60
STAGES = (20, 40, 60)
REPORT_SEEDS = range(20)
TUNING_SEEDS = range(100, 110)  # no seed of the report: constants are chosen on these
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
PASSES = (10, 30, 60, 120)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A table and what is true in it.

    Attributes:
        table: As recorded.
        space: Its architectures.
        reward: Of quality and latency.
        truth: Reward of each architecture at its mean quality and mean latency over the seeds.
    """

    table: RecordedTable
    space: SearchSpace
    reward: Reward
    truth: dict[Architecture, float]

    @staticmethod
    def of(table: RecordedTable, alpha: float) -> Ground:
        """Works out the truth.

        The latency target is 0.6 of the slowest; it scales all rewards alike and changes no order.
        """
        slowest_ms = max(map(table.latency_ms, table.rows))
        reward = Reward(target_ms=BETA * slowest_ms, alpha=alpha)
        truth = {one: reward(table.quality(one), table.latency_ms(one)) for one in table.rows}
        return Ground(table=table, space=table.space(), reward=reward, truth=truth)


def describe(ground: Ground) -> str:
    """Says how large the table is, and how much of its differences is noise."""
    rewards = np.array(list(ground.truth.values())) / max(ground.truth.values())
    qualities = [[row.quality for row in rows] for rows in ground.table.rows.values()]
    several = [np.var(values, ddof=1) for values in qualities if len(values) > 1]
    noise = float(np.sqrt(np.mean(several))) if several else float("nan")
    between = float(np.std([np.mean(values) for values in qualities], ddof=1))
    front: list[tuple[float, float]] = []  # fastest first
    for latency_ms, quality in sorted(
        (rows[0].latency_ms, float(np.mean([row.quality for row in rows])))
        for rows in ground.table.rows.values()
    ):
        if not front or quality > front[-1][1]:
            front.append((latency_ms, quality))
    slope = float(np.polyfit(*np.log(np.array(front)).T, 1)[0]) if len(front) > 1 else 0.0
    return (
        f"front: log quality rises by {slope:.4f} for each unit of log latency\n"
        f"table: {len(qualities)} architectures, {sum(map(len, qualities))} trainings; rewards "
        f"{rewards.min():.3f} to 1 of the best, median {np.median(rewards):.3f}; deviation of the "
        f"quality {between:.4f} between architectures, {noise:.4f} between seeds of one"
    )


class OnReward:
    """An Optuna sampler on the reward alone, over recorded architectures.

    The grid around a recorded table is mostly empty; a proposal is moved to the nearest untried
    point that is there, so that no sampler loses proposals to the gaps.
    """

    def __init__(self, ground: Ground, sampler: optuna.samplers.BaseSampler) -> None:
        self._ground = ground
        self._tried: set[Architecture] = set()
        with quiet_optuna():
            self._study = optuna.create_study(direction="maximize", sampler=sampler)

    def ask(self, count: int) -> list[Architecture]:
        """Proposes the nearest recorded one."""
        assert count == 1
        space = self._ground.space
        with quiet_optuna():
            asked = self._study.ask(distributions(space))
            self._study.tell(asked, state=OptunaState.FAIL)
        wanted = to_indices(space, asked.params)
        untried = [item for item in self._ground.truth if item not in self._tried]
        return [min(untried, key=lambda item: self._distance(wanted, space.encode(item)))]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learns rewards."""
        space = self._ground.space
        for trial in trials:
            self._tried.add(trial.architecture)
            self._study.add_trial(
                create_trial(
                    params=dict(to_parameters(space, trial.architecture)),
                    distributions=distributions(space),
                    value=self._ground.reward.of(trial),
                )
            )

    def _distance(self, one: dict[str, int], other: dict[str, int]) -> float:
        total = 0.0
        for dimension in self._ground.space.dimensions:
            a, b = one[dimension.name], other[dimension.name]
            total += abs(a - b) / len(dimension.values) if dimension.ordered else float(a != b)
        return total


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What one replay showed.

    Attributes:
        best: Best true reward after each stage, as a share of the table's best.
        correlations: Of a controller's predictions for all untried architectures with the truth,
            by the number of candidates tried.
        has_learnt: A controller's own verdict.
    """

    best: list[float]
    correlations: dict[int, float]
    has_learnt: bool | None


class Watched:
    """A controller whose predictions are compared with the truth between its episodes."""

    def __init__(self, ground: Ground, controller: Controller, per_episode: int) -> None:
        self.correlations: dict[int, float] = {}
        self._ground = ground
        self._controller = controller
        self._per_episode = per_episode
        self._tried: set[Architecture] = set()

    def ask(self, count: int) -> list[Architecture]:
        """Passes on."""
        return self._controller.ask(count)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Passes on, and looks at every end of an episode."""
        self._controller.tell(trials)
        self._tried |= {trial.architecture for trial in trials}
        untried = [item for item in self._ground.truth if item not in self._tried]
        if len(self._tried) % self._per_episode == 0 and len(untried) > 2:
            predicted = self._controller.predict(untried)
            true = [self._ground.truth[item] for item in untried]
            self.correlations[len(self._tried)] = rank_correlation(predicted, true) or 0.0


def play(ground: Ground, strategy: Strategy, seed: int) -> list[float]:
    """Replays a strategy; returns the best true share after each stage."""
    trials = replay(strategy, ground.table, candidates=CANDIDATES, seed=seed)
    first = [trial.architecture for trial in trials if trial.repeat_of is None]
    rewards = [ground.truth[architecture] for architecture in first]
    highest = max(ground.truth.values())
    return [max(rewards[:stage]) / highest for stage in STAGES]


def play_controller(ground: Ground, settings: ControllerSettings, seed: int) -> Replay:
    """Replays a controller, watched."""
    model = reward_lstm(ground.space)
    controller = Controller(ground.space, settings, ground.reward.of, model, seed)
    watched = Watched(ground, controller, settings.per_episode)
    best = play(ground, watched, seed)
    verdict = learnt(controller.episodes())
    return Replay(best=best, correlations=watched.correlations, has_learnt=verdict.has_learnt)


def players(ground: Ground, *, full: bool) -> dict[str, Callable[[int], Replay]]:
    """Lists the strategies by name, each as a function from a seed to its replay."""

    def plain(make: Callable[[int], Strategy]) -> Callable[[int], Replay]:
        return lambda seed: Replay(
            best=play(ground, make(seed), seed), correlations={}, has_learnt=None
        )

    def sampled(name: Any) -> Callable[[int], Replay]:
        return plain(lambda seed: OptunaStrategy(ground.space, make_sampler(name), seed))

    listed = {
        "random": sampled("random"),
        "controller": lambda seed: play_controller(ground, default_controller(CANDIDATES), seed),
        "controller, published": lambda seed: play_controller(ground, published_controller(), seed),
        "TPE, on the reward": plain(lambda seed: OnReward(ground, make_sampler("tpe")(seed))),
        "GP, on the reward": plain(lambda seed: OnReward(ground, make_sampler("gp")(seed))),
        "TPE, two objectives": sampled("tpe"),
    }
    return {**listed, "GP, two objectives": sampled("gp")} if full else listed


def print_best(found: dict[str, list[Replay]]) -> None:
    """Prints the best reward found, and the paired difference from random."""
    best = {name: np.array([item.best for item in replays]) for name, replays in found.items()}
    print_stages("best true reward found, share of the table's best", best, STAGES)


def print_learning(found: dict[str, list[Replay]]) -> None:
    """Prints how well the controllers predict what they have not tried."""
    print("\nrank correlation of predictions and truth over all untried architectures")
    for name, replays in found.items():
        if not replays[0].correlations:
            continue
        verdicts = [item.has_learnt for item in replays]
        print(f"{name}: {verdicts.count(True)} of {len(verdicts)} say that they have learnt")
        for episode, tried in enumerate(replays[0].correlations, start=2):
            values = [item.correlations[tried] for item in replays]
            print(f"  before episode {episode:<3} {tried:>3} tried  {spread(values, '.2f')}")


def report(ground: Ground, *, full: bool) -> None:
    """Replays everything with the seeds of the report."""
    found: dict[str, list[Replay]] = {}
    for name, play_seed in players(ground, full=full).items():
        found[name] = [play_seed(seed) for seed in REPORT_SEEDS]
        print(f"done: {name}", file=sys.stderr, flush=True)
    print_best(found)
    print_learning(found)


def tune(ground: Ground) -> None:
    """Prints a grid of the controller's constants on seeds that the report does not use."""
    stages = "".join(f"{f'best after {stage}':>30}" for stage in STAGES)
    print(f"{'rate':>7}{'passes':>8}{'correlation, episodes 4 on':>32}{stages}")
    for rate, passes in itertools.product(LEARNING_RATES, PASSES):
        settings = dataclasses.replace(
            default_controller(CANDIDATES), learning_rate=rate, passes=passes
        )
        replays = [play_controller(ground, settings, seed) for seed in TUNING_SEEDS]
        late = [
            float(np.mean([value for tried, value in item.correlations.items() if tried >= 15]))
            for item in replays
        ]
        best = "".join(f"{spread(column):>30}" for column in np.array([r.best for r in replays]).T)
        print(f"{rate:>7}{passes:>8}{spread(late, '.3f'):>32}{best}", flush=True)


def main() -> None:
    """Prints what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="all but the two-objective GP")
    parser.add_argument("--full", action="store_true", help="everything; slow")
    parser.add_argument("--tune", action="store_true", help="a grid of the controller's constants")
    parser.add_argument("--table", type=Path, required=True, help="the recorded table")
    parser.add_argument(
        "--alpha", type=float, default=DEFAULT_ALPHA, help="exponent of the latency in the reward"
    )
    arguments = parser.parse_args()
    heading("benchmarks.strategies")
    table = read_recorded(arguments.table)
    ground = Ground.of(table, arguments.alpha)
    seeds = TUNING_SEEDS if arguments.tune else REPORT_SEEDS
    print(f"{describe(ground)}; seeds {seeds.start} to {seeds.stop - 1}\n")
    if arguments.tune:
        tune(ground)
    else:
        report(ground, full=arguments.full)


if __name__ == "__main__":
    main()
