"""Candidates: what is measured before training, and the short distillation that judges them."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, cast

import torch

from stillhouse.distill.loop import train
from stillhouse.errors import DeviceError, TrainingError
from stillhouse.model.students import initialise_student
from stillhouse.recipe.limits import violations
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.objective import distillation_terms, teacher_layers
from stillhouse.recipe.workbench import Workbench, latency_facts
from stillhouse.search.loop import Judgement, Screening
from stillhouse.search.trial import CandidateFailed

if TYPE_CHECKING:
    from stillhouse.run.settings import LimitSettings
    from stillhouse.search.trial import JsonValue, Trial
    from stillhouse.space.architecture import Architecture

OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def screen_candidate(
    bench: Workbench, limits: LimitSettings, architecture: Architecture
) -> Screening:
    """Tells a candidate's latency, size and distance from every limit, before any training."""
    try:
        comparison = bench.compare(architecture)
    except DeviceError as error:
        raise CandidateFailed(str(error)) from error
    counts = bench.counts(architecture)
    facts = {
        **latency_facts(comparison),
        "parameters": counts.total,
        "parameters_encoder": counts.encoder,
        "flops": bench.flops(architecture),
    }
    return Screening(
        latency_ms=comparison.student.median_ms,
        violations=violations(limits, comparison, parameters=counts.total),
        attributes=cast("dict[str, JsonValue]", facts),
    )


def judge_candidate(bench: Workbench, number: int, architecture: Architecture) -> Judgement:
    """Distils a candidate briefly on the proxy set and scores it on search-validation.

    Every candidate gets the same examples in the same order, the same seed and the same schedule.

    Raises:
        CandidateFailed: If it runs out of memory or time, or its loss is not finite.
    """
    try:
        return _judge(bench, number, architecture)
    except TrainingError as error:
        raise CandidateFailed(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        said = str(error).splitlines() or [type(error).__name__]  # Python's own says nothing
        raise CandidateFailed(f"out of memory: {said[0]}") from error
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _judge(bench: Workbench, number: int, architecture: Architecture) -> Judgement:
    settings = bench.settings
    student = bench.build(architecture).to(bench.accelerator.device)
    initialisation = initialise_student(student, bench.teacher, settings.distill.initialisation)
    terms = distillation_terms(
        settings.distill,
        student.config,
        bench.teacher.config,
        is_regression=bench.task.is_regression,
        seed=settings.seed,
    )
    teacher = bench.signals(bench.proxy, teacher_layers(terms), "Teacher over the proxy set")
    seconds = settings.search.candidate_seconds
    with watched(
        bench.narrator,
        bench.run.tensorboard / f"trial-{number:04d}",
        f"Trial {number}: {architecture.label}",
        deadline=None if seconds is None else time.monotonic() + seconds,
    ) as watch:
        report = train(
            student,
            bench.proxy,
            terms,
            bench.train_settings(settings.search.epochs),
            accelerator=bench.accelerator,
            teacher=teacher,
            watch=watch,
        )
    scores = bench.quality(student, bench.data.validation)
    attributes = {
        "scores": scores,
        "initialisation": initialisation.to_dict(),
        "proxy_loss": report.loss,
        "seed": settings.seed,
    }
    return Judgement(
        quality=scores[bench.task.metrics[0]], attributes=cast("dict[str, JsonValue]", attributes)
    )


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        phrase in words for phrase in OUT_OF_MEMORY_WORDS
    )


def describe_trial(trial: Trial) -> str:
    """One line about a finished trial, for a person."""
    quality = "not trained" if trial.quality is None else f"quality {trial.quality:.4f}"
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.2f} ms"
    return f"Trial {trial.number} {trial.state}: {trial.architecture.label}: {quality}{latency}"
