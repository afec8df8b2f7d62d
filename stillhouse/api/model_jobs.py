"""The jobs that make one model: distilled, pre-trained, fine-tuned, quantised, or a tagger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from stillhouse.api.idle import (
    IDLE_IN_PLAIN_JOBS,
    IDLE_WITHOUT_TASK,
    refuse_idle_parts,
    refuse_idle_settings,
)
from stillhouse.api.results import NOTHING_GIVEN, FinetuneResult, Given, Student
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
from stillhouse.recipe import nas_bert
from stillhouse.recipe.chain_selection import SELECTED_FILE
from stillhouse.recipe.cross_view import train_word_tagger
from stillhouse.recipe.finetune import finetune_checkpoint
from stillhouse.recipe.general_student import distil_generally
from stillhouse.recipe.layer_map_search import check_map_search, is_map_of_text
from stillhouse.recipe.open_workbench import (
    load_workbench,
    prepare_workbench,
)
from stillhouse.recipe.pretrain import pretrain_selected
from stillhouse.recipe.quantising import quantise_checkpoint
from stillhouse.recipe.single import check_given_student, distil_student
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.progress import LoggingNarrator, Narrator, kept_in
from stillhouse.run.settings import RunSettings


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
    settings, accelerator = settings_of(path, overrides), worker_accelerator()
    if not accelerator.is_main_process:
        with costed_in_worker(path, settings, accelerator):
            run = RunDirectory(path=path)
            student = pretrain_selected(folder, settings, run, LoggingNarrator(), accelerator)
        return Student(path=student, metrics={})
    with open_run(path, settings, asks=nas_bert.ASKS) as run:
        narrator = kept_in(run.path, narrator)
        with run.timed("pre-training"):
            student = pretrain_selected(folder, settings, run, narrator, accelerator)
        close_work(run)
        return Student(path=student, metrics=read_metrics(student))


def run_distill_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = NOTHING_GIVEN,
) -> Student:
    """Distils the one student that the settings name; resumes what `path` holds.

    Under the recipes `general` and `layer-map` it learns on plain text and not on a task, unless
    `layer_map.judge` says so, and `given` is not read.
    """
    refuse_workers("distill")
    if settings.student is None:
        raise SettingsError(
            "student is missing: give a shape (layers=3,hidden_size=384), a folder or a hub id"
        )
    is_on_text = settings.recipe == "general" or is_map_of_text(settings)
    if is_on_text:
        refuse_idle_settings(
            settings,
            IDLE_WITHOUT_TASK,
            "it distils the one student on plain text (corpus.name, final.epochs), without a task "
            "or a search",
        )
    refuse_idle_parts(settings, job="distill" if settings.recipe == "plain" else None)
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
        close_run(run)
        folder = run.student(1)
        return Student(path=folder, metrics=read_metrics(folder))


def run_finetune_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = NOTHING_GIVEN,
) -> FinetuneResult:
    """Fine-tunes the checkpoint that the settings name; resumes what `path` holds."""
    refuse_workers("finetune")
    if settings.finetune.model is None:
        raise SettingsError("finetune.model is missing: give a checkpoint's folder or hub id")
    return FinetuneResult(**_make_one_model(finetune_checkpoint, settings, path, narrator, given))


def _make_one_model(
    work: Callable[..., Path],
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given,
) -> dict[str, Any]:
    """Does a job that makes one model, where the run directory does not hold it yet.

    Returns:
        `path` and `metrics` of the model.
    """
    with open_run(path, settings) as run:
        if not run.is_complete:
            work(settings, run, kept_in(run.path, narrator), task=given.task)
        close_run(run, has_report=False)
        return {"path": run.model, "metrics": read_metrics(run.model)}


def run_cross_view_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = NOTHING_GIVEN,
) -> Student:
    """Trains a BiLSTM tagger of words by cross-view training; resumes what `path` holds."""
    refuse_workers("cross-view")
    refuse_idle_settings(
        settings,
        (*IDLE_IN_PLAIN_JOBS, "quantise.weight_bits", "quantise.epochs"),
        "how long and how fast its tagger learns is in the section cross_view",
        job="cross-view",
    )
    return Student(**_make_one_model(train_word_tagger, settings, path, narrator, given))


def run_quantise_job(
    settings: RunSettings,
    path: Path,
    narrator: Narrator,
    given: Given = NOTHING_GIVEN,
) -> Student:
    """Trains the checkpoint of `quantise.model` to have few bits; resumes what `path` holds."""
    refuse_workers("quantise")
    refuse_idle_settings(
        settings,
        (
            *IDLE_IN_PLAIN_JOBS,
            "distill.layer_map",
            "distill.initialisation",
            "distill.kept_layers",
            "distill.embeddings",
        ),
        "a model in few bits learns from itself, layer by layer, as the section quantise says",
        job="quantise",
    )
    return Student(**_make_one_model(quantise_checkpoint, settings, path, narrator, given))
