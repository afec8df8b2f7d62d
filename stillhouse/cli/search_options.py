"""The options of a search, which `search` and `plan` share, as settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillhouse.cli import completion
from stillhouse.cli.answer import Answer, give_signature, parameters_of
from stillhouse.cli.options import (
    DATA,
    CorpusTextOption,
    DeviceOption,
    DevOption,
    FinetuneOption,
    LabelOption,
    MetricOption,
    SeedOption,
    SetOption,
    TaskOption,
    TeacherOption,
    TextOption,
    UnlabelledOption,
)
from stillhouse.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from stillhouse.run.settings import RunSettings

YAML_SUFFIXES = (".yaml", ".yml")
SEARCH = "Search"
"""Panel of the options that say how students are looked for."""

WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [SETTINGS_FILE]",
        help="kd-nas, autodistil, nas-bert, autodistill, layer-map or plain (the default), and a "
        "YAML file; options given win.",
        autocompletion=completion.recipes,
    ),
]


LEARNING_ON_A_TASK = (
    "recipe",
    "seed",
    "teacher",
    "task",
    "limit",
    "device",
    "distill",
    "extract",
    "mlm",
    "quantise",
    "layer_map",
)
"""Sections that make a student on a task, searched or given."""
_READS_ON_A_TASK = (*LEARNING_ON_A_TASK, "space", "search", "final", "compare")


def gather_settings(
    file: Path | None,
    options: Mapping[str, Any],
    *,
    limits: Sequence[str] = (),
    time: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    reads: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> RunSettings:
    """Merges a settings file and options; loads torch only now, so that --help is quick."""
    from stillhouse.cli.settings import gather_settings as gather  # noqa: PLC0415  loads torch

    return gather(
        file, options, limits=limits, time=time, device=device, overrides=overrides, reads=reads
    )


def task_options(
    task: str | None,
    text: str | None,
    label: str | None,
    dev: str | None,
    metric: str | None,
) -> dict[str, Any]:
    """Returns the options that say what a task is, by settings path."""
    return {
        "task.name": task,
        "task.text": None if text is None else text.split(","),
        "task.label": label,
        "task.dev": dev,
        "task.metric": metric,
    }


def search_settings(
    words: WordsArgument = None,
    *,
    teacher: TeacherOption = None,
    task: TaskOption = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="latency_ms=5, speedup=3, size_mb=40, memory_mb=300, params_m=10 or "
            "flops_fraction=0.5, or several with commas between. Repeatable; for nas-bert each is "
            "a budget of its own.",
            metavar="NAME=VALUE",
            autocompletion=completion.limits,
        ),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    unlabelled: UnlabelledOption = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="autodistil, nas-bert, autodistill, layer-map: text files, a .jsonl or .parquet "
            "file, or hf:OWNER/NAME.",
            autocompletion=completion.paths,
            rich_help_panel=DATA,
        ),
    ] = None,
    corpus_text: CorpusTextOption = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time for the whole run: 45m, 1h30m, 90s.", rich_help_panel=SEARCH),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            "--candidates",
            "--trials",
            help="Candidates to train, at most.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="random, tpe, gp, nsga2, or controller (that of KD-NAS).",
            autocompletion=completion.values_of("search.strategy"),
            rich_help_panel=SEARCH,
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="quality,latency_ms (default), with size_mb or flops_fraction beside or instead; "
            "or reward, both in one number.",
            autocompletion=completion.objectives,
            rich_help_panel=SEARCH,
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="A checkpoint or a shape (layers=3,hidden_size=384), distilled like the winners "
            "and shown beside them; for autodistill MobileBERT, MobileBERT-tiny or a shape. "
            "Repeatable.",
            autocompletion=completion.checkpoints,
            rich_help_panel=SEARCH,
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(
            help="layer-map: the student's shape (layers=3,hidden_size=384).",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    device: DeviceOption = None,
    teacher_finetune: FinetuneOption = None,
    seed: SeedOption = None,
    overrides: SetOption = None,
) -> RunSettings:
    """Gathers the settings of a search; `search` and `plan` take exactly these options."""
    recipe, settings_file = read_words(words or [])
    if recipe == "layer-map" and task is not None and corpus is not None:
        raise SettingsError(
            "--task and --corpus exclude each other: give --corpus to judge layer maps on plain "
            "text and proxy tasks (layer_map.tasks), or --task to judge them on that task"
        )
    settings = gather_settings(
        settings_file,
        task_options(task, text, label, dev, metric)
        | {
            "recipe": recipe,
            "student": student,
            "layer_map.judge": "task" if recipe == "layer-map" and task is not None else None,
            "teacher.model": teacher,
            "teacher.finetune": teacher_finetune,
            "task.unlabelled": unlabelled,
            "corpus.name": corpus,
            "corpus.text": corpus_text,
            "search.candidates": candidates,
            "search.strategy": strategy,
            "search.objectives": objectives,
            "compare": compare or None,
            "seed": seed,
        },
        limits=limit or (),
        time=time,
        device=device,
        overrides=overrides or (),
        reads={"plain": _READS_ON_A_TASK, "kd-nas": _READS_ON_A_TASK},
    )
    if student is not None and settings.recipe != "layer-map":
        raise SettingsError(
            f"--student is for layer-map and `stillhouse distill`: {settings.recipe} looks for "
            "students itself. Leave it out"
        )
    return settings


def read_words(words: Sequence[str]) -> tuple[str | None, Path | None]:
    """Tells the recipe from the settings file, in either order.

    Raises:
        BadParameter: If a word is neither, or there are two of a kind.
    """
    from stillhouse.run.recipes import (  # noqa: PLC0415  only when a command runs
        RECIPE_NAMES,
        SEARCHING,
    )

    recipes = [word for word in words if word in RECIPE_NAMES]
    files = [Path(word) for word in words if word not in RECIPE_NAMES]
    for file in files:
        if file.suffix.lower() not in YAML_SUFFIXES and not file.exists():
            raise typer.BadParameter(
                f"{str(file)!r} is neither a recipe ({', '.join(SEARCHING)}) nor a settings "
                f"file{did_you_mean(str(file), SEARCHING)}"
            )
    if len(recipes) > 1 or len(files) > 1:
        raise typer.BadParameter(
            f"give one recipe and one settings file at most, got ({', '.join(words)})"
        )
    return next(iter(recipes), None), next(iter(files), None)


def takes_search_settings(
    command: Callable[..., Answer | None],
) -> Callable[..., Answer | None]:
    """Gives a command the options of `search_settings` beside its own keyword options."""
    options = parameters_of(search_settings)
    own = [p for p in parameters_of(command) if p.name != "settings"]

    @wraps(command)
    def wrapper(*words: Any, **given: Any) -> Answer | None:
        mine = {p.name: given.pop(p.name) for p in own}
        return command(search_settings(*words, **given), **mine)

    give_signature(wrapper, [*options, *own])
    return wrapper
