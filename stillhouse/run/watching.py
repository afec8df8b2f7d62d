"""What can be seen of a run from outside, while it works or after: `stillhouse watch`."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stillhouse.errors import RunError
from stillhouse.run.directory import RunDirectory
from stillhouse.run.progress import PROGRESS_FILE
from stillhouse.run.settings_file import read_settings
from stillhouse.search.objectives import front_objectives
from stillhouse.search.pareto import pareto_front
from stillhouse.search.record import has_study, read_trials
from stillhouse.search.trial import Trial

SILENT_AFTER_S = 120.0
"""A run that says nothing for so long is thinking hard, or gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """What a run is doing.

    Attributes:
        task: What, for people.
        fraction: How much of it is done, 0..1.
        detail: Such as the loss.
        left_s: Time that it takes on, if it goes on like this; `None` where that cannot be told.
        silent_s: Time since the run said anything.
    """

    task: str
    fraction: float
    detail: str
    left_s: float | None
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A run as it stands.

    Attributes:
        path: Its directory.
        recipe: Its method.
        status: `running`, `complete`, `interrupted`, `failed`, or `not started`.
        reason: Why it failed.
        elapsed_s: Since it was begun; of a finished run, what it took.
        doing: What it does just now, where it tells.
        counts: Trials by state.
        front: Trials that no other beats, fastest first.
        latest: The last trials, newest first.
        hypervolume: What the front dominates, after each finished trial.
        students: Folders of finished students.
        storage_url: Optuna storage, or `None` for a run that has none.
        tensorboard: Its curves, or `None` where there are none.
    """

    path: Path
    recipe: str
    status: str
    reason: str
    elapsed_s: float | None
    doing: Doing | None
    counts: Mapping[str, int]
    front: tuple[Trial, ...]
    latest: tuple[Trial, ...]
    hypervolume: tuple[float, ...]
    students: tuple[Path, ...]
    storage_url: str | None
    tensorboard: Path | None

    @property
    def is_working(self) -> bool:
        """Whether something more may come."""
        return self.status in ("running", "not started")


def look_at(path: Path, *, latest: int = 5) -> Sight:
    """Reads what a run has written; never writes, and may be called while it works.

    Args:
        path: The run directory.
        latest: Most trials to give as the last ones.

    Raises:
        RunError: If it is no run directory.
    """
    run = RunDirectory(path=path)
    if not run.settings_file.exists():
        raise RunError(f"{path} is no run directory: it has no settings.yaml; name that of --run")
    state, settings = run.state(), read_settings(run.settings_file)
    has_storage = (path / "study.db").exists()
    has_trials = has_storage and has_study(run.storage_url)
    trials = read_trials(run.storage_url) if has_trials else []
    objectives = front_objectives(settings.get("search", {}).get("objectives") or ())
    newest = sorted(trials, key=lambda trial: -trial.number)
    return Sight(
        path=path,
        recipe=str(settings.get("recipe", "plain")),
        status=str(state.get("status", "not started")),
        reason=str(state.get("reason", "")),
        elapsed_s=_elapsed_s(state),
        doing=_doing(path / PROGRESS_FILE),
        counts=Counter(trial.state.value for trial in trials),
        front=tuple(pareto_front(trials, objectives)),
        latest=tuple(newest[:latest]),
        hypervolume=tuple(state.get("hypervolume", {}).get("by_trial", ())),
        students=tuple(run.students()),
        storage_url=run.storage_url if has_storage else None,
        tensorboard=run.tensorboard if run.tensorboard.exists() else None,
    )


def _elapsed_s(state: Mapping[str, Any]) -> float | None:
    """Time since the first start, or the time that a finished run worked."""
    if state.get("status") == "complete":
        return state.get("wall_s")
    started = state.get("started")
    if started is None:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds()


def _doing(file: Path) -> Doing | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        fraction = min(1.0, told["done"] / told["total"]) if told["total"] else 0.0
        spent_s = told["at"] - told["since"]
        return Doing(
            task=told["task"],
            fraction=fraction,
            detail=told["detail"],
            left_s=spent_s * (1 - fraction) / fraction if fraction > 0 else None,
            silent_s=max(0.0, time.time() - told["at"]),
        )
    except (OSError, ValueError, KeyError):  # none, or half of one on a file system without rename
        return None
