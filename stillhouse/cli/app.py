"""The commands of stillhouse."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stillhouse.cli.attack import attack
from stillhouse.cli.cross_view import cross_view
from stillhouse.cli.devices import devices, measure
from stillhouse.cli.doctor import doctor
from stillhouse.cli.profile import profile
from stillhouse.cli.progress import RichNarrator
from stillhouse.cli.quantise import quantise
from stillhouse.cli.watch import watch
from stillhouse.device.data_sheets import data_sheets
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import SettingsError, StillhouseError

if TYPE_CHECKING:
    from stillhouse.api import FinetuneResult, Student
    from stillhouse.evaluate.loyalty import Loyalty
    from stillhouse.recipe.evaluation import Evaluation
    from stillhouse.recipe.plan import Plan
    from stillhouse.run.settings import RunSettings

app = typer.Typer(
    name="stillhouse",
    help="Search student architectures of a teacher and distil the best that a limit allows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
out = Console()
err = Console(stderr=True)

YAML_SUFFIXES = (".yaml", ".yml")
EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

TeacherOption = Annotated[
    str | None,
    typer.Option(help="Hub id or folder of a BERT, RoBERTa, DistilBERT or ELECTRA, or 'scratch'."),
]
TaskOption = Annotated[
    str | None,
    typer.Option(
        help="glue/sst2 and the like, squad, squad-v2, a table, CoNLL or SQuAD file, "
        "hf:OWNER/NAME, or 'embedded'."
    ),
]
RunOption = Annotated[
    Path, typer.Option("--run", help="Run directory; the same command again resumes it.")
]
TextOption = Annotated[str | None, typer.Option(help="Text column of a table, or two: a,b.")]
LabelOption = Annotated[str | None, typer.Option(help="Label column of a table; may hold lists.")]
DevOption = Annotated[
    str | None, typer.Option(help="Table (or split of hf:) for reports; else a tenth is set aside.")
]
MetricOption = Annotated[str | None, typer.Option(help="Primary metric, such as f1_macro.")]
UnlabelledOption = Annotated[
    str | None, typer.Option(help="File of extra texts that only the teacher labels.")
]
FinetuneOption = Annotated[
    str | None,
    typer.Option(
        "--teacher-finetune",
        help="auto (unless the checkpoint has a trained head), always or never.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help=f"Where latency is told: auto, {', '.join(MEASURED)}; a .csv file of latencies; a "
        f".json file of `profile`; or a chip by its data sheet ({', '.join(data_sheets())})."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any setting: path=value, such as search.epochs=2. Repeatable."),
]
SettingsArgument = Annotated[
    Path | None, typer.Argument(help="YAML settings file; options given beside it win.")
]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE] [SETTINGS_FILE]",
        help="kd-nas, autodistil, nas-bert, autodistill, layer-map or plain (the default), and a "
        "YAML file; options given win.",
    ),
]


def gather_settings(
    file: Path | None,
    options: Mapping[str, Any],
    *,
    limits: Sequence[str] = (),
    time: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> RunSettings:
    """Merges a settings file and options; loads torch only now, so that --help is quick."""
    from stillhouse.cli.settings import gather_settings as gather  # noqa: PLC0415  loads torch

    return gather(file, options, limits=limits, time=time, device=device, overrides=overrides)


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
            "a budget of its own."
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
            "file, or hf:OWNER/NAME."
        ),
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time for the whole run: 45m, 1h30m, 90s.")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option("--candidates", "--trials", help="Candidates to train, at most."),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="random, tpe, gp, nsga2, or controller (that of KD-NAS).")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="quality,latency_ms (default), with size_mb or flops_fraction beside or instead; "
            "or reward, both in one number."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="A checkpoint or a shape (layers=3,hidden_size=384), distilled like the winners "
            "and shown beside them; for autodistill MobileBERT, MobileBERT-tiny or a shape. "
            "Repeatable."
        ),
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="layer-map: the student's shape (layers=3,hidden_size=384)."),
    ] = None,
    device: DeviceOption = None,
    teacher_finetune: FinetuneOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
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
        {
            "recipe": recipe,
            "student": student,
            "layer_map.judge": "task" if recipe == "layer-map" and task is not None else None,
            "teacher.model": teacher,
            "teacher.finetune": teacher_finetune,
            "task.name": task,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
            "task.unlabelled": unlabelled,
            "corpus.name": corpus,
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
    from stillhouse.run.recipes import RECIPE_NAMES  # noqa: PLC0415  the package loads pydantic

    recipes = [word for word in words if word in RECIPE_NAMES]
    files = [Path(word) for word in words if word not in RECIPE_NAMES]
    for file in files:
        if file.suffix.lower() not in YAML_SUFFIXES and not file.exists():
            close = get_close_matches(str(file), RECIPE_NAMES, n=1)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise typer.BadParameter(
                f"{str(file)!r} is neither a recipe ({', '.join(RECIPE_NAMES)}) nor a settings "
                f"file{hint}"
            )
    if len(recipes) > 1 or len(files) > 1:
        raise typer.BadParameter(
            f"give one recipe and one settings file at most, got ({', '.join(words)})"
        )
    return next(iter(recipes), None), next(iter(files), None)


def takes_search_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `search_settings` beside its own keyword options."""
    options = _parameters_of(search_settings)
    own = [p for p in _parameters_of(command) if p.name != "settings"]

    @wraps(command)
    def wrapper(*words: Any, **given: Any) -> None:
        mine = {p.name: given.pop(p.name) for p in own}
        command(search_settings(*words, **given), **mine)

    parameters = [*options, *own]
    vars(wrapper)["__signature__"] = Signature(parameters)  # typer reads it
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _parameters_of(function: Callable[..., object]) -> list[Parameter]:
    """Parameters with their annotations evaluated, which typer does for plain functions only."""
    hints = get_type_hints(function, localns={"RunSettings": object}, include_extras=True)
    return [
        parameter.replace(annotation=hints[name])
        for name, parameter in signature(function).parameters.items()
    ]


