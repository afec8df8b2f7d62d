"""The jobs of stillhouse as functions: the command line calls these and nothing else."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import get_int_from_env

from stillhouse.data.task import (
    IN_MEMORY,
    Task,
    TaskSettings,
    load_task,
    task_from_dataset,
    usual_length,
)
from stillhouse.data.task_names import is_plain_text
from stillhouse.errors import RunError, SettingsError
from stillhouse.export.checkpoint import read_metrics
from stillhouse.export.word_tagger import refuse_word_tagger
from stillhouse.model.onnx_graph import PRECISIONS, GraphPrecision
from stillhouse.model.teachers import Teacher
from stillhouse.recipe import autodistil, autodistill, nas_bert
from stillhouse.recipe.attack_report import AttackReport
from stillhouse.recipe.attacking import AttackJob, attack_checkpoints
from stillhouse.recipe.chain_blocks import BLOCKS_FILE
from stillhouse.recipe.chain_selection import SELECTED_FILE, read_selected
from stillhouse.recipe.cross_view import train_word_tagger
from stillhouse.recipe.evaluation import Evaluation, evaluate_checkpoint
from stillhouse.recipe.exporting import OnnxExport, export_onnx_checkpoint
from stillhouse.recipe.finetune import finetune_checkpoint
from stillhouse.recipe.general_student import distil_generally
from stillhouse.recipe.layer_map_search import check_map_search, is_map_of_text
from stillhouse.recipe.measuring import Measurements, MeasureSettings, measure_checkpoint
from stillhouse.recipe.open_workbench import (
    load_workbench,
    prepare_workbench,
)
from stillhouse.recipe.plan import Plan, make_plan
from stillhouse.recipe.pretrain import PRETRAIN_FOLDER, pretrain_selected
from stillhouse.recipe.profiling import ProfileJob, profile_space
from stillhouse.recipe.quantising import quantise_checkpoint
from stillhouse.recipe.single import check_given_student, distil_student
from stillhouse.recipe.task_search import plan_search, search_task
from stillhouse.report import write_report
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.progress import LoggingNarrator, Narrator, kept_in
from stillhouse.run.settings import (
    RunSettings,
    apply_overrides,
    read_settings,
    settings_from_dict,
)
from stillhouse.search.objectives import REWARD, front_objectives
from stillhouse.search.pareto import pareto_front
from stillhouse.search.record import read_trials
from stillhouse.search.trial import Trial

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.device.profile import Profile
    from stillhouse.evaluate.loyalty import LogBase


@dataclass(frozen=True, slots=True, kw_only=True)
class _SupernetJob:
    """A recipe that trains supernets instead of trials.

    Attributes:
        work: Does it; returns folders of the chosen students, none on workers but the main one.
        asks: Settings by which a complete run is asked for more.
        read: Reads what is known of a chosen student.
        length: The setting that decides how long it trains.
    """

    work: Callable[[RunSettings, RunDirectory, Narrator, Accelerator], Sequence[Path]]
    asks: tuple[str, ...]
    read: Callable[[Path], Mapping[str, Any]]
    length: str


_IDLE_WITHOUT_TRIALS = (
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "search.ask",
    "search.objectives",
    "transfer.rungs",
    "distill.initialisation",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.embeddings",
    "distill.layer_map",
    "quantise.weight_bits",
    "compare",
)
_IDLE_IN_PLAIN_JOBS = (
    "distill.logit_weight",
    "distill.temperature",
    "distill.label_weight",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.learning_rate",
    "distill.batch_size",
    "finetune.epochs",
    "final.epochs",
    "search.epochs",
)
_IDLE_ON_TASKS = ("transfer.rungs", "transfer.reduction")
_IDLE_WITHOUT_REWARD = ("search.alpha", "search.beta")
_IDLE_ON_TEXT = (
    "search.quality",
    "search.proxy_examples",
    "search.epochs",
    "final.epochs",
    "final.controls",
    "final.noise_candidates",
    "space.base",
    "space.size_fraction",
    "space.size_count",
    "pretrain.start",
    "distill.initialisation",
    "distill.hidden_weight",
    "distill.attention_weight",
    "distill.embeddings",
    "distill.layer_map",
    "quantise.weight_bits",
)
_IDLE_WITHOUT_TASK = (
    "task.name",
    "task.text",
    "task.label",
    "task.dev",
    "task.metric",
    "task.unlabelled",
    "teacher.finetune",
    "teacher.epochs",
    "teacher.learning_rates",
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "search.proxy_examples",
    "search.epochs",
    "final.students",
    "final.controls",
    "final.noise_candidates",
    "distill.temperature",
    "quantise.weight_bits",
    "compare",
)
_IDLE_WITHOUT_PROXY_TASKS = (
    "corpus.name",
    "layer_map.sequences",
    "layer_map.epochs",
    "layer_map.tasks",
    "layer_map.directory",
    "layer_map.task_examples",
    "layer_map.task_validation",
    "layer_map.task_epochs",
    "layer_map.task_learning_rate",
    "layer_map.task_batch_size",
    "layer_map.task_max_length",
    "search.strategy",
    "search.candidates",
    "search.seconds",
    "compare",
)
"""Settings that a recipe does not read, of those that a user may expect it to."""

_SUPERNET_JOBS = {
    "autodistil": _SupernetJob(
        work=autodistil.search_family,
        asks=autodistil.ASKS,
        read=read_metrics,
        length="supernet.steps",
    ),
    "nas-bert": _SupernetJob(
        work=nas_bert.search_chains,
        asks=nas_bert.ASKS,
        read=read_selected,
        length="blocks.steps_per_epoch",
    ),
}


_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""Where launchers of several processes write their number, as accelerate reads it."""


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
    """A teacher and a task that are objects in memory, where a run has such."""

    teacher: Teacher | None = None
    task: Task | None = None


