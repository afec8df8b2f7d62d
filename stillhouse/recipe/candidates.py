"""Candidates: what is measured before training, and the short distillation that judges them."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch

from stillhouse.distill.loop import train
from stillhouse.distill.measure import mean_loss
from stillhouse.errors import DeviceError, ExportError, TrainingError
from stillhouse.recipe.limits import violations, weigh
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.objective import distillation_terms, hidden_term
from stillhouse.recipe.workbench import Workbench, latency_facts
from stillhouse.search.loop import Judgement, Screening
from stillhouse.search.trial import CandidateFailed, TrialState

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.distill.terms import Term
    from stillhouse.recipe.limits import Weighed
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.search.trial import JsonValue, Trial
    from stillhouse.space.architecture import Architecture

OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def screen_candidate(
    bench: Workbench, limits: LimitSettings, architecture: Architecture
) -> Screening:
    """Tells a candidate's latency, size and distance from every limit, before any training."""
    counts, flops = bench.counts(architecture), bench.flops(architecture)
    try:
        weighed = weigh(
            bench.device,
            architecture,
            bench.workload,
            limits,
            parameters=counts.total,
            flops_fraction=flops / bench.flops(bench.teacher_architecture),
        )
    except DeviceError as error:
        raise CandidateFailed(str(error)) from error
    return screening_of(weighed, limits, parameters_encoder=counts.encoder, flops=flops)


def screening_of(weighed: Weighed, limits: LimitSettings, **others: JsonValue) -> Screening:
    """Puts together what is known of a candidate before any training.

    Args:
        weighed: What it costs, its latency too.
        limits: What it must stay within.
        others: Further counts to record.
    """
    assert weighed.comparison is not None
    facts = {
        **latency_facts(weighed.comparison),
        "parameters": weighed.parameters,
        "size_mb": weighed.size_mb,
        **weighed.measured(),
        "flops_fraction": weighed.flops_fraction,
        **others,
    }
    return Screening(
        latency_ms=weighed.comparison.student.median_ms,
        violations=violations(limits, weighed),
        attributes=cast("dict[str, JsonValue]", facts),
    )


def judge_candidate(
    bench: Workbench, name: str, architecture: Architecture, *, seed: int | None = None
) -> Judgement:
    """Distils a candidate briefly on the proxy set and scores it on search-validation.

    Every candidate gets the same examples in the same order, the same seed and the same schedule.

    Args:
        bench: The run's workbench.
        name: Such as `trial-0012`; names its curves.
        architecture: What is built and distilled.
        seed: Of fresh weights and of the order of the examples; `None` for the run's, which every
            candidate of a search has. The proxy set is the run's either way.

    Raises:
        CandidateFailed: If it runs out of memory or time, or its loss is not finite.
    """
    with failing_alone():
        return _judge(bench, name, architecture, seed)


@contextmanager
def failing_alone() -> Iterator[None]:
    """Lets what a candidate dies of end that candidate and not the search; frees its memory.

    Raises:
        CandidateFailed: If it runs out of memory or time, its loss is not finite, or it cannot be
            quantised for a device of 8 bits.
    """
    try:
        yield
    except (TrainingError, ExportError) as error:
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


def _judge(bench: Workbench, name: str, architecture: Architecture, seed: int | None) -> Judgement:
    settings = bench.settings
    seed = settings.seed if seed is None else seed
    student = bench.build(architecture, seed=seed).to(bench.accelerator.device)
    initialisation = bench.initialise(student)
    terms = _terms(bench, student, seed)
    teacher = bench.signals(bench.proxy, terms, "Teacher over the proxy set")
    seconds = settings.search.candidate_seconds
    with watched(
        bench.narrator,
        bench.run.tensorboard / name,
        f"{name.replace('-', ' ').capitalize()}: {architecture.label}",
        deadline=None if seconds is None else time.monotonic() + seconds,
    ) as watch:
        report = train(
            student,
            bench.proxy,
            terms,
            bench.train_settings(bench.proxy_epochs, seed=seed),
            accelerator=bench.accelerator,
            teacher=teacher,
            watch=watch,
        )
    quality, scores = _score(bench, student, terms)
    attributes = {
        "scores": scores,
        "initialisation": initialisation.to_dict(),
        "proxy_loss": report.loss,
        "seed": seed,
    }
    return Judgement(quality=quality, attributes=cast("dict[str, JsonValue]", attributes))


def _terms(bench: Workbench, student: PreTrainedModel, seed: int) -> list[Term]:
    """The objective of a candidate: the final one, or hidden states alone if they judge it."""
    distill, teacher = bench.settings.distill, bench.teacher
    if bench.settings.search.quality == "hidden":
        return [hidden_term(distill, student.config, teacher.config, weight=1.0, seed=seed)]
    named = distillation_terms(
        distill, student.config, teacher.config, kind=bench.task.kind, seed=seed
    )
    return [*named, *bench.own.terms_of(student.config, teacher.config)]


def _score(
    bench: Workbench, student: PreTrainedModel, terms: list[Term]
) -> tuple[float, dict[str, float]]:
    """Judges a trained candidate on search-validation by what the search's quality is."""
    validation = bench.data.validation
    if bench.settings.search.quality == "task":
        scores = bench.score(bench.student_logits(student, validation), validation)
        return scores[bench.task.metrics[0]], scores
    teacher = bench.signals(validation, terms, "Teacher over the search-validation set")
    (term,) = terms
    loss = mean_loss(student, validation, term, teacher, precision=bench.precision)
    return 1 - loss, {"hidden_loss": loss}


def _is_out_of_memory(error: BaseException) -> bool:
    words = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        phrase in words for phrase in OUT_OF_MEMORY_WORDS
    )


def describe_trial(trial: Trial) -> str:
    """One line about a finished trial, for a person."""
    quality = "not trained" if trial.quality is None else f"quality {trial.quality:.4f}"
    if trial.state is TrialState.STOPPED:
        rungs = trial.rung_qualities
        quality = f"quality {rungs[-1]:.4f} at rung {len(rungs)}"
    latency = "" if trial.latency_ms is None else f", {trial.latency_ms:.2f} ms"
    return f"Trial {trial.number} {trial.state}: {trial.architecture.label}: {quality}{latency}"