@app.command()
@takes_search_settings
def search(settings: RunSettings, *, run: RunOption = Path("runs/search")) -> None:
    """Search students for a teacher and a task, and distil the best within the limits.

    Example: stillhouse search --teacher google-bert/bert-base-uncased --task glue/sst2
    --limit latency_ms=5 --run runs/sst2

    With the controller of KD-NAS: stillhouse search kd-nas --teacher T --task glue/sst2

    Without a task: stillhouse search autodistil --teacher T --corpus wiki.txt
    --limit flops_fraction=0.5

    Several budgets from one table: stillhouse search nas-bert --teacher T --corpus wiki.txt
    --limit params_m=10,latency_ms=4 --limit params_m=5

    MobileBERTs for a chip: stillhouse search autodistill --teacher T --corpus wiki.txt
    --device tpu-v4i --trials 60

    The layer map of one student: stillhouse search layer-map --teacher T
    --student layers=3,hidden_size=384 --corpus wiki.txt
    """
    from stillhouse.api import run_search_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_search_job(settings, run, RichNarrator(err))
    if settings.recipe == "autodistil":
        _print_family(result.students)
        return
    if settings.recipe == "nas-bert":
        _print_selected(result.students)
        return
    if settings.recipe == "layer-map":
        _print_layer_maps(result.path)
        if settings.layer_map.judge == "corpus":
            _print_general(result.students[0])
            return
    _print_students(result.students, result.competitors)
    best = result.students[0]
    hint = f"Load the best with {_auto_class(best)}.from_pretrained('{best.path}')"
    if settings.recipe == "autodistill":
        hint = f"Fine-tune the best with stillhouse finetune {best.path} --task glue/mrpc"
    err.print(
        f"\nDone. {hint}, and open {result.report}", markup=False, highlight=False, soft_wrap=True
    )


