"""The trial record: an Optuna study in a database, which outlives the process."""

import csv
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import optuna
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from stillhouse.errors import RunError
from stillhouse.search.objectives import QUALITY, TWO_OBJECTIVES, Objective
from stillhouse.search.parameters import distributions, to_parameters
from stillhouse.search.quiet import quiet_optuna
from stillhouse.search.trial import JsonValue, Trial, TrialState
from stillhouse.space.architecture import Architecture, architecture_from_dict
from stillhouse.space.search_space import SearchSpace

_LOCK_PATIENCE_S = 60  # SQLite's default of 5 s is short beside a dashboard on a slow disk

_STOPPED = "stopped"
_OWN_ATTRIBUTES = (
    "architecture",
    "latency_ms",
    "violations",
    "reason",
    "repeat_of",
    "cost_s",
    _STOPPED,
)

_STATES = {
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.PRUNED: TrialState.INFEASIBLE,
    OptunaState.FAIL: TrialState.FAILED,
}

_ATTRIBUTE_COLUMNS = (
    "teacher_latency_ms",
    "speedup",
    "parameters",
    "size_mb",
    "memory_mb",
    "flops_fraction",
    "reward",
)
_TRIAL_COLUMNS = (
    "number",
    "state",
    "quality",
    "latency_ms",
    "reason",
    "repeat_of",
    "cost_s",
    *_ATTRIBUTE_COLUMNS,
)
_HEAD_SIZE = "head_size"


@final
class Record:
    """Every trial of a search, written at each step so that a killed process loses none.

    It is a plain Optuna study with the objectives of the search and one constraint per limit, so
    Optuna's dashboard and tools read it. One process writes at a time.

    Args:
        storage_url: Database, such as `sqlite:///runs/first/study.db`.
        space: The search space of the study.
        study_name: Name of the study in the database.
        objectives: Of the study, quality first.

    Raises:
        RunError: The study exists and was made over another space.
    """

    def __init__(
        self,
        storage_url: str,
        space: SearchSpace,
        study_name: str = "search",
        *,
        objectives: Sequence[Objective] = TWO_OBJECTIVES,
    ) -> None:
        """Open the study, or create it."""
        assert objectives[0] == QUALITY  # trials are read back by that
        self.space = space
        self._objectives = objectives
        with quiet_optuna():
            self._storage = _open_storage(storage_url)
            self._study = optuna.create_study(
                storage=self._storage,
                sampler=optuna.samplers.RandomSampler(),  # never asked
                study_name=study_name,
                directions=[one.direction for one in objectives],
                load_if_exists=True,
            )
            self._study.set_metric_names([one.name for one in objectives])
        self._claim_for_space()

    def start(self, architecture: Architecture) -> int:
        """Record that a candidate is being tried.

        Args:
            architecture: One of the space.

        Returns:
            The number of its trial.

        Raises:
            SpaceError: The architecture is not in the space.
        """
        # One transaction: a process killed here leaves a whole trial or none.
        trial_id = self._storage.create_new_trial(
            self._storage.get_study_id_from_name(self._study.study_name),
            create_trial(
                state=OptunaState.RUNNING,
                params=dict(to_parameters(self.space, architecture)),
                distributions=distributions(self.space),
                user_attrs={"architecture": architecture.to_dict()},
            ),
        )
        return self._storage.get_trial_number_from_id(trial_id)

    def note(self, number: int, attributes: Mapping[str, JsonValue]) -> None:
        """Add attributes to a running trial, replacing those of the same name.

        Args:
            number: Of the trial.
            attributes: Plain data by name.

        Raises:
            ValueError: A name belongs to a field of the trial.
        """
        reserved = sorted(attributes.keys() & set(_OWN_ATTRIBUTES))
        if reserved:
            raise ValueError(
                f"an attribute must not be called {', '.join(reserved)}: the trial has such a "
                "field; choose another name"
            )
        self._write(number, attributes)

    def note_screening(
        self, number: int, *, latency_ms: float, violations: Mapping[str, float]
    ) -> None:
        """Record that a running trial's latency and limits are known.

        Args:
            number: Of the trial.
            latency_ms: Latency on the device of the search.
            violations: By limit, the relative amount over it.
        """
        # The latency comes last: a trial that has it has been screened in full.
        self._write(number, {"violations": dict(violations), "latency_ms": latency_ms})

    def note_time(self, number: int, *, cost_s: float) -> None:
        """Record what a running trial has taken until now.

        Args:
            number: Of the trial.
            cost_s: Wall-clock time of all processes that worked on it, in seconds.
        """
        self._write(number, {"cost_s": cost_s})

    def finish(self, trial: Trial) -> None:
        """Record the outcome of a running trial; what was noted before stays.

        Args:
            trial: In a final state, under the number that `start` gave.

        Raises:
            ValueError: The trial is still running, or an attribute is called like a field.
        """
        if not trial.is_finished:
            raise ValueError(f"trial {trial.number} is still running; finish it with its outcome")
        self.note(trial.number, trial.attributes)
        self._write(trial.number, _own_attributes(trial))
        self._write_constraints(trial)
        # The state comes last: a process killed before leaves a running trial, to be done again.
        if trial.state is TrialState.COMPLETE:
            known = (one.value_of(trial) for one in self._objectives)
            values = [value for value in known if value is not None]
            # Whoever screens a candidate records what is searched for.
            assert len(values) == len(self._objectives)
            self._study.tell(trial.number, values=values, state=OptunaState.COMPLETE)
        else:
            failed = trial.state is TrialState.FAILED
            state = OptunaState.FAIL if failed else OptunaState.PRUNED
            self._study.tell(trial.number, state=state)

    def trials(self) -> list[Trial]:
        """Read every trial from the database, by number, running ones included."""
        states = tuple(_STATES)  # a trial that someone queued in a dashboard is not ours
        return [_thaw(frozen) for frozen in self._study.get_trials(deepcopy=False, states=states)]

    def running(self) -> list[Trial]:
        """Read the trials that were started and have no outcome."""
        return [trial for trial in self.trials() if not trial.is_finished]

    def export_csv(self, path: Path) -> None:
        """Write one line per trial; the file is either the old one or the new one, never half.

        There is a column head_size if heads are free in the space; it is empty where they are not
        in the architecture.

        Args:
            path: The file to write; its folder exists.
        """
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        draft = Path(name)
        try:
            with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, _columns(self.space), lineterminator="\n")
                writer.writeheader()
                writer.writerows(_csv_row(trial) for trial in self.trials())
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o644)  # a temporary file is private; a table is meant to be read
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    def _claim_for_space(self) -> None:
        # Through text and back, so that tuples and lists compare equal.
        ours = json.loads(json.dumps(_describe(self.space)))
        theirs = self._study.user_attrs.get("space")
        if theirs is None:
            self._study.set_user_attr("space", ours)
        elif theirs != ours:
            raise RunError(
                f"the study {self._study.study_name!r} was made over another search space "
                f"({theirs}) than this one ({ours}); use a new run directory, or the old settings"
            )

    def _write(self, number: int, attributes: Mapping[str, JsonValue]) -> None:
        trial_id = self._trial_id(number)
        known = self._storage.get_trial_user_attrs(trial_id)
        for name, value in attributes.items():
            if name not in known or known[name] != value:
                self._storage.set_trial_user_attr(trial_id, name, value)

    def _write_constraints(self, trial: Trial) -> None:
        with quiet_optuna():
            handle = optuna.trial.Trial(self._study, self._trial_id(trial.number))
        known = handle.constraints  # those of a finish that was killed half-way stay
        for name, amount in trial.violations.items():
            if name not in known:
                handle.set_constraint(name, amount)

    def _trial_id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)