def run_search_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = Given(),
) -> SearchResult:
    """Searches, distils, exports and reports; resumes what `path` holds.

    Raises:
        SettingsError: If several processes were started for a recipe of one.
    """
    if settings.recipe in _SUPERNET_JOBS:
        return _run_supernet_job(settings, path, narrator)
    _refuse_workers(settings.recipe)
    if settings.recipe == "general":
        raise SettingsError(
            "general is no search: it distils the one student that is given, on plain text, with "
            "`stillhouse distill --corpus TEXT --student layers=3,hidden_size=384`"
        )
    if settings.recipe == "layer-map":
        return _run_map_job(settings, path, narrator, given)
    if settings.recipe == "autodistill":
        return _run_mobile_job(settings, path, narrator)
    _refuse_idle_settings(
        settings,
        _IDLE_ON_TASKS,
        "it judges a candidate by one training; halving over flash budgets is autodistill's",
    )
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            bench = load_workbench(settings, run, narrator, teacher=given.teacher, task=given.task)
            plan = plan_search(bench)
            search_task(prepare_workbench(bench), plan)
        _close(run)
        return _result(run)


def _run_supernet_job(settings: RunSettings, path: Path, narrator: Narrator) -> SearchResult:
    """Trains supernets and chooses from them; with several workers each calls it, one leads.

    Returns:
        What the run holds; its trials are empty, for students are chosen from a table.

    Raises:
        SettingsError: If something is set that has no effect there.
    """
    job, accelerator = _SUPERNET_JOBS[settings.recipe], _workers()
    _refuse_idle_settings(
        settings,
        _IDLE_WITHOUT_TRIALS,
        f"it trains supernets and weighs the students in them; {job.length} is the length of the "
        "training, limits (--limit) are what a student may cost",
    )
    if not accelerator.is_main_process:
        run = RunDirectory(path=path)
        job.work(settings, run, LoggingNarrator(), accelerator)
        return _family_result(run, [])
    with open_run(path, settings, asks=job.asks) as run:
        narrator = kept_in(run.path, narrator)
        chosen = job.work(settings, run, narrator, accelerator)
        _close_work(run)
        students = [Student(path=one, metrics=job.read(one)) for one in chosen]
        return _family_result(run, students)


