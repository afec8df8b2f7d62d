"""The search for a layer map: every map that is judged is a trial of an Optuna study of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, final

import optuna
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from stillhouse.distill.layer_maps import Genes
from stillhouse.errors import RunError, TrainingError
from stillhouse.search.map_space import MapSpace
from stillhouse.search.quiet import quiet_optuna
from stillhouse.search.trial import CandidateFailed, JsonValue, TrialState
from stillhouse.search.trial_time import time_kept

_LOCK_PATIENCE_S = 60  # as that of the trial record
_STATES = {
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.FAIL: TrialState.FAILED,
}
_REASON, _COST, _SPACE = "reason", "cost_s", "space"


class MapStrategy(Protocol):
    """Proposes layer maps and learns what became of them.

    What it proposes depends on its seed and on the maps told, and on nothing else: not on the order
    of telling, not on earlier asks.
    """

    def ask(self, count: int) -> list[Genes]:
        """Propose maps to judge next.

        Args:
            count: Most maps, at least 1.

        Returns:
            Different maps of the space, none of them told before; none when all were told.
        """

    def tell(self, judged: Mapping[Genes, float | None]) -> None:
        """Learn what became of maps.

        Args:
            judged: Fitness by map, higher is better; `None` of a failed one.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class MapJudgement:
    """What training with a map found out.

    Attributes:
        fitness: Higher is better.
        attributes: Whatever else is worth recording.
    """

    fitness: float
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapTrial:
    """A layer map and what became of it.

    Attributes:
        number: Position in the search, from 0.
        genes: The map.
        state: Running, complete or failed.
        fitness: Of a complete one.
        reason: Why it failed.
        cost_s: Wall-clock time of all processes that judged it.
        attributes: Whatever else was recorded.
    """

    number: int
    genes: Genes
    state: TrialState
    fitness: float | None = None
    reason: str = ""
    cost_s: float = 0.0
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)


MapJudge = Callable[[Genes], MapJudgement]


def search_maps(
    judge: MapJudge,
    *,
    space: MapSpace,
    strategy: MapStrategy,
    evaluations: int,
    storage_url: str,
    study_name: str,
    on_trial: Callable[[Sequence[MapTrial]], None] = lambda _: None,
) -> list[MapTrial]:
    """Judges maps until there are enough of them, or none is left; resumes what the study holds.

    A map is judged once. One whose judgement was interrupted is judged again under its number;
    one that fails is recorded with its reason, counts, and the search goes on.

    Args:
        judge: Trains with a map; raises `CandidateFailed` or `TrainingError` where that fails.
        space: Where maps are from.
        strategy: Proposes; is told every recorded map first.
        evaluations: Different maps to judge, at most.
        storage_url: Database, such as `sqlite:///runs/first/study.db`.
        study_name: Name of the study in it.
        on_trial: Given all finished trials when one has finished.

    Returns:
        All finished trials, by number.

    Raises:
        RunError: If the study exists and is of another space.
    """
    record = _MapRecord(storage_url, study_name, space)
    finished = record.trials(running=False)
    strategy.tell({trial.genes: trial.fitness for trial in finished})
    interrupted = [trial.genes for trial in record.trials() if trial not in finished]
    while len(finished) < evaluations and (proposed := interrupted or strategy.ask(1)):
        genes = proposed.pop(0)
        trial = record.start(genes)
        with time_kept(record, trial) as spent_s:
            judged = replace(_judged(judge, trial), cost_s=spent_s())
        record.finish(judged)
        # Read back, so that what is learnt now is what a resumed search will be told.
        finished = record.trials(running=False)
        strategy.tell({trial.genes: trial.fitness for trial in finished})
        on_trial(finished)
    return finished


def best_map(trials: Sequence[MapTrial]) -> MapTrial | None:
    """Returns the trial of the highest fitness, of equals the first; none where all failed."""
    complete = [trial for trial in trials if trial.fitness is not None]
    return max(complete, key=lambda trial: trial.fitness or 0.0, default=None)


