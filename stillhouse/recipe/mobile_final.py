"""Regular distillation of MobileBERTs: transfer, pre-training, measures, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from scipy import stats

from stillhouse.distill.masked_lm import MlmNetwork, held_out_mlm
from stillhouse.export.card import pretrained_card
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.files import folder_written_aside
from stillhouse.recipe.final import latency_metrics
from stillhouse.recipe.flash import transfer
from stillhouse.recipe.kept_seconds import seconds_kept
from stillhouse.recipe.limits import cost_metrics, teacher_costs, weigh, weigh_finished
from stillhouse.recipe.mobile_nursery import METRIC
from stillhouse.recipe.pretrain import PRETRAIN_FOLDER, train_student
from stillhouse.recipe.served import precision_facts
from stillhouse.recipe.served_words import score_words

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import MobileBertForMaskedLM

    from stillhouse.recipe.limits import Weighed
    from stillhouse.recipe.mobile_nursery import MobileNursery
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalist:
    """A student to distil in full.

    Attributes:
        name: Names its folders and curves.
        architecture: Its shape.
        how: What it is and where it comes from, for its card.
        facts: What is known of it before, for its `metrics.json`.
    """

    name: str
    architecture: Architecture
    how: str
    facts: Mapping[str, Any]


def keep_teacher(nursery: MobileNursery) -> None:
    """Scores the teacher on both halves of the held-out text, once, for the report."""
    file = nursery.run.teacher / METRICS_FILE
    if file.exists():
        return
    model = nursery.teacher.encoder.model
    comparison = nursery.device.compare(nursery.space.smallest(), nursery.workload)
    metrics = {
        **_qualities(nursery, nursery.teacher),
        "latency_ms": comparison.teacher.median_ms,
        "latency_low_ms": comparison.teacher.low_ms,
        "latency_high_ms": comparison.teacher.high_ms,
        "latency_how": comparison.teacher.how,
        "device": nursery.device.name,
        "workload_label": nursery.workload.label,
        "parameters": sum(p.numel() for p in model.parameters()),
        "architecture": nursery.teacher_architecture.to_dict(),
    }
    with folder_written_aside(nursery.run.teacher) as aside:
        (aside / METRICS_FILE).write_text(json.dumps(metrics, indent=2) + "\n")


def finalist_of_trial(trial: Trial) -> Finalist:
    """Names the student of a trial."""
    return Finalist(
        name=f"student-of-trial-{trial.number:04d}",
        architecture=trial.architecture,
        how="a MobileBERT, found by multi-objective search and distilled layer by layer",
        facts={"trial": trial.number, "flash_quality": trial.quality},
    )


def finish_student(nursery: MobileNursery, finalist: Finalist) -> Path:
    """Distils a student as the settings say, and exports it, resuming what was begun.

    Returns:
        Its folder below the run's `work`, complete.
    """
    run, settings, name = nursery.run, nursery.settings, finalist.name
    folder = run.work / "finished" / name
    if (folder / METRICS_FILE).exists():
        return folder
    with seconds_kept(run.work / "final" / f"{name}.json") as spent_s:
        student = nursery.build(finalist.architecture)
        transfer(
            nursery,
            student,
            name,
            steps_a_layer=nursery.steps_a_layer(finalist.architecture),
            keeps_checkpoints=True,
        )
        train_student(nursery, student, name)
        metrics = {
            **_student_metrics(nursery, student, finalist.architecture),
            **finalist.facts,
            "initialisation": {"kind": "transfer", "layers": []},
            "cost_s": round(spent_s(), 3),
        }
        card = pretrained_card(
            metrics,
            how=finalist.how,
            teacher=nursery.teacher.encoder.name,
            corpus=settings.corpus.name,
            has_code=False,
        )
        tokenizer = nursery.teacher.encoder.tokenizer
        save_checkpoint(folder, student, tokenizer, metrics=metrics, card=card)
    for kind in ("transfer", PRETRAIN_FOLDER):
        shutil.rmtree(run.work / kind / name, ignore_errors=True)
    return folder


def costs(nursery: MobileNursery, architecture: Architecture) -> dict[str, Any]:
    """Tells what a student costs and whether that is within the limits, as in `metrics.json`.

    Raises:
        DeviceError: If the device cannot tell its latency, or its memory where that is limited.
    """
    weighed = weigh(
        nursery.device,
        architecture,
        nursery.workload,
        nursery.limits,
        parameters=nursery.parameters(architecture),
        flops_fraction=nursery.flops_fraction(architecture),
    )
    return _told(nursery, weighed)


def _finished_costs(
    nursery: MobileNursery, architecture: Architecture, teacher_parameters: int
) -> dict[str, Any]:
    """Tells the same of a finished student, with its memory where that can be told."""
    weighed = weigh_finished(
        nursery.device,
        architecture,
        nursery.workload,
        parameters=nursery.parameters(architecture),
        flops_fraction=nursery.flops_fraction(architecture),
    )
    return {**teacher_costs(teacher_parameters, weighed), **_told(nursery, weighed)}


def _told(nursery: MobileNursery, weighed: Weighed) -> dict[str, Any]:
    assert weighed.comparison is not None
    return {**latency_metrics(weighed.comparison), **cost_metrics(nursery.limits, weighed)}


def _student_metrics(
    nursery: MobileNursery, student: MobileBertForMaskedLM, architecture: Architecture
) -> dict[str, Any]:
    settings = nursery.settings
    teacher = read_metrics(nursery.run.teacher)
    qualities = _qualities(nursery, student)
    transfer_steps = nursery.steps_a_layer(architecture) * architecture.layers
    sequences = (
        transfer_steps * settings.transfer.batch_size
        + settings.pretrain.steps * settings.pretrain.batch_size
    )
    return {
        **qualities,
        "mlm_accuracy_fraction": qualities["quality"],
        "teacher_mlm_accuracy_fraction": teacher["quality"],
        "teacher_quality": teacher["quality"],
        "teacher_quality_search": teacher["quality_search"],
        "quality_fraction": qualities["quality"] / teacher["quality"]
        if teacher["quality"]
        else None,
        **_finished_costs(nursery, architecture, teacher["parameters"]),
        "device": nursery.device.name,
        "workload": asdict(nursery.workload),
        "workload_label": nursery.workload.label,
        "checkpoint_parameters": sum(p.numel() for p in student.parameters()),
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
        "transfer": asdict(settings.transfer),
        "pretrain": asdict(settings.pretrain),
        "tokens": sequences * nursery.corpus.train.length,
    }


def _qualities(nursery: MobileNursery, network: MlmNetwork) -> dict[str, Any]:
    """Scores on the text that chooses, and on the other, with a 95 % interval over its tokens.

    A student is scored as the device serves its encoder; if that is in 8 bits, before that, too.
    """
    scored = score_words(nursery, network, (nursery.judging_text, nursery.report_text))
    search, report = scored.scores
    before = {}
    if scored.is_served:
        before = {"quality_before_8_bits": _accuracy_in_float(nursery, network)}
    right = round(report.accuracy_fraction * report.chosen_count)
    interval = stats.binomtest(right, report.chosen_count).proportion_ci(method="wilson")
    return {
        "metric": METRIC,
        "quality": report.accuracy_fraction,
        "quality_low": float(interval.low),
        "quality_high": float(interval.high),
        "quality_count": report.chosen_count,
        "cross_entropy_nats": report.cross_entropy_nats,
        "quality_search": search.accuracy_fraction,
        "quality_search_count": search.chosen_count,
        **precision_facts(scored.precision),
        **before,
    }


def _accuracy_in_float(nursery: MobileNursery, network: MlmNetwork) -> float:
    score = held_out_mlm(network, nursery.report_text, nursery.masker, precision=nursery.precision)
    return score.accuracy_fraction
