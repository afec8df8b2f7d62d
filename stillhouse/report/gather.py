"""Read a run directory into frozen values; what is missing is None, what is damaged is noted."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from stillhouse.errors import RunError, SpaceError
from stillhouse.space.architecture import architecture_from_dict

ARCHITECTURE_COLUMNS = ("family", "layers", "hidden_size", "heads", "ffn_size", "activation")
PROVENANCE_KEY = "provenance"  # section of settings.yaml that tells what the run stood on
SHARED_KEYS = ("metric", "device", "workload", "workload_label", "latency_how")

Fields = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One line of trials.csv; `quality` is on the search-validation set."""

    number: int
    state: str
    architecture: str
    quality: float | None
    latency_ms: float | None
    parameters: float | None
    cost_s: float | None
    repeat_of: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is known of one finished model, teacher or student.

    Fractions are 0..1, latencies are medians in milliseconds, `quality` is on the dev set.
    """

    architecture: str
    metric: str
    quality: float | None
    quality_low: float | None
    quality_high: float | None
    quality_count: float | None
    quality_search: float | None
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_128_ms: float | None
    parameters: float | None
    parameters_encoder: float | None
    size_mb: float | None
    device: str
    workload: str
    latency_how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A distilled student: its own figures and those relative to the teacher."""

    rank: int
    folder: str
    figures: Figures
    teacher_quality: float | None
    quality_fraction: float | None
    speedup: float | None
    speedup_128: float | None
    within_limit: bool | None
    trial: int | None
    cost_s: float | None
    initialisation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Everything that a report tells about a run."""

    name: str
    status: str
    reason: str
    started: str
    task: str
    teacher_name: str
    wall_s: float | None
    space_size: int | None
    grid_size: int | None
    limits: Mapping[str, float]
    phases_s: Mapping[str, float]
    teacher: Figures
    trials: tuple[TrialRow, ...]
    students: tuple[Student, ...]
    settings: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """Name of the quality, from whoever has been evaluated."""
        named = [student.figures.metric for student in self.students]
        return next((metric for metric in [self.teacher.metric, *named] if metric), "quality")

    @property
    def latency_limit_ms(self) -> float | None:
        """The hard limit on latency, in itself or as a speed-up over the teacher."""
        asked = [self.limits["latency_ms"]] if "latency_ms" in self.limits else []
        if self.limits.get("speedup") and self.teacher.latency_ms:
            asked.append(self.teacher.latency_ms / self.limits["speedup"])
        return min(asked, default=None)


def gather(run: Path) -> Contents:
    """Read what the run directory holds so far.

    Raises:
        RunError: If `run` holds nothing that a run writes.
    """
    if not any((run / name).exists() for name in ("run.json", "settings.yaml", "students")):
        raise RunError(
            f"{run} is not a run directory: it holds no run.json, no settings.yaml and no "
            "students. Name the directory that was given to --run."
        )
    notes: list[str] = []
    summary = _read_json(run / "run.json", notes)
    settings, provenance = _read_settings(run / "settings.yaml", notes)
    students = tuple(_read_students(run / "students", notes))
    return Contents(
        name=run.resolve().name,
        status=_text(summary, "status") or "not finished",
        reason=_text(summary, "reason"),
        started=_text(summary, "started"),
        task=_text(summary, "task"),
        teacher_name=_text(summary, "teacher"),
        wall_s=_number(summary, "wall_s"),
        space_size=_integer(summary, "space_size"),
        grid_size=_integer(summary, "grid_size"),
        limits=_numbers(summary, "limits"),
        phases_s=_numbers(summary, "phases_s"),
        teacher=_read_teacher(run, notes),
        trials=tuple(_read_trials(run / "trials.csv", notes)),
        students=students,
        settings=settings,
        provenance=provenance,
        notes=tuple(notes),
    )


def _read_teacher(run: Path, notes: list[str]) -> Figures:
    """The teacher's own metrics; else what the first student's say of it."""
    own = _read_json(run / "teacher" / "metrics.json", notes)
    first = next(iter(_student_files(run / "students")), None)
    student = {} if first is None else _read_json(first, [])
    said: dict[str, object] = {}
    for key, value in student.items():
        if key in SHARED_KEYS or key.startswith("teacher_"):
            said[key.removeprefix("teacher_")] = value
    said.update({key: value for key, value in own.items() if value is not None})
    return _figures(said)


def _read_students(folder: Path, notes: list[str]) -> Iterator[Student]:
    for path in _student_files(folder):
        fields = _read_json(path, notes)
        if fields:
            yield _student(int(path.parent.name), fields)


def _student_files(folder: Path) -> list[Path]:
    ranked = [path for path in folder.glob("*/metrics.json") if path.parent.name.isdecimal()]
    return sorted(ranked, key=lambda path: int(path.parent.name))


def _student(rank: int, fields: Fields) -> Student:
    within = fields.get("within_limit")
    return Student(
        rank=rank,
        folder=f"students/{rank}",
        figures=_figures(fields),
        teacher_quality=_number(fields, "teacher_quality"),
        quality_fraction=_number(fields, "quality_fraction"),
        speedup=_number(fields, "speedup"),
        speedup_128=_number(fields, "speedup_128"),
        within_limit=within if isinstance(within, bool) else None,
        trial=_integer(fields, "trial"),
        cost_s=_number(fields, "cost_s"),
        initialisation=_initialisation(fields.get("initialisation")),
    )


def _initialisation(described: object) -> str:
    """How the first weights came about, as in `slices of teacher layers 1, 3`."""
    if not isinstance(described, Mapping) or "kind" not in described:
        return _plain(described or "")
    layers = described.get("layers")
    return f"{described['kind']}" + (f" of teacher layers {_plain(layers)}" if layers else "")


def _figures(fields: Fields) -> Figures:
    described = fields.get("architecture")
    return Figures(
        architecture=_label(described) if isinstance(described, dict) else str(described or ""),
        metric=_text(fields, "metric"),
        quality=_number(fields, "quality"),
        quality_low=_number(fields, "quality_low"),
        quality_high=_number(fields, "quality_high"),
        quality_count=_number(fields, "quality_count"),
        quality_search=_number(fields, "quality_search"),
        latency_ms=_number(fields, "latency_ms"),
        latency_low_ms=_number(fields, "latency_low_ms"),
        latency_high_ms=_number(fields, "latency_high_ms"),
        latency_128_ms=_number(fields, "latency_128_ms"),
        parameters=_number(fields, "parameters"),
        parameters_encoder=_number(fields, "parameters_encoder"),
        size_mb=_number(fields, "size_mb"),
        device=_text(fields, "device"),
        workload=_text(fields, "workload_label") or _text(fields, "workload"),
        latency_how=_text(fields, "latency_how"),
    )


def _read_trials(path: Path, notes: list[str]) -> Iterator[TrialRow]:
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        notes.append(f"{path.name} could not be read: {error}")
        return
    for line, row in enumerate(rows, start=2):
        number = _integer(row, "number")
        if number is None:
            notes.append(f"{path.name} line {line} has no trial number; it is left out")
            continue
        yield TrialRow(
            number=number,
            state=(row.get("state") or "").lower(),
            architecture=_label({key: row[key] for key in ARCHITECTURE_COLUMNS if row.get(key)}),
            quality=_number(row, "quality"),
            latency_ms=_number(row, "latency_ms"),
            parameters=_number(row, "parameters"),
            cost_s=_number(row, "cost_s"),
            repeat_of=_integer(row, "repeat_of"),
            reason=_text(row, "reason"),
        )


def _label(described: Fields) -> str:
    """Label of an architecture; of one that this version cannot read, its fields as they are."""
    typed = {key: _as_integer(value) for key, value in described.items()}
    try:
        return architecture_from_dict(typed).label
    except SpaceError:
        return ", ".join(f"{key}={value}" for key, value in described.items())


def _as_integer(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _read_json(path: Path, notes: list[str]) -> dict[str, object]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.append(f"{path.parent.name}/{path.name} could not be read: {error}")
        return {}
    return content if isinstance(content, dict) else {}


def _read_settings(
    path: Path, notes: list[str]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Settings and provenance as (dotted name, value) pairs, in the order of the file."""
    if not path.exists():
        return (), ()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        notes.append(f"{path.name} could not be read: {error}")
        return (), ()
    if not isinstance(content, dict):
        return (), ()
    origin = content.pop(PROVENANCE_KEY, None) or {}
    return tuple(_flatten(content)), tuple(_flatten(origin))


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _plain(value)


def _plain(value: object) -> str:
    """A value as a person would write it: lists and mappings on one line, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _text(fields: Fields, key: str) -> str:
    value = fields.get(key)
    return "" if value is None else _plain(value)


def _number(fields: Fields, key: str) -> float | None:
    """A finite number, written as a number or (in a CSV) as text; else None."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _integer(fields: Fields, key: str) -> int | None:
    number = _number(fields, key)
    return None if number is None else int(number)


def _numbers(fields: Fields, key: str) -> dict[str, float]:
    """The finite numbers of a mapping, by name."""
    inner = fields.get(key)
    if not isinstance(inner, dict):
        return {}
    found = {str(name): _number(inner, name) for name in inner}
    return {name: number for name, number in found.items() if number is not None}