def _run_mobile_job(settings: RunSettings, path: Path, narrator: Narrator) -> SearchResult:
    """Searches MobileBERTs on plain text, and distils the front.

    Raises:
        SettingsError: If something is set that has no effect there.
    """
    _refuse_idle_settings(
        settings,
        _IDLE_ON_TEXT,
        "it proposes by a sampler of Optuna (random, tpe, gp, nsga2) and judges on plain text",
    )
    if REWARD not in settings.search.objectives:
        _refuse_idle_settings(
            settings,
            _IDLE_WITHOUT_REWARD,
            "they are of the reward, which --objectives reward searches",
        )
    if settings.search.strategy == "controller":
        raise SettingsError(
            "autodistill has no use for search.strategy = controller: that learns one reward, and "
            "here quality and latency are two objectives. Take gp, tpe, nsga2 or random"
        )
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            accelerator = Accelerator(cpu=not torch.cuda.is_available())
            autodistill.search_mobilebert(settings, run, narrator, accelerator)
        _close(run)
        return _result(run)


def _run_map_job(
    settings: RunSettings, path: Path, narrator: Narrator, given: Given
) -> SearchResult:
    """Searches the layer map of the given student, and distils it by the best.

    Raises:
        SettingsError: If the map is given, or something is set that has no effect there.
    """
    if settings.distill.layer_map != "search":
        raise SettingsError(
            "layer-map searches the map: leave distill.layer_map out. With one that is known, use "
            "`stillhouse distill`"
        )
    if settings.layer_map.judge == "task":
        _refuse_idle_settings(
            settings,
            _IDLE_WITHOUT_PROXY_TASKS,
            "its maps are judged on the task itself (search.proxy_examples, search.epochs); "
            "--corpus instead of --task judges on text and proxy tasks",
        )
    student = run_distill_job(settings, path, narrator, given)
    return _family_result(RunDirectory(path=path), [student])


def run_select_job(
    path: Path, budgets: Sequence[Mapping[str, float]], narrator: Narrator
) -> SearchResult:
    """Selects students of a nas-bert run for other budgets, from its table.

    Args:
        path: The run directory.
        budgets: Limits by name, of each budget.
        narrator: Told the progress.

    Raises:
        RunError: If there is no such run, or its search has not come to its table.
    """
    changes = {"limits": [dict(budget) for budget in budgets]}
    settings = _settings_of(path, changes)
    if not (path / BLOCKS_FILE).exists():
        raise RunError(
            f"the search of {path} has not come to its table of blocks ({BLOCKS_FILE}): give the "
            "command that began it again, and select when it is done"
        )
    return _run_supernet_job(settings, path, narrator)


def run_train_job(selected: Path, overrides: Mapping[str, Any], narrator: Narrator) -> Student:
    """Pre-trains a student that nas-bert selected; resumes what was begun.

    Args:
        selected: Its folder, `RUN/selected/N`.
        overrides: Settings by path, such as `pretrain.steps`.
        narrator: Told the progress.

    Raises:
        RunError: If there is no such student.
    """
    folder = selected.resolve()  # `.` has no name
    if not (folder / SELECTED_FILE).exists() or not folder.name.isdecimal():
        raise RunError(
            f"{selected} is no selected student: give RUN/selected/N, as `stillhouse search "
            "nas-bert` and `stillhouse select` print it"
        )
    path = folder.parent.parent
    settings, accelerator = _settings_of(path, overrides), _workers()
    if not accelerator.is_main_process:
        run = RunDirectory(path=path)
        student = pretrain_selected(folder, settings, run, LoggingNarrator(), accelerator)
        return Student(path=student, metrics={})
    with open_run(path, settings, asks=nas_bert.ASKS) as run:
        narrator = kept_in(run.path, narrator)
        with run.timed("pre-training"):
            student = pretrain_selected(folder, settings, run, narrator, accelerator)
        _close_work(run)
        return Student(path=student, metrics=read_metrics(student))


