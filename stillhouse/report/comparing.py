"""Runs that are set side by side: what each holds, and which of them are seeds of one method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stillhouse.errors import DataError, RunError, SettingsError, StillhouseError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, KeptAnswers, read_answers
from stillhouse.export.word_tagger import TAGGER_FILE
from stillhouse.report.fields import Fields, number, plain, read_json
from stillhouse.report.figures import Figures, read_figures
from stillhouse.report.gather import Contents, gather
from stillhouse.run.settings import PROVENANCE_KEY, settings_from_dict
from stillhouse.run.settings_file import read_settings

SEED = "seed"
_NO_METHOD = ("distill.cache_gb", "task.directory")
"""Settings that change nothing of what a run finds."""
MOST_TOLD = 3
"""Settings that a method is told apart by, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A finished model of a run, or its teacher.

    Attributes:
        name: What the page calls it.
        figures: Its measures.
        flops_fraction: Operations as a share of the teacher's.
        teacher_latency_ms: The teacher's, timed in turn with it.
        answers: Its answers on dev, where the run kept them.
        is_optimistic: Whether dev chose its epoch, so that its score there flatters it.
    """

    name: str
    figures: Figures
    flops_fraction: float | None
    teacher_latency_ms: float | None
    answers: KeptAnswers | None
    is_optimistic: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """A run as it is compared.

    Attributes:
        path: Its directory.
        called: The method that the user gave it a name as; empty without one.
        contents: What the report reads of it.
        settings: By dotted name, those of older versions with today's defaults.
        provenance: By dotted name.
        models: Finished students by rank, or the one model of a fine-tuning.
        teacher: The teacher; None where the run has none.
        notes: What could not be read.
    """

    path: Path
    called: str
    contents: Contents
    settings: Mapping[str, str]
    provenance: Mapping[str, str]
    models: tuple[Model, ...]
    teacher: Model | None
    notes: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What quality is."""
        named = (one.figures.metric for one in self.models)
        return next((metric for metric in named if metric), self.contents.metric)

    @property
    def seed(self) -> str:
        """The seed that it was given."""
        return self.settings.get(SEED, "")

    @property
    def dev_sha256(self) -> str | None:
        """Fingerprint of the dev set; None in a run that kept no answers."""
        known = [*self.models, *([] if self.teacher is None else [self.teacher])]
        return next((one.answers.dev_sha256 for one in known if one.answers is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Runs that differ in their seed alone, or that the user gave one name."""

    name: str
    runs: tuple[ComparedRun, ...]


def read_runs(given: Sequence[str]) -> tuple[ComparedRun, ...]:
    """Reads runs.

    Args:
        given: Run directories, each perhaps with a name: `kd-nas=runs/a`.

    Raises:
        RunError: If one is no run directory or comes twice.
        SettingsError: If there is but one.
    """
    named = [_named(one) for one in given]
    seen: dict[Path, str] = {}
    for (_, path), said in zip(named, given, strict=True):
        if path.resolve() in seen:
            raise RunError(
                f"{said} and {seen[path.resolve()]} are one run: name each run once; another run "
                "of the same settings with another seed counts as the same method"
            )
        seen[path.resolve()] = said
    if len(named) < 2:  # noqa: PLR2004  one run is what `stillhouse report` tells of
        raise SettingsError(
            f"a comparison needs two runs at least, got {len(named)}: stillhouse compare RUN RUN; "
            "the page of one run is that of stillhouse report RUN"
        )
    return tuple(_read_run(called, path) for called, path in named)


def methods_of(runs: Sequence[ComparedRun]) -> tuple[Method, ...]:
    """Puts runs of one name, or without names of the same settings but the seed, into one method.

    Returns:
        Two or more methods, in the order of their first runs.

    Raises:
        SettingsError: If there is but one.
    """
    groups: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in runs:
        key = ("name", run.called) if run.called else ("settings", *_identity(run))
        groups.setdefault(key, []).append(run)
    if len(groups) < 2:  # noqa: PLR2004
        raise SettingsError(
            "these runs are all of one method: they have the same name, or the same settings but "
            "for the seed. Give a run of another method, or names that part them, as in "
            f"a={runs[0].path} b={runs[1].path}"
        )
    names = _names([group[0] for group in groups.values()])
    return tuple(
        Method(name=name, runs=tuple(group))
        for name, group in zip(names, groups.values(), strict=True)
    )


def _named(said: str) -> tuple[str, Path]:
    """Reads `NAME=PATH`, or a path, which may hold an equals sign itself."""
    called, equals, path = said.partition("=")
    if _is_there(Path(said)) or not equals:
        return "", Path(said)
    if not called.strip() or not path:
        raise SettingsError(f"a run is given as PATH or NAME=PATH, got {said!r}")
    return called.strip(), Path(path).expanduser()


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name of thousands of letters is no path
        return False


def _read_run(called: str, path: Path) -> ComparedRun:
    contents = gather(path)
    notes = list(contents.notes)
    settings, provenance = _read_settings(path)
    models = tuple(_models(path, contents, notes))
    teacher_metrics = read_json(path / "teacher" / "metrics.json", [])
    teacher = None
    if teacher_metrics or contents.teacher.quality is not None:
        answers = _answers(path / "teacher", notes)
        teacher = _model("teacher", teacher_metrics, contents.teacher, answers)
    return ComparedRun(
        path=path,
        called=called,
        contents=contents,
        settings=settings,
        provenance=provenance,
        models=models,
        teacher=teacher,
        notes=tuple(notes),
    )


def _models(path: Path, contents: Contents, notes: list[str]) -> Iterator[Model]:
    folders = [(f"student {one.rank}", path / one.folder) for one in contents.students]
    if not folders and (path / "model" / "metrics.json").exists():
        folders = [("model", path / "model")]  # of a fine-tuning
    for name, folder in folders:
        fields = read_json(folder / "metrics.json", notes)
        yield _model(name, fields, read_figures(fields), _answers(folder, notes))


def _model(name: str, fields: Fields, figures: Figures, answers: KeptAnswers | None) -> Model:
    return Model(
        name=name,
        figures=figures,
        flops_fraction=number(fields, "flops_fraction"),
        teacher_latency_ms=number(fields, "teacher_latency_ms"),
        answers=answers,
        is_optimistic=fields.get("is_optimistic") is True,
    )


def _answers(folder: Path, notes: list[str]) -> KeptAnswers | None:
    file = folder / ANSWERS_FILE
    if not file.exists():
        return None
    try:
        return read_answers(file)
    except DataError as error:
        notes.append(str(error))
        return None


def _read_settings(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Settings and provenance; a run of an older version has the defaults of settings it lacks."""
    file = path / "settings.yaml"
    if not file.exists():
        return {}, {}
    try:
        content = read_settings(file)
    except SettingsError as error:
        raise RunError(f"{path} cannot be compared: {error}") from error
    origin = content.pop(PROVENANCE_KEY, None) or {}
    with suppress(StillhouseError):
        content = settings_from_dict(content).to_dict()
    return dict(_flat(content)), dict(_flat(origin))


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, plain(value)


def _identity(run: ComparedRun) -> tuple[str, ...]:
    ignored = (SEED, *_NO_METHOD)
    return tuple(f"{name}={value}" for name, value in run.settings.items() if name not in ignored)


def _names(firsts: Sequence[ComparedRun]) -> list[str]:
    """Names methods by what they are, and where that is the same by what differs."""
    names = [run.called or _kind(run) for run in firsts]
    told = []
    for run, name in zip(firsts, names, strict=True):
        others = [one for one, its in zip(firsts, names, strict=True) if its == name]
        apart = [] if run.called or len(others) == 1 else differing(others)[:MOST_TOLD]
        values = ", ".join(f"{key} {run.settings.get(key, '–')}" for key in apart)
        told.append(f"{name} ({values})" if values else name)
    return [
        name if told.count(name) == 1 else f"{name} ({run.path})"
        for name, run in zip(told, firsts, strict=True)
    ]


def _kind(run: ComparedRun) -> str:
    """Names the job of a run; its strategy only where it searched."""
    if trained := _trained_alone(run):
        return trained
    recipe = run.settings.get("recipe", "plain")
    strategy = run.settings.get("search.strategy", "")
    if not run.contents.trials and not run.contents.students:
        strategy = ""
    if recipe == "plain":
        return strategy or run.path.name
    return recipe if strategy in ("", "controller") else f"{recipe}, {strategy}"


def _trained_alone(run: ComparedRun) -> str:
    """Names a job that trains one model; empty for others."""
    few_bits, tuned, student = (
        run.settings.get(name, "–") for name in ("quantise.model", "finetune.model", "student")
    )
    if few_bits != "–":
        return f"{_short(few_bits)} in {run.settings.get('quantise.weight_bits')} bits"
    if tuned != "–":
        return f"fine-tuned {_short(tuned)}"
    if student != "–":
        return f"distilled {student}"
    return "cross-view" if (run.path / "model" / TAGGER_FILE).exists() else ""


def _short(checkpoint: str) -> str:
    return "/".join(Path(checkpoint).parts[-3:])


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Names of the settings in which runs differ, seeds left out."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    ignored = (SEED, *_NO_METHOD)
    return [
        name
        for name in names
        if name not in ignored and len({run.settings.get(name) for run in runs}) > 1
    ]
