"""The jobs that search students, that choose from a search, and that plan one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from stillhouse.api.idle import (
    IDLE_ON_TASKS,
    IDLE_ON_TEXT,
    IDLE_WITHOUT_PROXY_TASKS,
    IDLE_WITHOUT_REWARD,
    IDLE_WITHOUT_TRIALS,
    refuse_idle_parts,
    refuse_idle_settings,
)
from stillhouse.api.model_jobs import run_distill_job
from stillhouse.api.results import (
    NOTHING_GIVEN,
    Given,
    SearchResult,
    Student,
    family_result,
    search_result,
)
from stillhouse.api.runs import (
    close_run,
    close_work,
    costed_in_worker,
    refuse_workers,
    settings_of,
    worker_accelerator,
)
from stillhouse.errors import RunError, SettingsError
from stillhouse.export.checkpoint import read_metrics
from stillhouse.recipe import autodistil, autodistill, nas_bert
from stillhouse.recipe.chain_rows import BLOCKS_FILE
from stillhouse.recipe.chain_selection import read_selected
from stillhouse.recipe.open_workbench import (
    load_workbench,
    prepare_workbench,
)
from stillhouse.recipe.own_parts import check_own_parts
from stillhouse.recipe.plan import Plan, make_plan
from stillhouse.recipe.task_search import plan_search, search_task
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.progress import LoggingNarrator, Narrator, kept_in
from stillhouse.run.settings import RunSettings
from stillhouse.search.objectives import REWARD


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


def run_search_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = NOTHING_GIVEN,
) -> SearchResult:
    """Searches, distils, exports and reports; resumes what `path` holds.

    Raises:
        SettingsError: If several processes were started for a recipe of one.
    """
    check_own_parts(given.own, settings)
    if settings.recipe in _SUPERNET_JOBS:
        return _run_supernet_job(settings, path, narrator)
    refuse_workers(settings.recipe)
    if settings.recipe == "general":
        raise SettingsError(
            "general is no search: it distils the one student that is given, on plain text, with "
            "`stillhouse distill --corpus TEXT --student layers=3,hidden_size=384`"
        )
    if settings.recipe == "layer-map":
        return _run_map_job(settings, path, narrator, given)
    if settings.recipe == "autodistill":
        return _run_mobile_job(settings, path, narrator)
    refuse_idle_settings(
        settings,
        IDLE_ON_TASKS,
        "it judges a candidate by one training; halving over flash budgets is autodistill's",
    )
    refuse_idle_parts(settings)
    with open_run(path, settings) as run:
        narrator = kept_in(run.path, narrator)
        if not run.is_complete:
            bench = load_workbench(
                settings, run, narrator, teacher=given.teacher, task=given.task, own=given.own
            )
            plan = plan_search(bench)
            search_task(prepare_workbench(bench), plan)
        close_run(run)
        return search_result(run)


def _run_supernet_job(settings: RunSettings, path: Path, narrator: Narrator) -> SearchResult:
    """Trains supernets and chooses from them; with several workers each calls it, one leads.

    Returns:
        What the run holds; its trials are empty, for students are chosen from a table.

    Raises:
        SettingsError: If something is set that has no effect there.
    """
    job, accelerator = _SUPERNET_JOBS[settings.recipe], worker_accelerator()
    refuse_idle_settings(
        settings,
        IDLE_WITHOUT_TRIALS,
        f"it trains supernets and weighs the students in them; {job.length} is the length of the "
        "training, limits (--limit) are what a student may cost",
    )
    if not accelerator.is_main_process:
        with costed_in_worker(path, settings, accelerator):
            job.work(settings, RunDirectory(path=path), LoggingNarrator(), accelerator)
        return family_result(RunDirectory(path=path), [])
    with open_run(path, settings, asks=job.asks) as run:
        narrator = kept_in(run.path, narrator)
        chosen = job.work(settings, run, narrator, accelerator)
        close_work(run)
        students = [Student(path=one, metrics=job.read(one)) for one in chosen]
        return family_result(run, students)


def _run_mobile_job(settings: RunSettings, path: Path, narrator: Narrator) -> SearchResult:
    """Searches MobileBERTs on plain text, and distils the front.

    Raises:
        SettingsError: If something is set that has no effect there.
    """
    refuse_idle_settings(
        settings,
        IDLE_ON_TEXT,
        "it proposes by a sampler of Optuna (random, tpe, gp, nsga2) and judges on plain text",
    )
    if REWARD not in settings.search.objectives:
        refuse_idle_settings(
            settings,
            IDLE_WITHOUT_REWARD,
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
        close_run(run)
        return search_result(run)


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
        refuse_idle_settings(
            settings,
            IDLE_WITHOUT_PROXY_TASKS,
            "its maps are judged on the task itself (search.proxy_examples, search.epochs); "
            "--corpus instead of --task judges on text and proxy tasks",
        )
    student = run_distill_job(settings, path, narrator, given)
    return family_result(RunDirectory(path=path), [student])


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
    settings = settings_of(path, changes)
    if not (path / BLOCKS_FILE).exists():
        raise RunError(
            f"the search of {path} has not come to its table of blocks ({BLOCKS_FILE}): give the "
            "command that began it again, and select when it is done"
        )
    return _run_supernet_job(settings, path, narrator)


def plan_job(settings: RunSettings, narrator: Narrator, given: Given = NOTHING_GIVEN) -> Plan:
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
    refuse_idle_parts(settings)
    with (
        tempfile.TemporaryDirectory(prefix="stillhouse-plan-") as folder,
        open_run(Path(folder), settings) as run,
    ):
        bench = load_workbench(settings, run, narrator, teacher=given.teacher, task=given.task)
        return make_plan(bench, plan_search(bench))
