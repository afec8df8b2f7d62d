"""What jobs return, and what they are given that is no setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillhouse.data.task import Task
from stillhouse.export.checkpoint import read_metrics
from stillhouse.model.teachers import Teacher
from stillhouse.recipe.own_parts import NO_PARTS, OwnParts
from stillhouse.run.directory import RunDirectory
from stillhouse.search.objectives import front_objectives
from stillhouse.search.pareto import pareto_front
from stillhouse.search.record import read_trials
from stillhouse.search.trial import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A finished student.

    Attributes:
        path: Folder that the class of transformers for its task loads, such as
            `AutoModelForSequenceClassification`.
        metrics: Content of its `metrics.json`.
    """

    path: Path
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search left.

    Attributes:
        trials: All finished trials, by number.
        front: Trials that no other one beats in every objective, fastest first.
        students: Finished students by rank; the first is the best within the limits.
        controls: Students that were trained to the end to check the proxy, by trial.
        competitors: The given shapes and checkpoints (`compare`), distilled alike, in their order.
        path: The run directory.
        report: The report page.
    """

    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    students: tuple[Student, ...]
    controls: tuple[Student, ...]
    competitors: tuple[Student, ...]
    path: Path
    report: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """A fine-tuned checkpoint.

    Attributes:
        path: Folder that the class of transformers for its task loads.
        metrics: Content of its `metrics.json`.
    """

    path: Path
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A teacher, a task and other parts that are objects in memory, where a run has such."""

    teacher: Teacher | None = None
    task: Task | None = None
    own: OwnParts = NO_PARTS


NOTHING_GIVEN = Given()


def family_result(run: RunDirectory, students: Sequence[Student]) -> SearchResult:
    """Returns what a search without trials left."""
    return SearchResult(
        trials=(),
        front=(),
        students=tuple(students),
        controls=(),
        competitors=(),
        path=run.path,
        report=run.path / "report.html",
    )


def search_result(run: RunDirectory) -> SearchResult:
    """Returns what a search with trials left."""
    trials = read_trials(run.storage_url)
    return SearchResult(
        trials=tuple(trials),
        front=tuple(pareto_front(trials, front_objectives(run.state().get("objectives", [])))),
        students=_students(run, "students"),
        controls=_students(run, "controls"),
        competitors=_students(run, "competitors"),
        path=run.path,
        report=run.path / "report.html",
    )


def _students(run: RunDirectory, group: str) -> tuple[Student, ...]:
    return tuple(Student(path=f, metrics=read_metrics(f)) for f in run.students(group))
