"""Setting up the workbench of a run: data, teacher, device, workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from stillhouse.data.splits import split_task
from stillhouse.data.task import Task, load_task
from stillhouse.model.precision import resolve_precision
from stillhouse.model.students import build_student, student_config
from stillhouse.model.teachers import Teacher
from stillhouse.recipe.teacher import (
    Preparation,
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

    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.space.architecture import Architecture


def open_workbench(
    settings: RunSettings,
    run: RunDirectory,
    narrator: Narrator,
    *,
    teacher: Teacher | None = None,
    task: Task | None = None,
) -> Workbench:
    """Loads the data, prepares the teacher (or reloads it), and resolves device and workload.

    Args:
        settings: The run's settings.
        run: The open run directory.
        narrator: Told what is decided on the way.
        teacher: A teacher in memory, instead of the one that the settings name.
        task: A task in memory, instead of the one that the settings name.
    """
    with run.timed("data"):
        task = load_task(settings.task) if task is None else task
        splits = split_task(task, settings.seed)
        fingerprint = task.fingerprint()
        run.refuse_other_data(fingerprint)
    kind = resolve_device_kind(settings.device)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    precision = resolve_precision(settings.distill.precision, accelerator.device)
    with run.timed("teacher"):
        ready = reload_teacher(run, settings.teacher.model)
        teacher = ready or teacher or load_teacher(settings, task, splits)
        teacher.model.to(accelerator.device)
        longest = min(settings.task.max_length, teacher.model.config.max_position_embeddings)
        data = encode_task(task, splits, teacher.tokenizer, max_length=longest)
        if ready is None:
            prepare_teacher(
                Preparation(
                    settings=settings,
                    run=run,
                    narrator=narrator,
                    accelerator=accelerator,
                    precision=precision,
                    task=task,
                ),
                teacher,
                data,
            )
    metrics = teacher_metrics(run)
    narrator.say(
        f"Teacher {metrics['architecture_label']}: {task.metrics[0]} {metrics['quality']:.4f} on "
        f"{metrics['quality_count']} dev examples, {metrics['quality_search']:.4f} on "
        f"{metrics['quality_search_count']} held-out training examples."
    )
    teacher.model.requires_grad_(requires_grad=False).eval()
    model = teacher.model

    def build(architecture: Architecture) -> PreTrainedModel:
        return build_student(student_config(architecture, model.config), seed=settings.seed)

    run.write_provenance(
        settings,
        {
            "teacher_sha256": metrics["weights_sha256"],
            "data_sha256": fingerprint,
            "training_precision": precision,
        },
    )
    return Workbench(
        settings=settings,
        run=run,
        narrator=narrator,
        accelerator=accelerator,
        precision=precision,
        task=task,
        data=data,
        teacher=model,
        teacher_name=teacher.name,
        teacher_hash=str(metrics["weights_sha256"]),
        tokenizer=teacher.tokenizer,
        device=resolve_device(settings.device, kind, teacher=model, build=build),
        workload=resolve_workload(settings.device, data.train.lengths, kind),
    )