def _judged(judge: MapJudge, trial: MapTrial) -> MapTrial:
    try:
        found = judge(trial.genes)
        if not math.isfinite(found.fitness):
            raise CandidateFailed(f"its fitness is {found.fitness}, not a finite number")
    except (CandidateFailed, TrainingError) as error:
        return replace(trial, state=TrialState.FAILED, reason=str(error))
    return replace(
        trial, state=TrialState.COMPLETE, fitness=found.fitness, attributes=found.attributes
    )


@final
class _MapRecord:
    """The study of a search: integer parameters g1 to gM, and the fitness to be maximised.

    Args:
        storage_url: Database.
        study_name: Name of the study in it.
        space: The space of the search.

    Raises:
        RunError: The study exists and was made over another space.
    """

    def __init__(self, storage_url: str, study_name: str, space: MapSpace) -> None:
        """Open the study, or create it."""
        self._space = space
        with quiet_optuna():
            self._storage = _open_storage(storage_url)
            self._study = optuna.create_study(
                storage=self._storage,
                sampler=optuna.samplers.RandomSampler(),  # never asked
                study_name=study_name,
                direction="maximize",
                load_if_exists=True,
            )
            self._study.set_metric_names(["fitness"])
        ours = {
            "layers": space.layers,
            "teacher_layers": space.teacher_layers,
            "any_order": space.any_order,
            "with_empty": space.with_empty,
        }
        theirs = self._study.user_attrs.get(_SPACE)
        if theirs is None:
            self._study.set_user_attr(_SPACE, ours)
        elif theirs != ours:
            raise RunError(
                f"the study {study_name!r} was made over other layer maps ({theirs}) than these "
                f"({ours}); use a new run directory, or the old settings"
            )

    def start(self, genes: Genes) -> MapTrial:
        """Record that a map is being judged, or take up the trial where it was."""
        for trial in self.trials():
            if trial.genes == genes:
                return trial
        # One transaction: a process killed here leaves a whole trial or none.
        trial_id = self._storage.create_new_trial(
            self._storage.get_study_id_from_name(self._study.study_name),
            create_trial(
                state=OptunaState.RUNNING,
                params={f"g{place}": gene for place, gene in enumerate(genes, start=1)},
                distributions={
                    f"g{place}": IntDistribution(0, self._space.teacher_layers)
                    for place in range(1, len(genes) + 1)
                },
            ),
        )
        number = self._storage.get_trial_number_from_id(trial_id)
        return MapTrial(number=number, genes=genes, state=TrialState.RUNNING)

    def note_time(self, number: int, *, cost_s: float) -> None:
        """Record what a running trial has taken until now."""
        self._storage.set_trial_user_attr(self._id(number), _COST, cost_s)

    def finish(self, trial: MapTrial) -> None:
        """Record the outcome of a running trial."""
        trial_id = self._id(trial.number)
        known = {**trial.attributes, _COST: trial.cost_s, _REASON: trial.reason}
        for name, value in known.items():
            self._storage.set_trial_user_attr(trial_id, name, value)
        # The state comes last: a process killed before leaves a running trial, to be done again.
        if trial.fitness is None:
            self._study.tell(trial.number, state=OptunaState.FAIL)
        else:
            self._study.tell(trial.number, values=trial.fitness)

    def _id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)

    def trials(self, *, running: bool = True) -> list[MapTrial]:
        """Read the trials from the database, by number."""
        states = [state for state in _STATES if running or state is not OptunaState.RUNNING]
        found = self._study.get_trials(deepcopy=False, states=tuple(states))
        return [_thaw(frozen, self._space.layers) for frozen in found]


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    sqlite = url.startswith("sqlite")
    engine_kwargs = {"connect_args": {"timeout": _LOCK_PATIENCE_S}} if sqlite else {}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs))


def _thaw(frozen: FrozenTrial, layers: int) -> MapTrial:
    known = frozen.user_attrs
    state = _STATES[frozen.state]
    return MapTrial(
        number=frozen.number,
        genes=tuple(int(frozen.params[f"g{place}"]) for place in range(1, layers + 1)),
        state=state,
        fitness=frozen.values[0] if state is TrialState.COMPLETE else None,
        reason=known.get(_REASON, ""),
        cost_s=known.get(_COST, 0.0),
        attributes={name: known[name] for name in known if name not in (_COST, _REASON)},
    )