def _settings_of(path: Path, changes: Mapping[str, Any]) -> RunSettings:
    """Reads the settings of a nas-bert run and changes some.

    Raises:
        RunError: If there is no such run.
    """
    file = RunDirectory(path=path).settings_file
    data = read_settings(file) if file.exists() else {}
    if data.get("recipe") != "nas-bert":
        raise RunError(
            f"{path} holds no run of nas-bert: make one with `stillhouse search nas-bert --run "
            f"{path}`"
        )
    return settings_from_dict(apply_overrides(data, changes))


def _workers() -> Accelerator:
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        # Workers wait while the main one tokenises, which takes hours of a large corpus.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))],
    )


def _refuse_workers(job: str) -> None:
    """Refuses to be one of several processes where only one can work.

    Looks at what the launcher set, and meets no other process, which may never come.

    Args:
        job: A recipe's or command's name, for the message.
    """
    count = get_int_from_env(_WORLD_SIZES, 1)
    if count > 1:
        raise SettingsError(
            f"{job} runs in one process, but {count} were started (torchrun, accelerate launch, "
            "mpirun): start stillhouse alone. It uses one GPU; several are of use to autodistil, "
            "nas-bert and the pre-training of a nas-bert student"
        )


def _refuse_idle_settings(
    settings: RunSettings, names: Sequence[str], why: str, *, job: str | None = None
) -> None:
    """Refuses settings that would do nothing in a recipe, or in a job that is none.

    Args:
        settings: Those of the run.
        names: Paths such as `search.epochs` that the recipe does not read.
        why: What it does instead, for the message.
        job: Its name, where that is not the recipe's.
    """
    given, default = (
        one.to_dict() for one in (settings, settings_from_dict({"recipe": settings.recipe}))
    )
    different = {name: _at(given, name) for name in names if _at(given, name) != _at(default, name)}
    idle = [
        f"{name} = {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in different.items()
    ]
    if idle:
        raise SettingsError(
            f"{job or settings.recipe} has no use for {', '.join(idle)}: {why}. Leave that out"
        )


def _at(data: Mapping[str, Any], path: str) -> Any:
    for key in path.split("."):
        data = data[key]
    return data


def _close_work(run: RunDirectory) -> None:
    """Completes a run of supernets; checkpoints of a begun pre-training stay."""
    run.update_state({"status": "complete"})
    write_report(run.path)
    run.clear_work(keep=PRETRAIN_FOLDER)


def _family_result(run: RunDirectory, students: Sequence[Student]) -> SearchResult:
    return SearchResult(
        trials=(),
        front=(),
        students=tuple(students),
        controls=(),
        competitors=(),
        path=run.path,
        report=run.path / "report.html",
    )


def run_attack_job(job: AttackJob, out: Path, narrator: Narrator) -> AttackReport:
    """Attacks checkpoints with synonyms, evaluates them on AdvGLUE, or both; goes on in `out`.

    Args:
        job: What to do.
        out: Folder for `attack.json`, `adversarial.tsv` and what is kept on the way.
        narrator: Told the progress.
    """
    _refuse_workers("attack")
    return attack_checkpoints(job, out, narrator)


def run_profile_job(job: ProfileJob, out: Path, narrator: Narrator) -> Profile:
    """Measures some architectures of a space and fits a predictor; goes on with what is begun.

    Args:
        job: What to measure, and where.
        out: The profile, a `.json` file.
        narrator: Told the progress.
    """
    _refuse_workers("profile")
    return profile_space(job, out, narrator)