def _open_storage(url: str) -> optuna.storages.BaseStorage:
    sqlite = url.startswith("sqlite")
    engine_kwargs = {"connect_args": {"timeout": _LOCK_PATIENCE_S}} if sqlite else {}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs))


def _describe(space: SearchSpace) -> dict[str, JsonValue]:
    return {
        "dimensions": {item.name: list(item.values) for item in space.dimensions},
        "constraints": [rule.description for rule in space.constraints],
    }


def _own_attributes(trial: Trial) -> dict[str, JsonValue]:
    own: dict[str, JsonValue] = {
        "latency_ms": trial.latency_ms,
        "violations": dict(trial.violations),
        "reason": trial.reason,
        "repeat_of": trial.repeat_of,
        "cost_s": trial.cost_s,
        # Optuna has one state for this and for a trial over a limit.
        _STOPPED: True if trial.state is TrialState.STOPPED else None,
    }
    # What the trial does not say does not undo what was noted before.
    return {name: value for name, value in own.items() if value not in (None, "", {})}


def _thaw(frozen: FrozenTrial) -> Trial:
    known = frozen.user_attrs
    state = _STATES[frozen.state]
    if state is TrialState.INFEASIBLE and known.get(_STOPPED):
        state = TrialState.STOPPED
    return Trial(
        number=frozen.number,
        architecture=architecture_from_dict(known["architecture"]),
        state=state,
        quality=frozen.values[0] if state is TrialState.COMPLETE else None,
        latency_ms=known.get("latency_ms"),
        reason=known.get("reason", ""),
        repeat_of=known.get("repeat_of"),
        cost_s=known.get("cost_s", 0.0),
        violations=known.get("violations", {}),
        attributes={name: known[name] for name in known if name not in _OWN_ATTRIBUTES},
    )


def _columns(space: SearchSpace) -> list[str]:
    own = list(space.smallest().to_dict())
    has_free_heads = {"heads", _HEAD_SIZE} <= {item.name for item in space.dimensions}
    if has_free_heads and _HEAD_SIZE not in own:
        own.insert(own.index("heads") + 1, _HEAD_SIZE)
    return [*_TRIAL_COLUMNS, *own]


def _csv_row(trial: Trial) -> Mapping[str, object]:
    return {
        "number": trial.number,
        "state": trial.state.value,
        "quality": trial.quality,
        "latency_ms": trial.latency_ms,
        "reason": trial.reason,
        "repeat_of": trial.repeat_of,
        "cost_s": trial.cost_s,
        **{name: trial.attributes.get(name) for name in _ATTRIBUTE_COLUMNS},
        **trial.architecture.to_dict(),
    }


def has_study(storage_url: str, study_name: str = "search") -> bool:
    """Tell whether a storage that exists holds a search; a run may hold layer maps alone."""
    with quiet_optuna():
        return study_name in optuna.get_all_study_names(storage=_open_storage(storage_url))


def read_trials(storage_url: str, study_name: str = "search") -> list[Trial]:
    """Read the trials of a finished search without its space.

    Args:
        storage_url: Database of the record.
        study_name: Name of the study in the database.

    Returns:
        All trials by number, running ones included.
    """
    with quiet_optuna():
        study = optuna.load_study(study_name=study_name, storage=_open_storage(storage_url))
        return [_thaw(frozen) for frozen in study.get_trials(deepcopy=False, states=tuple(_STATES))]
