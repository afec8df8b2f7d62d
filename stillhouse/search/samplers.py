"""Optuna's samplers by name, each as a function from a seed to a fresh sampler."""

from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from stillhouse.search.quiet import quiet_optuna

SamplerName: TypeAlias = Literal["random", "tpe", "gp", "nsga2"]

FIRST_TRIALS: dict[SamplerName, int] = {"random": 0, "tpe": 10, "gp": 5, "nsga2": 20}
"""Random trials that a sampler begins with; of evolution, its population.

Searches are tens to hundreds of trials long: five generations and more.
"""


def make_sampler(
    name: SamplerName, first_trials: int | None = None
) -> Callable[[int], BaseSampler]:
    """Return the function that makes a fresh, seeded sampler.

    Args:
        name: random; tpe, tree-structured Parzen estimators over all dimensions jointly; gp,
            Gaussian processes with expected hypervolume improvement; nsga2, evolution.
        first_trials: How many are random at its start; of nsga2, its population. `None` takes
            `FIRST_TRIALS`.

    Returns:
        A function from a seed (0..2³²-1) to a sampler.
    """
    count = FIRST_TRIALS[name] if first_trials is None else first_trials

    def make(seed: int) -> BaseSampler:
        with quiet_optuna():  # the Gaussian process imports torch at its first real proposal
            match name:
                case "random":
                    return RandomSampler(seed=seed)
                case "tpe":
                    return TPESampler(seed=seed, multivariate=True, n_startup_trials=count)
                case "gp":
                    return GPSampler(
                        seed=seed, deterministic_objective=False, n_startup_trials=count
                    )
                case "nsga2":
                    return NSGAIISampler(seed=seed, population_size=count)
                case _:
                    assert_never(name)

    return make