def plan_job(settings: RunSettings, narrator: Narrator, given: Given = Given()) -> Plan:
    """Tells what a search will do and what it will take, from a few timed steps; trains nothing.

    Args:
        settings: Those of the search.
        narrator: Told what is decided on the way.
        given: Teacher and task in memory.

    Raises:
        StillhouseError: Whatever would stop the search before its first training.
    """
    if settings.recipe not in ("plain", "kd-nas"):
        raise SettingsError(
            f"plan tells of searches with a task (plain, kd-nas), not of {settings.recipe}: its "
            "first minutes tell tokens a second and the time left"
        )
    with (
        tempfile.TemporaryDirectory(prefix="stillhouse-plan-") as folder,
        open_run(Path(folder), settings) as run,
    ):
        bench = load_workbench(settings, run, narrator, teacher=given.teacher, task=given.task)
        return make_plan(bench, plan_search(bench))


def run_distill_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = Given(),
) -> Student:
    """Distils the one student that the settings name; resumes what `path` holds.

    Under the recipes `general` and `layer-map` it learns on plain text and not on a task, unless
    `layer_map.judge` says so, and `given` is not read.
    """
    _refuse_workers("distill")
    if settings.student is None:
        raise SettingsError(
            "student is missing: give a shape (layers=3,hidden_size=384), a folder or a hub id"
        )
    is_on_text = settings.recipe == "general" or is_map_of_text(settings)
    if is_on_text:
        _refuse_idle_settings(
            settings,
            _IDLE_WITHOUT_TASK,
            "it distils the one student on plain text (corpus.name, final.epochs), without a task "
            "or a search",
        )
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if is_on_text and not run.is_complete:
            if run.is_untouched:
                check_map_search(settings)
            accelerator = Accelerator(cpu=not torch.cuda.is_available())
            distil_generally(settings, run, narrator, accelerator)
        elif not run.is_complete:
            bench = load_workbench(settings, run, narrator, teacher=given.teacher, task=given.task)
            if run.is_untouched:
                check_given_student(bench, settings.student)
            distil_student(prepare_workbench(bench), settings.student)
        _close(run)
        folder = run.student(1)
        return Student(path=folder, metrics=read_metrics(folder))


def run_finetune_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = Given(),
) -> FinetuneResult:
    """Fine-tunes the checkpoint that the settings name; resumes what `path` holds."""
    _refuse_workers("finetune")
    if settings.finetune.model is None:
        raise SettingsError("finetune.model is missing: give a checkpoint's folder or hub id")
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            finetune_checkpoint(settings, run, narrator, task=given.task)
        _close(run, has_report=False)
        return FinetuneResult(path=run.model, metrics=read_metrics(run.model))


def run_cross_view_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = Given(),
) -> Student:
    """Trains a BiLSTM tagger of words by cross-view training; resumes what `path` holds."""
    _refuse_workers("cross-view")
    _refuse_idle_settings(
        settings,
        (*_IDLE_IN_PLAIN_JOBS, "quantise.weight_bits", "quantise.epochs"),
        "how long and how fast its tagger learns is in the section cross_view",
        job="cross-view",
    )
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            train_word_tagger(settings, run, narrator, task=given.task)
        _close(run, has_report=False)
        return Student(path=run.model, metrics=read_metrics(run.model))


def run_quantise_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = Given(),
) -> Student:
    """Trains the checkpoint of `quantise.model` to have few bits; resumes what `path` holds."""
    _refuse_workers("quantise")
    _refuse_idle_settings(
        settings,
        (*_IDLE_IN_PLAIN_JOBS, "distill.layer_map", "distill.initialisation", "distill.embeddings"),
        "a model in few bits learns from itself, layer by layer, as the section quantise says",
        job="quantise",
    )
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            quantise_checkpoint(settings, run, narrator, task=given.task)
        _close(run, has_report=False)
        return Student(path=run.model, metrics=read_metrics(run.model))


