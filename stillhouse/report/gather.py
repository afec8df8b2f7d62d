"""Read a run directory into frozen values; what is missing is None, what is damaged is noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from stillhouse.errors import RunError
from stillhouse.report.chain_reading import read_chains
from stillhouse.report.chains import Chains
from stillhouse.report.controller import ControllerRecord, read_controller
from stillhouse.report.cost import Cost, read_cost
from stillhouse.report.family import Family, Search, read_family
from stillhouse.report.fields import (
    Fields,
    finite,
    integer,
    mapping,
    mappings,
    number,
    numbers,
    plain,
    read_json,
    sequence,
    text,
    truth,
)
from stillhouse.report.figures import MASKED_WORDS, Figures, read_figures, report_set_of
from stillhouse.report.layer_map import MapSearch, read_map_searches
from stillhouse.report.limits import Limited, read_limited
from stillhouse.report.measures import Measures, read_measures
from stillhouse.report.objectives import QUALITY, TWO, Names, compared_by
from stillhouse.report.on_text import OnText, read_on_text
from stillhouse.report.proxy_final import ProxyCheck, read_proxy_check
from stillhouse.report.references import References, read_references
from stillhouse.report.supernet_losses import LossCurves, read_losses
from stillhouse.report.trials import TrialRow, read_trials

PROVENANCE_KEY = "provenance"  # section of settings.yaml that tells what the run stood on
COMPETITORS_FILE = "competitors.json"
CHAINS = ("recipe", "nas-bert")  # among the settings
SHARED_KEYS = ("metric", "device", "workload", "workload_label", "latency_how")


@dataclass(frozen=True, slots=True, kw_only=True)
class Student:
    """A distilled student: its own figures and those relative to the teacher.

    The teacher's latency is that of its timing in turn with this student.
    """

    rank: int
    folder: str
    figures: Figures
    teacher_quality: float | None
    quality_fraction: float | None
    teacher_latency_ms: float | None
    speedup: float | None
    speedup_128: float | None
    within_limit: bool | None
    limited: tuple[Limited, ...]
    trial: int | None
    cost_s: float | None
    initialisation: str
    held_out_sequences: int | None
    task_kind: str
    measures: Measures
    on_text: OnText | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Competitor:
    """A given shape or checkpoint, distilled as the students were."""

    number: int
    name: str
    kind: str
    folder: str
    figures: Figures
    quality_fraction: float | None
    teacher_latency_ms: float | None
    speedup: float | None
    within_limit: bool | None
    limited: tuple[Limited, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypervolume:
    """Share that trials dominate of the box from quality 0 at `costs` to quality 1 at none."""

    costs: Mapping[str, float]
    by_trial: tuple[float, ...]

    @property
    def value(self) -> float:
        """That of all trials."""
        return self.by_trial[-1]


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
    objectives: Names
    hypervolume: Hypervolume | None
    phases_s: Mapping[str, float]
    cost: Cost
    teacher: Figures
    trials: tuple[TrialRow, ...]
    references: References
    students: tuple[Student, ...]
    competitors: tuple[Competitor, ...]
    controller: ControllerRecord | None
    proxy_check: ProxyCheck | None
    family: Family | None
    loss_curves: tuple[LossCurves, ...]
    chains: Chains | None
    map_searches: tuple[MapSearch, ...]
    settings: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """Name of the quality, from whoever has been evaluated."""
        named = [student.figures.metric for student in self.students]
        return next((metric for metric in [self.teacher.metric, *named] if metric), "quality")

    @property
    def report_set(self) -> str:
        """Name of what finished models are told on, and which chose none of them."""
        return report_set_of(self.metric)

    @property
    def has_task(self) -> bool:
        """Whether the run is for a task; families and chains learn from plain text alone."""
        is_family = self.family is not None or ("recipe", "autodistil") in self.settings
        return self.chains is None and not is_family and not self.is_general

    @property
    def is_general(self) -> bool:
        """Whether a given student learns from plain text."""
        learnt = any(student.on_text is not None for student in self.students)
        map_of_text = {("recipe", "layer-map"), ("layer_map.judge", "corpus")}
        asked = ("recipe", "general") in self.settings or map_of_text <= set(self.settings)
        return learnt or asked

    @property
    def has_task_heads(self) -> bool:
        """Whether students answer a task; those that are judged by masked words must learn one."""
        return self.has_task and self.metric != MASKED_WORDS

    @property
    def judged_by_hidden(self) -> bool:
        """Whether trials were judged by hidden states, on another scale than finished models."""
        return ("search.quality", "hidden") in self.settings

    @property
    def trial_quality(self) -> str:
        """Name of what trials were judged by."""
        return "1 less hidden-state loss" if self.judged_by_hidden else self.metric

    @property
    def compared_by(self) -> Names:
        """The objectives of the front."""
        return compared_by(self.objectives)

    @property
    def further(self) -> Names:
        """Those of them that a plot of quality and latency does not show."""
        return tuple(name for name in self.compared_by if name not in TWO)

    @property
    def timed_apart(self) -> bool:
        """Whether the teacher took another time beside some model than in its own row."""
        beside = [one.teacher_latency_ms for one in self.students]
        beside += [one.teacher_latency_ms for one in self.competitors]
        return any(told not in (None, self.teacher.latency_ms) for told in beside)

    def chosen(self, search: Search) -> Student | None:
        """The student that a search of a family chose, if it can be read."""
        return next((one for one in self.students if one.rank == search.student), None)


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
    summary = read_json(run / "run.json", notes)
    settings, provenance = _read_settings(run / "settings.yaml", notes)
    teacher = _read_teacher(run, notes)
    has_chains = CHAINS in settings or (run / "operations.csv").exists()
    return Contents(
        name=run.resolve().name,
        status=text(summary, "status") or "not finished",
        reason=text(summary, "reason"),
        started=text(summary, "started"),
        task=text(summary, "task"),
        teacher_name=text(summary, "teacher"),
        wall_s=number(summary, "wall_s"),
        space_size=integer(summary, "space_size"),
        grid_size=integer(summary, "grid_size"),
        limits=numbers(summary, "limits"),
        objectives=tuple(map(plain, sequence(summary, "objectives"))) or TWO,
        hypervolume=_read_hypervolume(mapping(summary, "hypervolume")),
        phases_s=numbers(summary, "phases_s"),
        cost=read_cost(mapping(summary, "cost")),
        teacher=teacher,
        trials=tuple(read_trials(run / "trials.csv", notes)),
        references=read_references(run, notes),
        students=tuple(_read_students(run / "students", notes)),
        competitors=tuple(_read_competitors(run, teacher, notes)),
        controller=read_controller(run, notes),
        proxy_check=read_proxy_check(run, notes),
        family=None if has_chains else read_family(run, notes),
        loss_curves=read_losses(run),
        chains=read_chains(run, notes) if has_chains else None,
        map_searches=read_map_searches(run, notes),
        settings=settings,
        provenance=provenance,
        notes=tuple(notes),
    )


def _read_hypervolume(fields: Fields) -> Hypervolume | None:
    costs = {key: one for key, one in numbers(fields, "reference").items() if key != QUALITY}
    by_trial = [value for value in map(finite, sequence(fields, "by_trial")) if value is not None]
    return Hypervolume(costs=costs, by_trial=tuple(by_trial)) if costs and by_trial else None


def _read_teacher(run: Path, notes: list[str]) -> Figures:
    """The teacher's own metrics; else what the first student's say of it."""
    own = read_json(run / "teacher" / "metrics.json", notes)
    first = next(iter(_student_files(run / "students")), None)
    student = {} if first is None else read_json(first, [])
    said: dict[str, object] = {}
    for key, value in student.items():
        if key in SHARED_KEYS or key.startswith("teacher_"):
            said[key.removeprefix("teacher_")] = value
    said.update({key: value for key, value in own.items() if value is not None})
    return read_figures(said)


def _read_students(folder: Path, notes: list[str]) -> Iterator[Student]:
    for path in _student_files(folder):
        fields = read_json(path, notes)
        if fields:
            yield _student(int(path.parent.name), fields)


def _student_files(folder: Path) -> list[Path]:
    ranked = [path for path in folder.glob("*/metrics.json") if path.parent.name.isdecimal()]
    return sorted(ranked, key=lambda path: int(path.parent.name))


def _student(rank: int, fields: Fields) -> Student:
    return Student(
        rank=rank,
        folder=f"students/{rank}",
        figures=read_figures(fields),
        teacher_quality=number(fields, "teacher_quality"),
        quality_fraction=number(fields, "quality_fraction"),
        teacher_latency_ms=number(fields, "teacher_latency_ms"),
        speedup=number(fields, "speedup"),
        speedup_128=number(fields, "speedup_128"),
        within_limit=truth(fields, "within_limit"),
        limited=read_limited(fields),
        trial=integer(fields, "trial"),
        cost_s=number(fields, "cost_s"),
        initialisation=_initialisation(fields.get("initialisation")),
        held_out_sequences=integer(fields, "held_out_sequences"),
        task_kind=text(fields, "task_kind"),
        measures=read_measures(fields),
        on_text=read_on_text(fields),
    )


def _read_competitors(run: Path, teacher: Figures, notes: list[str]) -> Iterator[Competitor]:
    content = read_json(run / COMPETITORS_FILE, notes)
    for place, fields in enumerate(mappings(content, "points"), start=1):
        figures = read_figures(
            {"metric": teacher.metric, **fields, "architecture": text(fields, "label")}
        )
        yield Competitor(
            number=place,
            name=text(fields, "name"),
            kind=text(fields, "kind"),
            folder=text(fields, "folder"),
            figures=figures,
            quality_fraction=figures.quality / teacher.quality
            if figures.quality is not None and teacher.quality
            else None,
            teacher_latency_ms=number(fields, "teacher_latency_ms"),
            speedup=number(fields, "speedup"),
            within_limit=truth(fields, "within_limit"),
            limited=read_limited(fields),
        )


def _initialisation(described: object) -> str:
    """How the first weights came about, as in `slices of teacher layers 2, 4`, counted from 1.

    Of an extract, also how its neurons were chosen: `neurons by importance`.
    """
    if not isinstance(described, Mapping) or "kind" not in described:
        return plain(described or "")
    layers = [place + 1 for place in described.get("layers") or () if isinstance(place, int)]
    whose = "its" if described["kind"] == "supernet" else "teacher"
    chosen = f", neurons by {described['indices']}" if described.get("indices") else ""
    chosen = chosen.replace("by random", "by chance")
    told = f" of {whose} layers {plain(layers)}" if layers else ""
    return f"{described['kind']}{told}{chosen}"


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
        yield name, plain(value)
