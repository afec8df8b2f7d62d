"""Optuna's samplers by name, each as a function from a seed to a fresh sampler."""

from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from stillhouse.search.quiet import quiet_optuna

SamplerName: TypeAlias = Literal["random", "tpe", "gp", "nsga2"]

_STARTUP_TRIALS = 10
_POPULATION = 20  # searches are tens to hundreds of trials long: five generations and more


def make_sampler(name: SamplerName) -> Callable[[int], BaseSampler]:
    """Return the function that makes a fresh, seeded sampler.

    Args:
        name: random; tpe, tree-structured Parzen estimators over all dimensions jointly; gp,
            Gaussian processes with expected hypervolume improvement; nsga2, evolution.

    Returns:
        A function from a seed (0..2³²-1) to a sampler.
    """
    match name:
        case "random":
            return RandomSampler
        case "tpe":
            return _tpe
        case "gp":
            return _gp
        case "nsga2":
            return _nsga2
        case _:
            assert_never(name)


def _tpe(seed: int) -> BaseSampler:
    with quiet_optuna():
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=_STARTUP_TRIALS)


def _gp(seed: int) -> BaseSampler:
    with quiet_optuna():  # the sampler imports torch at the first proposal that needs it
        return GPSampler(seed=seed, deterministic_objective=False, n_startup_trials=_STARTUP_TRIALS)


def _nsga2(seed: int) -> BaseSampler:
    with quiet_optuna():
        return NSGAIISampler(seed=seed, population_size=_POPULATION)