def evaluate(
    name: str | Path,
    task: TaskSettings | Task | str,
    *,
    teacher: str | Path | None = None,
    base: LogBase = "e",
) -> Evaluation:
    """Scores a checkpoint on the dev set of a task.

    Args:
        name: Folder or hub id.
        task: A task, its settings, or its name such as `glue/sst2`.
        teacher: Folder or hub id of the fine-tuned model that it was distilled from; adds label
            and probability loyalty.
        base: Of the logarithm in the probability loyalty: `e` as published, or `2`.

    Raises:
        DataError: If one is a tagger of `cross-view`.
    """
    for checkpoint in (name, *(() if teacher is None else (teacher,))):
        refuse_word_tagger(checkpoint)
    if isinstance(task, Task):
        settings = TaskSettings(name=IN_MEMORY, max_length=usual_length(task.kind))
        loaded = task
    else:
        settings = TaskSettings(name=task) if isinstance(task, str) else task
        loaded = load_task(settings)
    return evaluate_checkpoint(
        str(name),
        loaded,
        settings=settings,
        teacher=None if teacher is None else str(teacher),
        base=base,
    )


def export_onnx(
    model: str | Path,
    *,
    precision: GraphPrecision | None = None,
    check: str | Path | TaskSettings | Task | Sequence[str] | None = None,
    out: str | Path | None = None,
) -> OnnxExport:
    """Writes a checkpoint as a folder with an ONNX file, checked against the model in PyTorch.

    Args:
        model: Folder or hub id of a classifier, of a tagger of words, of a reader that answers
            questions, of a model of masked words or of a bare encoder.
        precision: `float32`; `int8`: weights of embeddings and matrix products in 8 bits; or
            `int8-static`: the same with the scales of activations fixed beforehand, on other texts
            than those of the check, which is what OpenVINO computes in 8 bits. `None` takes
            `float32`, or of a quantised checkpoint `int8` with the ranges of its training.
        check: What to check on: a `.txt` file with one text a line, texts, a task, its settings or
            its name, whose dev set scores the file as well. `None` takes some embedded texts.
        out: The folder; by default `onnx` (or `onnx-int8`, `onnx-int8-static`) in that of the
            checkpoint.

    Raises:
        ExportError: If a package of the extra `onnx` is missing, the exporter lacks an operator,
            or the file of float32 differs from the model.
        DataError: If the check's texts are too few to fix scales on as well.
        SettingsError: If there is no such precision.
    """
    if precision is not None and precision not in PRECISIONS:
        raise SettingsError(f"precision is one of {', '.join(PRECISIONS)}, but is {precision!r}")
    checked, settings = _check_of(check)
    return export_onnx_checkpoint(
        str(model),
        None if out is None else Path(out),
        precision=precision,
        check=checked,
        max_length=settings.max_length,
        stride=settings.stride,
    )


def measure(
    model: str | Path,
    *,
    against: str | Path | None = None,
    settings: MeasureSettings | None = None,
    narrator: Narrator | None = None,
    on_row: Callable[[Measurements], None] | None = None,
) -> Measurements:
    """Measures time, size and peak memory of a checkpoint on devices of this machine.

    Args:
        model: Folder or hub id of a classifier, tagger or reader, of a model of masked words or of
            a bare encoder.
        against: The same of its teacher, which is then timed in turn with it.
        settings: On which devices and for which workloads; by default `auto`, batch 1, length 128.
        narrator: Told the progress; by default it goes to the log.
        on_row: Given all that is known after every row.

    Raises:
        DeviceError: If nothing of it can be measured here; what fails later is told in its row.
    """
    return measure_checkpoint(
        str(model),
        None if against is None else str(against),
        settings or MeasureSettings(),
        narrator or LoggingNarrator(),
        on_row or (lambda _: None),
    )


