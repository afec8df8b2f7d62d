"""Any Optuna sampler as a strategy whose proposals depend on its seed and the trials alone."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import optuna
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from stillhouse.search.objectives import TWO_OBJECTIVES, Objective
from stillhouse.search.parameters import distributions, to_indices, to_parameters
from stillhouse.search.quiet import quiet_optuna
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture
from stillhouse.space.search_space import SearchSpace

_MOST_REJECTIONS = 50


@final
class OptunaStrategy:
    """Asks a fresh sampler on a throw-away study that is rebuilt from the trials told.

    Samplers carry a random state and caches, and studies the order of events; rebuilding both at
    every ask is what makes an interrupted search go on exactly as an uninterrupted one.

    Args:
        space: Where to search.
        sampler: Makes a fresh sampler from a seed (`make_sampler`, or any of Optuna's or
            OptunaHub's classes that handles as many objectives).
        seed: Of all proposals, at least 0.
        objectives: What the sampler is told of each trial.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: Callable[[int], BaseSampler],
        seed: int,
        *,
        objectives: Sequence[Objective] = TWO_OBJECTIVES,
    ) -> None:
        """Start knowing no trial."""
        self._space = space
        self._objectives = objectives
        self._sampler = sampler
        self._seed = seed
        self._told: dict[int, Trial] = {}

    def ask(self, count: int) -> list[Architecture]:
        """Propose as `Strategy` says; the sampler sees the batch's earlier ones as running."""
        with quiet_optuna():
            study = self._rebuild_study()
            return [self._propose(study, len(self._told) + place) for place in range(count)]

    def tell(self, trials: Sequence[Trial]) -> None:
        """Remember finished trials as `Strategy` says.

        Raises:
            ValueError: A trial is still running.
        """
        for trial in trials:
            if not trial.is_finished:
                raise ValueError(f"only finished trials are told, trial {trial.number} is running")
            self._told[trial.number] = trial

    def _rebuild_study(self) -> optuna.Study:
        study = optuna.create_study(
            storage=optuna.storages.InMemoryStorage(),
            directions=[one.direction for one in self._objectives],
            sampler=self._sampler(self._seed),
        )
        trials = [_as_judged(self._told[number]) for number in sorted(self._told)]
        study.add_trials(_Replay.of(trials, self._objectives).frozen(self._space, study.sampler))
        return study

    def _propose(self, study: optuna.Study, position: int) -> Architecture:
        for attempt in range(_MOST_REJECTIONS):
            study.sampler = self._sampler(self._draw_seed(position, attempt))
            proposal = study.ask(distributions(self._space))
            architecture = self._space.try_decode(to_indices(self._space, proposal.params))
            if architecture is not None:
                return architecture
            # Accepted or not, the proposal stays a running trial of the throw-away study: TPE and
            # the Gaussian process keep away from those, and would repeat one that failed.
        generator = np.random.default_rng(self._draw_seed(position, _MOST_REJECTIONS))
        return self._space.sample(generator)

    def _draw_seed(self, position: int, attempt: int) -> int:
        sequence = np.random.SeedSequence([self._seed, position, attempt])
        return int(sequence.generate_state(1)[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replay:
    """Told trials, and what the translation of one needs to know of the others."""

    trials: Sequence[Trial]
    limits: Sequence[str]
    objectives: Sequence[Objective]
    medians: Mapping[str, float]

    @staticmethod
    def of(trials: Sequence[Trial], objectives: Sequence[Objective]) -> "_Replay":
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        known = {
            one.name: [value for trial in complete if (value := one.value_of(trial)) is not None]
            for one in objectives
        }
        return _Replay(
            trials=trials,
            limits=sorted({name for trial in trials for name in trial.violations}),
            objectives=objectives,
            medians={name: statistics.median(values) for name, values in known.items() if values},
        )

    def frozen(self, space: SearchSpace, sampler: BaseSampler) -> list[FrozenTrial]:
        replayed: list[FrozenTrial] = []
        complete = 0
        for trial in self.trials:
            values = self._values(trial)
            replayed.append(
                create_trial(
                    state=_optuna_state(trial, values),
                    values=values,
                    params=dict(to_parameters(space, trial.architecture)),
                    distributions=distributions(space),
                    constraints=self._constraints(trial),
                    system_attrs=_generation(sampler, complete),
                )
            )
            complete += values is not None
        return replayed

    def _values(self, trial: Trial) -> list[float] | None:
        """Return the objectives' values, with a stand-in for what nobody measured.

        An infeasible trial is told as a complete one of median quality with its constraint
        violated. Only so do all samplers learn the limit: the Gaussian process and NSGA-II ignore
        pruned trials altogether, constraints included. The median says nothing for or against the
        architecture, and where a constraint is violated no sampler counts it as a good one.
        """
        if trial.state is TrialState.FAILED:
            return None
        measured = {one.name: one.value_of(trial) for one in self.objectives}
        values = [
            self.medians.get(name) if value is None else value for name, value in measured.items()
        ]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None

    def _constraints(self, trial: Trial) -> dict[str, float]:
        # The Gaussian process wants the same limits in the same order in every trial.
        return {name: trial.violations.get(name, 0.0) for name in self.limits}


def _as_judged(trial: Trial) -> Trial:
    """Return a stopped trial as a complete one with the score of the last rung that it reached.

    Samplers read intermediate scores of pruned trials in studies of one objective only, and would
    learn nothing from it. With the whole budget its score would be higher, but it is known to be a
    poor one of its latency, so too low is the side to err on.
    """
    if trial.state is not TrialState.STOPPED:
        return trial
    return replace(trial, state=TrialState.COMPLETE, quality=trial.rung_qualities[-1])


def _optuna_state(trial: Trial, values: Sequence[float] | None) -> OptunaState:
    if trial.state is TrialState.FAILED:
        return OptunaState.FAIL
    return OptunaState.PRUNED if values is None else OptunaState.COMPLETE


def _generation(sampler: BaseSampler, earlier: int) -> dict[str, int]:
    """Return the mark by which evolution knows a trial's generation.

    The sampler sets it when it proposes; a replayed trial was never proposed here, and without
    the mark every ask would belong to the random first generation.
    """
    if not isinstance(sampler, BaseGASampler) or not sampler.population_size:
        return {}
    return {sampler._get_generation_key(): earlier // sampler.population_size}
