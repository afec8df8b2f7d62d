"""Setting up the workbench of a run: data, teacher, device, workload."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from stillhouse.data.splits import split_task
from stillhouse.data.task import Task, load_task
from stillhouse.model.anatomy import architecture_of, usable_positions
from stillhouse.model.precision import resolve_precision
from stillhouse.model.students import build_student, student_config
from stillhouse.recipe.own_parts import (
    NO_PARTS,
    OwnParts,
    check_own_parts,
    refuse_other_parts,
)
from stillhouse.recipe.teacher import (
    is_prepared,
    load_teacher,
    prepare_teacher,
    reload_teacher,
    teacher_metrics,
)
from stillhouse.recipe.workbench import (
    Workbench,
    encode_task,
    resolve_device,
    resolve_device_kind,
    resolve_workload,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.model.teachers import Teacher
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture


def load_workbench(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    *,
    teacher: Teacher | None = None,
    task: Task | None = None,
    own: OwnParts = NO_PARTS,
) -> Workbench:
    """Loads data and teacher, and resolves device and workload; trains nothing.

    Shapes are known then, and so are latencies: an impossible limit shows before the teacher is
    fine-tuned.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told what is decided on the way.
        teacher: A teacher in memory, instead of the one that the settings name.
        task: A task in memory, instead of the one that the settings name.
        own: Other parts in memory.

    Raises:
        SettingsError: If the recipe has no use for such a part.
        RunError: If the run was begun with others.
    """
    check_own_parts(own, settings)
    refuse_other_parts(run, own)
    kind = resolve_device_kind(settings.device)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    with run.timed("data"):
        task = load_task(settings.task) if task is None else task
        splits = split_task(task, settings.seed)
        run.refuse_other_data(task.fingerprint())
        ready = reload_teacher(run, settings.teacher.model, task.kind)
        source = ready or teacher or load_teacher(settings, task, splits)
        model = source.model
        model.to(accelerator.device)
        architecture_of(model.config)  # refuses a teacher without students before it is trained
        shortest = settings.task.min_length
        data = encode_task(
            task,
            splits,
            source.tokenizer,
            settings=settings.task,
            longest=usable_positions(model.config),
        )
        lengths = data.train.lengths

    def build(architecture: Architecture) -> PreTrainedModel:
        config = student_config(architecture, model.config)
        return build_student(config, seed=settings.seed, kind=task.kind)

    return Workbench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        precision=precision,
        task=task,
        data=data,
        source=source,
        teacher_hash="",
        device=own.device
        or resolve_device(settings.device, kind, teacher=model, build=build, task=task.kind),
        workload=resolve_workload(settings.device, lengths[lengths >= shortest], kind),
        own=own,
    )


def prepare_workbench(bench: Workbench) -> Workbench:
    """Gives the teacher a head that can be trusted, unless an earlier start of the run did.

    Returns:
        The workbench with its teacher frozen and its hash known.
    """
    if not is_prepared(bench.run):
        with bench.run.timed("teacher"):
            prepare_teacher(bench)
    metrics = teacher_metrics(bench.run)
    bench.narrator.say(
        f"Teacher {metrics['architecture_label']}: {bench.task.metrics[0]} "
        f"{metrics['quality']:.4f} on {metrics['quality_count']} dev examples, "
        f"{metrics['quality_search']:.4f} on {metrics['quality_search_count']} held-out training "
        "examples."
    )
    bench.teacher.requires_grad_(requires_grad=False).eval()
    bench.run.write_provenance(
        bench.settings,
        {
            "teacher_sha256": metrics["weights_sha256"],
            "data_sha256": bench.task.fingerprint(),
            "training_precision": bench.precision,
        },
    )
    return replace(bench, teacher_hash=str(metrics["weights_sha256"]))


def open_workbench(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    *,
    teacher: Teacher | None = None,
    task: Task | None = None,
) -> Workbench:
    """Loads and prepares a workbench in one go, where nothing is checked between."""
    return prepare_workbench(load_workbench(settings, run, narrator, teacher=teacher, task=task))
