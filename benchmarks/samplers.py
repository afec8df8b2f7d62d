"""Samplers replayed on a recorded table: how fast each finds the front of quality and latency.

    python -m benchmarks.samplers --small --table sst2-minilm        # a table of the package
    python -m benchmarks.samplers --small --table benchmarks/tables/sst2_minilm.csv
    python -m benchmarks.samplers --small --table sst2-minilm --startup 5 --also botorch

Each architecture shows one of its recorded trainings, drawn by seed, the same one to every sampler;
a repeat costs no trial. What is reported is true: the hypervolume of the mean figures, over the
recorded seeds, of all architectures tried, as a share of the whole table's. The reference point is
the lowest mean quality and the highest mean latency of the table. Random, TPE, GP and NSGA-II have
two objectives, KD-NAS's controller has its reward alone. Goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from benchmarks.common import Records, heading, print_stages, resampled, spread
from benchmarks.strategies import Ground, describe
from stillhouse import benchmark
from stillhouse.recipe.kd_nas import DEFAULT_ALPHA
from stillhouse.search.controller import Controller
from stillhouse.search.controller_settings import default_controller
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.pareto import pareto_front
from stillhouse.search.quiet import quiet_optuna
from stillhouse.search.recorded import RecordedTable, read_recorded
from stillhouse.search.replay import replay
from stillhouse.search.reward_lstm import reward_lstm
from stillhouse.search.samplers import FIRST_TRIALS, SamplerName, make_sampler

if TYPE_CHECKING:
    from stillhouse.search.strategy import Strategy
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import Architecture

STAGES = (5, 10, 20, 40)
TRIALS = STAGES[-1]
COMPARED_AT = 20
"""How many trials of random search the others are measured by."""
SEEDS = range(20)
BOTORCH_PACKAGES = {"optuna_integration": "optuna-integration", "botorch": "botorch"}


class Timed:
    """A strategy that keeps how long its proposals took."""

    def __init__(self, strategy: Strategy) -> None:
        self.proposals_s: list[float] = []
        self._strategy = strategy

    def ask(self, count: int) -> list[Architecture]:
        """Passes on."""
        begin = time.perf_counter()
        asked = self._strategy.ask(count)
        self.proposals_s.append(time.perf_counter() - begin)
        return asked

    def tell(self, trials: Sequence[Trial]) -> None:
        """Passes on."""
        self._strategy.tell(trials)


def open_table(named: str) -> RecordedTable:
    """Reads a table of the package, or a file."""
    return read_recorded(Path(named)) if named.endswith(".csv") else benchmark.load(named).recorded


def fingerprint(table: RecordedTable) -> str:
    """Tells tables apart by what they say, not by their files."""
    said = sorted(
        (one.key, row.seed, row.quality, row.latency_ms)
        for one, rows in table.rows.items()
        for row in rows
    )
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


SAMPLERS: dict[str, SamplerName] = {
    "TPE, {} at random": "tpe",
    "GP, {} at random": "gp",
    "NSGA-II, population {}": "nsga2",
}


def players(
    ground: Ground, *, startups: Sequence[int], with_botorch: bool
) -> dict[str, Callable[[int], Strategy]]:
    """Lists the samplers by name, each as a function from a seed to a fresh strategy.

    Names carry the constants, for records are found by them.
    """
    settings = default_controller(TRIALS)
    model = reward_lstm(ground.space)
    samplers: dict[str, Callable[[int], BaseSampler]] = {"random": make_sampler("random")}
    for form, name in SAMPLERS.items():
        for count in dict.fromkeys((FIRST_TRIALS[name], *startups)):
            samplers[form.format(count)] = make_sampler(name, count)
    if with_botorch:
        samplers["BoTorch, 10 at random"] = make_botorch
    return {
        **{
            name: partial(OptunaStrategy, ground.space, sampler)
            for name, sampler in samplers.items()
        },
        f"controller of {settings.episodes} x {settings.per_episode}": lambda seed: Controller(
            ground.space, settings, ground.reward.of, model, seed
        ),
    }


def make_botorch(seed: int) -> BaseSampler:
    """Makes BoTorch's sampler with as many random trials at its start as the GP of stillhouse."""
    from optuna_integration import BoTorchSampler  # noqa: PLC0415  not required

    with quiet_optuna():
        sampler: BaseSampler = BoTorchSampler(seed=seed, n_startup_trials=10)
        return sampler


def require_botorch() -> None:
    """Says which packages are missing, if any."""
    missing = [package for name, package in BOTORCH_PACKAGES.items() if find_spec(name) is None]
    if missing:
        raise SystemExit(f"--also botorch needs more packages: pip install {' '.join(missing)}")