@app.command()
def select(
    run: Annotated[Path, typer.Argument(help="Run directory of `search nas-bert`.")],
    *,
    limit: Annotated[
        list[str],
        typer.Option(help="latency_ms=4,params_m=10: one budget. Repeatable."),
    ],
) -> None:
    """Select students for other limits from the table of a nas-bert run; takes seconds.

    Example: stillhouse select runs/nb --limit size_mb=12
    """
    from stillhouse.api import run_select_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.cli.settings import read_budget  # noqa: PLC0415  loads torch

    budgets = [read_budget(text) for text in limit]
    with resumable(run):
        result = run_select_job(run, budgets, RichNarrator(err))
    _print_selected(result.students)


@app.command()
def train(
    selected: Annotated[Path, typer.Argument(help="RUN/selected/N, as search and select print.")],
    *,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sequences a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of the schedule.")] = None,
    start: Annotated[
        str | None, typer.Option(help="First weights: scratch (as published) or supernet.")
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Pre-train a student that nas-bert selected, with its teacher; then fine-tune it as usual.

    Example: stillhouse train runs/nb/selected/1 --steps 20000
    """
    from stillhouse.api import run_train_job  # noqa: PLC0415  torch loads after parsing
    from stillhouse.run.settings import parse_override  # noqa: PLC0415  loads torch

    options = {
        "pretrain.steps": steps,
        "pretrain.batch_size": batch_size,
        "pretrain.learning_rate": learning_rate,
        "pretrain.start": start,
    }
    given = {path: value for path, value in options.items() if value is not None}
    given |= dict(parse_override(text) for text in overrides or ())
    with resumable(selected.parent.parent):
        student = run_train_job(selected, given, RichNarrator(err))
    if not student.metrics:  # a worker of a data-parallel training
        return
    out.print(
        f"masked words told right: {student.metrics['mlm_accuracy_fraction']:.1%} of "
        f"{student.metrics['mlm_count']:,} held-out tokens (teacher "
        f"{student.metrics['teacher_mlm_accuracy_fraction']:.1%})",
        highlight=False,
    )
    err.print(
        f"\nDone. Fine-tune it with: stillhouse finetune {student.path} --task glue/mrpc",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command()
@takes_search_settings
def plan(
    settings: RunSettings,
    *,
    run: Annotated[
        Path | None, typer.Option("--run", help="Ignored: a plan writes nothing.", hidden=True)
    ] = None,
) -> None:
    """Tell what a search will do, its time and its disk, from a few timed steps; train nothing.

    Takes the options of search. Example: stillhouse plan kd-nas --teacher T --task glue/sst2
    """
    del run  # taken so that `search` can be replaced by `plan` in any command line
    from stillhouse.api import plan_job  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    _print_plan(plan_job(settings, RichNarrator(err)))


@app.command()
def distill(
    settings_file: SettingsArgument = None,
    *,
    teacher: TeacherOption = None,
    student: Annotated[
        str | None,
        typer.Option(help="A shape (layers=3,hidden_size=384), a folder or a hub id."),
    ] = None,
    task: TaskOption = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(help="As for search; told beside what the student costs. Repeatable."),
    ] = None,
    run: RunOption = Path("runs/distill"),
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    unlabelled: UnlabelledOption = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            help="Instead of a task: text files, a .jsonl or .parquet file, or hf:OWNER/NAME."
        ),
    ] = None,
    corpus_text: Annotated[
        str | None, typer.Option(help="Text column of a corpus that is no .txt file.")
    ] = None,
    layer_map: Annotated[
        str | None,
        typer.Option(
            help="Teacher layers of hidden states and attention: uniform, last, uniform_last, "
            "search, or one for each student layer, from 1, 0 for none: 0,2,5."
        ),
    ] = None,
    initialisation: Annotated[
        str | None,
        typer.Option(
            help="First weights: slices of the teacher, extract (its neurons) or scratch."
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training set or the corpus.")
    ] = None,
    device: DeviceOption = None,
    teacher_finetune: FinetuneOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    overrides: SetOption = None,
) -> None:
    """Distil one given student on a task, or on plain text without one; without a search.

    On text: stillhouse distill --teacher T --student layers=3,hidden_size=384 --corpus wiki.txt

    Example: stillhouse distill --teacher google-bert/bert-base-uncased
    --student layers=3,hidden_size=384 --task glue/sst2
    """
    of_task = {"task": task, "text": text, "label": label, "dev": dev, "metric": metric}
    of_task |= {"unlabelled": unlabelled, "teacher-finetune": teacher_finetune}
    if corpus is not None:
        _refuse_with_corpus(of_task)
    from stillhouse.cli.settings import read_layer_map  # noqa: PLC0415  loads torch

    settings = gather_settings(
        settings_file,
        {
            "recipe": None if corpus is None else "general",
            "corpus.name": corpus,
            "corpus.text": corpus_text,
            "distill.layer_map": None if layer_map is None else read_layer_map(layer_map),
            "distill.initialisation": initialisation,
            "teacher.model": teacher,
            "teacher.finetune": teacher_finetune,
            "task.name": task,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
            "task.unlabelled": unlabelled,
            "student": student,
            "final.epochs": epochs,
            "seed": seed,
        },
        limits=limit or (),
        device=device,
        overrides=overrides or (),
    )
    distilled = settings.distill
    if layer_map is not None and not (distilled.hidden_weight or distilled.attention_weight):
        raise SettingsError(
            "--layer-map has no effect while distill.hidden_weight and distill.attention_weight "
            "are 0: weigh one of them, such as --set distill.hidden_weight=1"
        )
    from stillhouse.api import run_distill_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        finished = run_distill_job(settings, run, RichNarrator(err))
    if "held_out_losses" in finished.metrics:
        _print_general(finished)
        return
    _print_students([finished])
    err.print(f"\nDone. The student lies in {finished.path}", markup=False, soft_wrap=True)


def _refuse_with_corpus(options: Mapping[str, str | None]) -> None:
    """Refuses options of a task beside a corpus.

    Raises:
        SettingsError: If one is given.
    """
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise SettingsError(
            f"{', '.join(given)} and --corpus exclude each other: give --corpus to distil an "
            "encoder on plain text, and fine-tune it on a task afterwards; or --task to distil on "
            "a task at once"
        )


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub id.")],
    *,
    task: TaskOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Fine-tuned teacher, to tell how loyal the model's answers are to it."),
    ] = None,
    loyalty_base: Annotated[
        str, typer.Option(help="Logarithm of the probability loyalty: e (as published) or 2.")
    ] = "e",
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    overrides: SetOption = None,
) -> None:
    """Score a checkpoint on the dev set of a task.

    Example: stillhouse evaluate runs/sst2/students/1 --task glue/sst2 --teacher runs/sst2/teacher
    """
    if loyalty_base not in ("e", "2"):
        raise SettingsError(f"--loyalty-base is e or 2, but is {loyalty_base!r}")
    settings = gather_settings(
        None,
        {
            "task.name": task,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
        },
        overrides=overrides or (),
    )
    from stillhouse.api import evaluate as evaluate_model  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    base = cast(Any, loyalty_base)
    result = evaluate_model(model, settings.task, teacher=teacher, base=base)
    _print_evaluation(result)


@app.command()
def finetune(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub id.")],
    settings_file: SettingsArgument = None,
    *,
    task: TaskOption = None,
    run: RunOption = Path("runs/finetune"),
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training set, at most.")
    ] = None,
    learning_rate: Annotated[
        list[float] | None,
        typer.Option(help="Repeatable: the best on held-out training examples is kept."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples a step.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations in a row that are no better end the training.")
    ] = None,
    trust_remote_code: Annotated[
        bool | None,
        typer.Option("--trust-remote-code", help="Let code that lies in the checkpoint run."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    overrides: SetOption = None,
) -> None:
    """Fine-tune a checkpoint on a task with labels; the best epoch's weights are kept.

    Example: stillhouse finetune runs/sst2/students/1 --task glue/mrpc --learning-rate 2e-5
    --learning-rate 1e-4
    """
    settings = gather_settings(
        settings_file,
        {
            "finetune.model": model,
            "finetune.epochs": epochs,
            "finetune.learning_rates": learning_rate or None,
            "finetune.batch_size": batch_size,
            "finetune.patience": patience,
            "finetune.trust_remote_code": trust_remote_code,
            "task.name": task,
            "task.text": None if text is None else text.split(","),
            "task.label": label,
            "task.dev": dev,
            "task.metric": metric,
            "seed": seed,
        },
        overrides=overrides or (),
    )
    from stillhouse.api import run_finetune_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_finetune_job(settings, run, RichNarrator(err))
    _print_finetuned(result)
    err.print(f"\nDone. The model lies in {result.path}", markup=False, soft_wrap=True)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub id.")],
    *,
    to: Annotated[str, typer.Option(help="Format: onnx.")] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32; int8: embeddings and matrix products in 8 bits; or int8-static: the "
            "same with scales fixed beforehand, on texts that are not those of the check, which "
            "is the one that OpenVINO computes in 8 bits. By default float32, or int8 with the "
            "ranges of its training for a checkpoint that was trained in few bits."
        ),
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            help="Text to check on: a .txt file with one text a line, or a task as --task of "
            "search takes it, which scores the file as well; some embedded texts if not given."
        ),
    ] = None,
    text: TextOption = None,
    label: LabelOption = None,
    dev: DevOption = None,
    metric: MetricOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="By default onnx, onnx-int8 or onnx-int8-static in the checkpoint."
        ),
    ] = None,
) -> None:
    """Write a checkpoint as a folder that runs with onnxruntime alone, checked against PyTorch.

    Example: stillhouse export runs/sst2/students/1 --precision int8 --check glue/sst2
    """
    if to != "onnx":
        raise SettingsError(f"--to is onnx, the one format that is written, but is {to!r}")
    from stillhouse.data.task_names import is_plain_text  # noqa: PLC0415  loads datasets

    checked: Any = check
    if check is not None and not is_plain_text(check):
        columns = None if text is None else text.split(",")
        options = {"name": check, "text": columns, "label": label, "dev": dev, "metric": metric}
        named = {f"task.{name}": value for name, value in options.items()}
        checked = gather_settings(None, named).task
    from stillhouse.api import export_onnx  # noqa: PLC0415  torch loads after parsing

    quiet_libraries()
    exported = export_onnx(model, precision=cast(Any, precision), check=checked, out=folder)
    _print_export(exported.told)
    if (fixed_on := exported.told["calibrated_on"]) is not None:
        out.print(
            f"scales fixed on {fixed_on['texts']} texts of {fixed_on['name']}",
            markup=False,
            highlight=False,
        )
    err.print(
        f"\nDone. Try it: cd {exported.path} && {exported.told['example']}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write the report page of a run, finished or not."""
    from stillhouse.report import write_report  # noqa: PLC0415  plotly loads after parsing

    if not (run / "settings.yaml").exists():
        raise StillhouseError(f"{run} is no run directory: it has no settings.yaml")
    out.print(str(write_report(run)), markup=False, highlight=False, soft_wrap=True)


@app.command()
def demo(run: RunOption = Path("runs/demo")) -> None:
    """Run the whole job on texts that every Python brings: no downloads of data or weights."""
    from stillhouse.cli.demo import DEMO  # noqa: PLC0415  settings load pydantic

    settings = gather_settings(None, DEMO)
    from stillhouse.api import run_search_job  # noqa: PLC0415  torch loads after parsing

    with resumable(run):
        result = run_search_job(settings, run, RichNarrator(err))
    _print_students(result.students)
    err.print(f"\nDone. Open {result.report}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def resumable(run: Path) -> Iterator[None]:
    """Turns Ctrl-C into a word on how to go on, and exit code 130."""
    quiet_libraries()
    try:
        yield
    except KeyboardInterrupt:
        err.print(
            f"\nStopped. What was finished is kept in {run}; the same command again goes on there.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None


def quiet_libraries() -> None:
    """Takes the loading bars and reports of libraries off the screen; warnings stay."""
    from datasets.utils.logging import disable_progress_bar  # noqa: PLC0415  heavy import
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415  heavy import

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _print_plan(planned: Plan) -> None:
    table = Table(title="Plan")
    table.add_column("phase")
    table.add_column("what")
    for column in ("steps", "time"):
        table.add_column(column, justify="right")
    for phase in planned.phases:
        steps = f"{phase.steps:,}" if phase.steps else "-"
        table.add_row(phase.name, phase.what, steps, _duration(phase.seconds))
    table.add_row("total", "", "", _duration(planned.seconds), style="bold")
    out.print(table)
    for purpose, size_mb in planned.disk_mb.items():
        out.print(f"disk, {purpose}: {size_mb:,.0f} MB", highlight=False)
    for note in planned.notes:
        out.print(note, markup=False, highlight=False)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 60:  # noqa: PLR2004  a minute
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004


def _latency_told(students: Sequence[Student]) -> str:
    """Tells what the latencies of a table are: `latency: analytic, batch 1, length 64, …`."""
    ways = dict.fromkeys(_way_told(student.metrics) for student in students)
    return f"latency: {' and '.join(ways)}, {students[0].metrics['workload_label']}"


def _way_told(metrics: Mapping[str, Any]) -> str:
    """Tells how a latency is known, and of a predicted one how well."""
    if metrics["latency_how"] != "predicted":
        return str(metrics["latency_how"])
    return f"predicted to ± {metrics['latency_high_ms'] / metrics['latency_ms'] - 1:.0%}"


def _print_students(students: Sequence[Student], competitors: Sequence[Student] = ()) -> None:
    if not students:
        return
    first = students[0].metrics
    table = Table(title=f"Students ({_latency_told(students)})")
    for column in ("rank", "architecture", first["metric"], "of teacher", "ms", "faster", "limit"):
        table.add_column(column)
    for rank, student in enumerate(students, start=1):
        table.add_row(str(rank), *_row(student.metrics))
    table.add_section()
    for student in competitors:
        table.add_row(student.metrics.get("name", "compared"), *_row(student.metrics))
    out.print(table)
    named = {str(rank): student for rank, student in enumerate(students, start=1)}
    named |= {f"c{place}": student for place, student in enumerate(competitors, start=1)}
    _print_costs(named)
    out.print(
        f"teacher: {first['metric']} {first['teacher_quality']:.4f}, "
        f"{first['teacher_latency_ms']:.2f} ms",
        highlight=False,
    )


def _print_family(students: Sequence[Student]) -> None:
    """Prints students without a task; a worker of a data-parallel training has none to print."""
    if not students:
        return
    table = Table(title=f"Students ({_latency_told(students)})")
    for column in ("folder", "space", "architecture", "relation loss", "M parameters"):
        table.add_column(column)
    for column in ("FLOPs of teacher's", "ms", "faster"):
        table.add_column(column, justify="right")
    for student in students:
        metrics = student.metrics
        table.add_row(
            student.path.name,
            metrics["space"],
            metrics["architecture_label"],
            f"{metrics['relation_loss']:.4f}",
            f"{metrics['parameters'] / 1e6:.2f}",
            f"{metrics['flops_fraction']:.3f}",
            f"{metrics['latency_ms']:.2f}",
            f"{metrics['speedup']:.2f}x",
        )
    out.print(table)
    _print_costs({student.path.name: student for student in students})
    err.print(
        f"\nDone. Fine-tune one with: stillhouse finetune {students[0].path} --task glue/mrpc",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_general(student: Student) -> None:
    """Prints a student that learnt on plain text, and how to go on."""
    metrics = student.metrics
    before, after = metrics["held_out_losses_before"], metrics["held_out_losses"]
    table = Table(title=f"Student ({_latency_told([student])})")
    for column in ("architecture", *(f"{name} loss" for name in after), "M parameters"):
        table.add_column(column)
    for column in ("FLOPs of teacher's", "ms", "faster"):
        table.add_column(column, justify="right")
    table.add_row(
        metrics["architecture_label"],
        *(f"{before[name]:.4f} to {after[name]:.4f}" for name in after),
        f"{metrics['parameters'] / 1e6:.2f}",
        f"{metrics['flops_fraction']:.3f}",
        f"{metrics['latency_ms']:.2f}",
        f"{metrics['speedup']:.2f}x",
    )
    out.print(table)
    out.print(
        f"losses on {metrics['held_out_sequences']:,} held-out sequences, before and after "
        f"{metrics['tokens']:,} tokens",
        highlight=False,
    )
    _print_costs({student.path.name: student})
    err.print(
        f"\nDone. Fine-tune it with: stillhouse finetune {student.path} --task glue/mrpc",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_layer_maps(run: Path) -> None:
    """Prints the best layer maps of a run, those that have names, and how to use the best."""
    from stillhouse.report.layer_map import read_map_searches  # noqa: PLC0415  loads numpy

    for found in read_map_searches(run, []):
        table = Table(title=f"Layer maps (judged by {found.judge})")
        for column in ("genes", "fitness", *found.tasks, "judged"):
            table.add_column(column)
        for one in found.shown:
            scores = (one.scores.get(task) for task in found.tasks)
            table.add_row(
                f"{one.told}{f' ({one.name})' if one.name else ''}",
                "failed" if one.fitness is None else f"{one.fitness:.4f}",
                *("-" if score is None else f"{score:.4f}" for score in scores),
                f"{one.place}.",
            )
        out.print(table)
        out.print(found.course, highlight=False, markup=False)
        if found.best is not None:
            genes = found.best.told.replace(" ", "")
            out.print(
                f"Use the best again with: --set distill.layer_map=[{genes}]",
                highlight=False,
                markup=False,
            )


def _print_selected(students: Sequence[Student]) -> None:
    """Prints selected chains; a worker of a training in several processes has none to print."""
    if not students:
        return
    table = Table(title=f"Selected ({_latency_told(students)})")
    for column in ("folder", "budget", "architecture", "masked-word loss"):
        table.add_column(column)
    for column in ("M parameters", "FLOPs of teacher's", "ms"):
        table.add_column(column, justify="right")
    for student in students:
        metrics = student.metrics
        budget = ", ".join(f"{name}={value:g}" for name, value in metrics["limits"].items())
        table.add_row(
            str(student.path),
            budget,
            metrics["architecture_label"],
            f"{metrics['mlm_loss']:.4f}",
            f"{metrics['parameters'] / 1e6:.2f}",
            f"{metrics['flops_fraction']:.3f}",
            f"{metrics['latency_ms']:.2f}",
        )
    out.print(table)
    _print_costs({student.path.name: student for student in students})
    err.print(
        f"\nDone. Pre-train one with: stillhouse train {students[0].path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_costs(students: Mapping[str, Student]) -> None:
    """Prints for every limit of every student what was asked and what it is, and sizes."""
    from stillhouse.report.figures import read_figures  # noqa: PLC0415  loads scipy
    from stillhouse.report.limits_table import lines_of  # noqa: PLC0415  loads scipy
    from stillhouse.report.wording import prediction, sizes  # noqa: PLC0415  loads scipy

    lines = [line for name, one in students.items() for line in lines_of(name, one.metrics)]
    if lines:
        table = Table(title="Limits")
        for column in ("student", "limit", "value", "how known", "outcome"):
            table.add_column(column)
        for line in lines:
            told = f"{line.value} ({line.interval})" if line.interval else line.value
            table.add_row(line.student, line.asked, told, line.how or "-", line.margin or "-")
        out.print(table)
    for name, one in students.items():
        figures = read_figures(one.metrics)
        if told := "; ".join(filter(None, (sizes(figures), prediction(figures)))):
            out.print(f"student {name}: {told}", highlight=False)


def _auto_class(student: Student) -> str:
    """Names the class of transformers that loads a student of a task, or of masked words."""
    from stillhouse.model.heads import auto_class_of  # noqa: PLC0415  loads torch

    name: str = auto_class_of(student.metrics.get("task_kind", "classes")).__name__
    return name


def _print_evaluation(result: Evaluation) -> None:
    """Prints scores, a table of labels where the task has tags, and loyalty where it was asked."""
    for position, (name, value) in enumerate(result.scores.items()):
        interval = (
            f"  (95 % interval {result.low:.4f} to {result.high:.4f})" if not position else ""
        )
        out.print(f"{name} {value:.4f}{interval}", highlight=False)
    out.print(f"{result.count} dev examples of {result.task}", highlight=False, markup=False)
    if result.labels:
        table = Table(title="Labels")
        for column in ("label", "precision", "recall", "f1", "support"):
            table.add_column(column, justify="left" if column == "label" else "right")
        for row in result.labels:
            shares = [f"{row[name]:.4f}" for name in ("precision", "recall", "f1")]
            table.add_row(Text(row["label"]), *shares, str(row["support"]))
        out.print(table)
    if result.loyalty is not None:
        _print_loyalty(result.loyalty)


def _print_loyalty(agreement: Loyalty) -> None:
    if agreement.label is None:
        out.print(f"loyalty: none, {agreement.reason}", highlight=False)
        return
    logarithm = "natural logarithm" if agreement.base == "e" else "logarithm to base 2"
    for name, note in (("label", ""), ("probability", f", {logarithm}")):
        value, low, high = (getattr(agreement, f"{name}{end}") for end in ("", "_low", "_high"))
        out.print(
            f"{name} loyalty {value:.4f}  (95 % interval {low:.4f} to {high:.4f}{note})",
            highlight=False,
        )


def _print_finetuned(result: FinetuneResult) -> None:
    metrics = result.metrics
    interval = f"95 % interval {metrics['quality_low']:.4f} to {metrics['quality_high']:.4f}"
    for name, value in metrics["scores"].items():
        told = f"  ({interval})" if name == metrics["metric"] else ""
        out.print(f"{name} {value:.4f}{told}", highlight=False)
    out.print(
        f"{metrics['quality_count']} dev examples of {metrics['task']}; learning rate "
        f"{metrics['learning_rate']:g}, epoch {metrics['epoch']:g} of "
        f"{metrics['epochs_trained']:g}",
        highlight=False,
        markup=False,
    )
    out.print(metrics["choice"], highlight=False, markup=False)


def _print_export(told: Mapping[str, Any]) -> None:
    table = Table(
        title=f"Checked on {told['checked_on']['texts']} texts of {told['checked_on']['name']}"
    )
    names = list(next(iter(told["scores"].values()), {}))
    for column in ("file", "MB", "largest difference", *names):
        table.add_column(column)
    for name, size_mb in {
        "pytorch float32": told["source"]["weights_mb"],
        **told["size_mb"],
    }.items():
        gaps = told["differences"].get(name, {})
        scores = told["scores"].get(name, {}).values()
        table.add_row(
            name,
            f"{size_mb:.2f}",
            ", ".join(f"{output} {gap:.2g}" for output, gap in gaps.items()) or "-",
            *(f"{score:.4f}" for score in scores),
        )
    out.print(table)
    if told["int8_agreement_fraction"] is not None:
        share = told["int8_agreement_fraction"]
        whose = "in float32" if told.get("trained_weight_bits") is None else "in PyTorch"
        out.print(f"answers in int8 that are those {whose}: {share:.2%}", highlight=False)


def _row(metrics: Any) -> list[str]:
    fraction = metrics["quality_fraction"]
    return [
        metrics["architecture_label"],
        f"{metrics['quality']:.4f}",
        "-" if fraction is None else f"{fraction:.1%}",
        f"{metrics['latency_ms']:.2f}",
        f"{metrics['speedup']:.2f}x",
        "within" if metrics["within_limit"] else "over",
    ]


app.command()(attack)
app.command()(profile)
app.command()(devices)
app.command()(measure)
app.command()(quantise)
app.command()(cross_view)
app.command()(watch)
app.command()(doctor)


def main() -> None:
    """Runs a command; errors of a user are one clear message and an exit code above 0."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app(standalone_mode=True)
    except StillhouseError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        raise SystemExit(EXIT_ERROR) from None
    except OSError as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        raise SystemExit(EXIT_ERROR) from error