def _check_of(
    check: str | Path | TaskSettings | Task | Sequence[str] | None,
) -> tuple[Task | Path | Sequence[str] | None, TaskSettings]:
    """Loads a task to check on; says with it how examples are cut."""
    if isinstance(check, str | Path):
        if is_plain_text(str(check)):
            return Path(check).expanduser(), TaskSettings()
        check = TaskSettings(name=str(check))
    if isinstance(check, TaskSettings):
        return load_task(check), check
    if isinstance(check, Task):
        return check, TaskSettings(name=IN_MEMORY, max_length=usual_length(check.kind))
    return check, TaskSettings()


def search(  # noqa: PLR0913  the one public door; everything else is in `settings`
    *,
    teacher: str | PreTrainedModel | None = None,
    task: str | Task | Dataset | None = None,
    limit: Mapping[str, float] | None = None,
    seconds: float | None = None,
    candidates: int | None = None,
    run: str | Path | None = None,
    recipe: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    text: tuple[str, ...] = (),
    label: str | None = None,
    settings: Mapping[str, Any] | None = None,
    narrator: Narrator | None = None,
) -> SearchResult:
    """Searches students of a teacher for a task within limits, and distils the best.

    Args:
        teacher: Hub id, folder, `scratch`, or a model in memory (then with its `tokenizer`), which
            stays as it is. `None` leaves it to `settings`, by default `scratch`.
        task: Name such as `glue/sst2`, a table file, a `Task`, or a `Dataset` (then with `text` and
            `label` columns). `None` leaves it to `settings`, by default `embedded`.
        limit: By name (`latency_ms`, `speedup`, `size_mb`, `memory_mb`, `parameters`, `params_m`,
            `flops_fraction`); without any, twice the teacher's speed.
        seconds: Time for everything, the final training included.
        candidates: Candidates to train at most.
        run: Run directory; a temporary one if not given. The same call resumes it.
        recipe: `kd-nas`, `autodistil`, `nas-bert`, `autodistill`, `layer-map` or `plain`; `None`
            leaves it to `settings`, by default `plain`.
        tokenizer: Tokeniser of a teacher in memory.
        text: Text columns, one or two.
        label: Label column.
        settings: Any other settings, as in a settings file.
        narrator: Told the progress; by default it goes to the log.

    Returns:
        Trials, Pareto front, students.
    """
    overrides: dict[str, Any] = {f"limit.{name}": value for name, value in (limit or {}).items()}
    if limit and (recipe or (settings or {}).get("recipe")) == "nas-bert":
        overrides = {"limits": [dict(limit)]}
    if seconds is not None:
        overrides["search.seconds"] = seconds
    if candidates is not None:
        overrides["search.candidates"] = candidates
    if recipe is not None:
        overrides["recipe"] = recipe
    if teacher is not None:
        overrides["teacher.model"] = teacher if isinstance(teacher, str) else IN_MEMORY
    given = Given(
        teacher=_teacher_in_memory(teacher, tokenizer), task=_task_in_memory(task, text, label)
    )
    overrides |= _task_overrides(task, text, label)
    resolved = settings_from_dict(
        apply_overrides(_with_usual_length(settings or {}, given.task), overrides)
    )
    return run_search_job(resolved, _run_path(run), narrator or LoggingNarrator(), given)