def play(table: RecordedTable, strategy: Strategy, seed: int) -> dict[str, Any]:
    """Replays a strategy once.

    Returns:
        Shares of the front's hypervolume after each trial, and seconds of each proposal.
    """
    timed = Timed(strategy)
    trials = replay(timed, table, candidates=TRIALS, seed=seed)
    shares = benchmark.front_shares(table, trials)
    return {"shares": shares, "proposals_s": timed.proposals_s}


def play_all(
    table: RecordedTable, listed: Mapping[str, Callable[[int], Strategy]]
) -> dict[str, list[dict[str, Any]]]:
    """Replays every sampler with every seed that no record has yet."""
    records = Records("samplers")
    common = {"table": fingerprint(table), "trials": TRIALS, "optuna": optuna.__version__}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, make in listed.items():
        found[name] = []
        for seed in SEEDS:
            job = {**common, "sampler": name, "seed": seed}
            known = records.find(job) or records.add(job, play(table, make(seed), seed))
            found[name].append(known)
        print(f"done: {name}", file=sys.stderr, flush=True)
    return found


def trials_to_reach(mean_curve: np.ndarray[Any, Any], target: float) -> float:
    """Finds after how many trials a curve reaches a value.

    Args:
        mean_curve: Shares after 1, 2, … trials; 0 before the first.
        target: Above 0.

    Returns:
        Trials, interpolated between two; infinite if it is never reached.
    """
    reached = np.flatnonzero(mean_curve >= target)
    if not len(reached):
        return math.inf
    after = int(reached[0])
    before = float(mean_curve[after - 1]) if after else 0.0
    return after + (target - before) / (float(mean_curve[after]) - before)


def needed(
    curves: np.ndarray[Any, Any], random_curves: np.ndarray[Any, Any]
) -> tuple[float, float, float]:
    """Finds the trials that reach what random search reaches in `COMPARED_AT`.

    Args:
        curves: Of a sampler, seeds by trials.
        random_curves: Of random search with the same seeds.

    Returns:
        Trials of the mean curve with their 95 % interval over resampled seeds; infinite where the
        value is not reached.
    """

    def of(seeds: np.ndarray[Any, Any]) -> float:
        target = float(random_curves[seeds, COMPARED_AT - 1].mean())
        return trials_to_reach(curves[seeds].mean(axis=0), target)

    draws = resampled(len(curves))
    several = sorted(map(of, draws))  # no quantile can interpolate towards infinity
    low, high = several[int(0.025 * len(draws))], several[int(0.975 * len(draws))]
    return of(np.arange(len(curves))), low, high


def written(trials: float) -> str:
    """Writes a number of trials."""
    return f"{trials:.1f}" if math.isfinite(trials) else f"over {TRIALS}"


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints shares, trials needed and times."""
    curves = {name: np.array([one["shares"] for one in replays]) for name, replays in found.items()}
    places = [stage - 1 for stage in STAGES]
    print_stages(
        "share of the front's hypervolume found",
        {name: curve[:, places] for name, curve in curves.items()},
        STAGES,
    )
    print(f"\ntrials needed for what random search has after {COMPARED_AT} (95 % interval)")
    for name, curve in curves.items():  # random's own is lower where its curve is flat
        value, low, high = needed(curve, curves["random"])
        print(f"{name:<24}{written(value)} ({written(low)} to {written(high)})")
    print("\nmilliseconds of a proposal, mean (95 % interval over seeds); longest")
    for name, replays in found.items():
        means_ms = [1e3 * float(np.mean(one["proposals_s"])) for one in replays]
        longest_ms = 1e3 * max(max(one["proposals_s"]) for one in replays)
        print(f"{name:<24}{spread(means_ms, '.1f')}; {longest_ms:.0f}")


def main() -> None:
    """Replays and reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the only size there is")
    parser.add_argument("--table", required=True, help="a table of the package, or a .csv file")
    parser.add_argument("--also", choices=("botorch",), help="one more sampler")
    parser.add_argument(
        "--startup", type=int, nargs="+", default=[], help="other numbers of random first trials"
    )
    given = parser.parse_args()
    if given.also:
        require_botorch()
    heading("benchmarks.samplers")
    table = open_table(given.table)
    if len(table.rows) < TRIALS:
        raise SystemExit(f"a table of {TRIALS} architectures or more is needed: {given.table}")
    ground = Ground.of(table, DEFAULT_ALPHA)
    print(
        f"{describe(ground)}; {len(pareto_front(table.trials()))} of them on the front of the "
        f"means; seeds {SEEDS.start} to {SEEDS.stop - 1}\n"
    )
    report(play_all(table, players(ground, startups=given.startup, with_botorch=bool(given.also))))


if __name__ == "__main__":
    main()