def finetune(  # noqa: PLR0913  the one public door; everything else is in `settings`
    model: str | Path,
    *,
    task: str | Task | Dataset | None = None,
    text: tuple[str, ...] = (),
    label: str | None = None,
    learning_rates: Sequence[float] = (),
    epochs: float | None = None,
    run: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    narrator: Narrator | None = None,
) -> FinetuneResult:
    """Fine-tunes a checkpoint on a task with labels; the weights of the best evaluation are kept.

    Args:
        model: Folder or hub id of a checkpoint, with a head or without one.
        task: Name such as `glue/mrpc`, a table file, a `Task`, or a `Dataset` (then with `text` and
            `label` columns). `None` leaves it to `settings`, by default `embedded`.
        text: Text columns, one or two.
        label: Label column.
        learning_rates: The best of them on held-out examples wins; none leaves it to `settings`.
        epochs: Passes over the training set, at most.
        run: Run directory; a temporary one if not given. The same call resumes it.
        settings: Any other settings, as in a settings file: `{"finetune": {"patience": 2}}`.
        narrator: Told the progress; by default it goes to the log.

    Returns:
        Folder and measures of the fine-tuned model.
    """
    overrides: dict[str, Any] = {"finetune.model": str(model)}
    if learning_rates:
        overrides["finetune.learning_rates"] = list(learning_rates)
    if epochs is not None:
        overrides["finetune.epochs"] = epochs
    given = Given(task=_task_in_memory(task, text, label))
    overrides |= _task_overrides(task, text, label)
    resolved = settings_from_dict(
        apply_overrides(_with_usual_length(settings or {}, given.task), overrides)
    )
    return run_finetune_job(resolved, _run_path(run), narrator or LoggingNarrator(), given)


def _with_usual_length(settings: Mapping[str, Any], task: Task | None) -> Mapping[str, Any]:
    """Lets examples of a task in memory be as long as is usual for its kind, unless it is said."""
    if task is None:
        return settings
    length = {"max_length": usual_length(task.kind)}
    return {**settings, "task": {**length, **settings.get("task", {})}}


def _run_path(run: str | Path | None) -> Path:
    return Path(tempfile.mkdtemp(prefix="stillhouse-")) if run is None else Path(run)


def _task_overrides(
    task: str | Task | Dataset | None, text: tuple[str, ...], label: str | None
) -> dict[str, Any]:
    """Says the task in settings; the columns of one in memory are no setting."""
    named = isinstance(task, str)
    overrides: dict[str, Any] = {}
    if task is not None:
        overrides["task.name"] = task if named else IN_MEMORY
    if (named or task is None) and text:
        overrides["task.text"] = list(text)
    if (named or task is None) and label is not None:
        overrides["task.label"] = label
    return overrides


def _teacher_in_memory(
    model: str | PreTrainedModel | None, tokenizer: PreTrainedTokenizerBase | None
) -> Teacher | None:
    if model is None or isinstance(model, str):
        return None
    if tokenizer is None:
        raise SettingsError("a teacher in memory needs its tokenizer: pass tokenizer=...")
    if not hasattr(model, "classifier"):
        raise SettingsError(
            f"a teacher in memory must be a sequence-classification model, got "
            f"{type(model).__name__}"
        )
    # A copy, because a teacher is frozen, and its outputs may be put into another order.
    return Teacher(
        name=IN_MEMORY, model=copy.deepcopy(model), tokenizer=tokenizer, has_trained_head=True
    )


def _task_in_memory(
    task: str | Task | Dataset | None, text: tuple[str, ...], label: str | None
) -> Task | None:
    if task is None or isinstance(task, str):
        return None
    if isinstance(task, Task):
        return task
    if not text or label is None:
        raise SettingsError(
            "a Dataset as task needs its columns: pass text=('sentence',), label='label', for tags "
            "text=('tokens',), label='ner_tags', for questions text=('question', 'context'), "
            f"label='answers'; it has {task.column_names}"
        )
    return task_from_dataset(task, text=text, label=label)


def _close(run: RunDirectory, *, has_report: bool = True) -> None:
    """Marks the run complete and tidies up; does nothing where that was done."""
    if run.is_complete and not run.work.exists():
        return
    run.update_state({"status": "complete"})
    if has_report:
        write_report(run.path)
    run.clear_work()  # last: a stop before costs the report, not the trained students


def _result(run: RunDirectory) -> SearchResult:
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
