"""The final distillation: winners learn from all examples, are measured again, and exported."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.loop import train
from stillhouse.errors import DeviceError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, pack_answers
from stillhouse.evaluate.loyalty import loyalty
from stillhouse.evaluate.metrics import score
from stillhouse.export.card import model_card
from stillhouse.export.checkpoint import METRICS_FILE, read_metrics, save_checkpoint
from stillhouse.files import folder_written_aside
from stillhouse.model.anatomy import encoder_parameters, usable_positions
from stillhouse.model.count import true_flops
from stillhouse.model.described import described
from stillhouse.model.own_families import needs_code
from stillhouse.model.predict import predict
from stillhouse.recipe.kept_seconds import seconds_kept
from stillhouse.recipe.layer_map_search import with_searched_map
from stillhouse.recipe.limits import cost_metrics, teacher_costs, weigh_finished
from stillhouse.recipe.logbook import watched
from stillhouse.recipe.objective import distillation_terms, told_layer_map
from stillhouse.recipe.scoring import choose_threshold, own_gold, quality_facts
from stillhouse.recipe.served import precision_facts, served_precision
from stillhouse.search.objectives import TWO_OBJECTIVES
from stillhouse.search.pareto import dominated_area, pareto_front

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.device.latency import Comparison
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.settings import DistillSettings
    from stillhouse.search.objectives import Objective
    from stillhouse.search.trial import Trial

LONG_TEXT_LENGTH = 128
"""Every student is also timed at this length, beside the workload's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner:
    """A student to train to the end.

    Attributes:
        name: Names its folder of checkpoints.
        model: The student with its first weights.
        initialisation: Where these came from.
        trial: Number of its trial, or `None` without a search.
    """

    name: str
    model: PreTrainedModel
    initialisation: dict[str, object]
    trial: int | None


def choose_winners(
    trials: Sequence[Trial],
    count: int,
    *,
    first: Trial | None = None,
    objectives: Sequence[Objective] = TWO_OBJECTIVES,
) -> list[Trial]:
    """Chooses the trials to train to the end, by search-validation quality only.

    The best comes first; each further one is the trial of the Pareto front that adds most to the
    hypervolume that the chosen ones dominate, so that the family holds the front's knees.

    Args:
        trials: All trials; infeasible and failed ones never win.
        count: Winners wanted; fewer where the front is smaller.
        first: A trial that wins before all others, such as the one of highest reward.
        objectives: What the front is of.

    Returns:
        Winners in the order in which they were chosen.
    """
    front = pareto_front(trials, objectives)
    if not front:
        return []
    best = min(front, key=lambda trial: [one.loss_of(trial) for one in objectives])
    chosen = [best] if first in (None, best) else [first, best]
    while rest := [trial for trial in front if trial not in chosen]:
        if len(chosen) >= count:
            break
        chosen.append(
            max(
                rest,
                key=lambda trial: dominated_area(
                    [*chosen, trial], within=front, objectives=objectives
                ),
            )
        )
    return chosen[:count]


def winner_of_trial(bench: Workbench, trial: Trial) -> Winner:
    """Builds the student of a trial anew, with the first weights that it had."""
    model = bench.build(trial.architecture).to(bench.accelerator.device)
    initialisation = bench.initialise(model)
    return Winner(
        name=f"trial-{trial.number:04d}",
        model=model,
        initialisation=initialisation.to_dict(),
        trial=trial.number,
    )


def finish_winner(bench: Workbench, limits: LimitSettings, winner: Winner) -> Path:
    """Distils a winner on all transfer examples and exports it, resuming what was begun.

    Returns:
        Its folder below the run's `work`, complete.
    """
    folder = _finished(bench, winner)
    if (folder / METRICS_FILE).exists():
        return folder
    distill = with_searched_map(bench, winner.model.config)
    with seconds_kept(bench.run.work / "final" / f"{winner.name}.json") as spent_s:
        _finish(bench, limits, winner, distill, spent_s)
    return folder


def _finish(
    bench: Workbench,
    limits: LimitSettings,
    winner: Winner,
    distill: DistillSettings,
    spent_s: Callable[[], float],
) -> None:
    settings = bench.settings
    terms = distillation_terms(
        distill,
        winner.model.config,
        bench.teacher.config,
        kind=bench.task.kind,
        seed=settings.seed,
    )
    terms += bench.own.terms_of(winner.model.config, bench.teacher.config)
    transfer = bench.data.transfer
    teacher = bench.signals(transfer, terms, "Teacher over the training set")
    checkpoint = CheckpointFolder(
        path=bench.run.work / "final" / winner.name, fingerprint=bench.teacher_hash
    )
    label = described(winner.model.config).label
    with watched(
        bench.narrator,
        bench.run.tensorboard / f"final-{winner.name}",
        f"Final {label}",
        checkpoint=checkpoint,
    ) as watch:
        train(
            winner.model,
            transfer,
            terms,
            bench.train_settings(settings.final.epochs),
            accelerator=bench.accelerator,
            teacher=teacher,
            watch=watch,
        )
    measured, answers = student_metrics(bench, limits, winner)
    metrics = {
        **measured,
        **told_layer_map(distill, winner.model.config, bench.teacher.config),
        "cost_s": round(spent_s(), 3),
    }
    card = model_card(
        metrics,
        teacher=bench.teacher_name,
        task=bench.task.name,
        kind=bench.task.kind,
        has_code=needs_code(winner.model.config),
    )
    save_checkpoint(
        _finished(bench, winner),
        winner.model,
        bench.tokenizer,
        metrics=metrics,
        card=card,
        files={ANSWERS_FILE: answers},
    )
    checkpoint.clear()


def _finished(bench: Workbench, winner: Winner) -> Path:
    return bench.run.work / "finished" / winner.name


def student_metrics(
    bench: Workbench, limits: LimitSettings, winner: Winner
) -> tuple[dict[str, Any], bytes]:
    """Measures a finished student: quality on dev and on search-validation, latency, size.

    Returns:
        Its measures, and its answers on dev as they are kept.
    """
    config = winner.model.config
    architecture = described(config)
    flops = true_flops(architecture, bench.ends_of(config), length=bench.workload.length)
    weighed = weigh_finished(
        bench.device,
        architecture,
        bench.workload,
        parameters=sum(p.numel() for p in winner.model.parameters()),
        flops_fraction=flops / bench.flops(bench.teacher_architecture),
    )
    assert weighed.comparison is not None
    quality, answers = _quality_metrics(bench, winner.model)
    metrics = {
        **quality,
        **latency_metrics(weighed.comparison),
        **_long_text_metrics(bench, winner.model),
        "device": bench.device.name,
        "workload": asdict(bench.workload),
        "workload_label": bench.workload.label,
        "parameters_encoder": encoder_parameters(winner.model),
        **teacher_costs(sum(p.numel() for p in bench.teacher.parameters()), weighed),
        "flops": flops,
        "architecture": architecture.to_dict(),
        "architecture_label": architecture.label,
        "initialisation": winner.initialisation,
        "trial": winner.trial,
        **cost_metrics(limits, weighed),
    }
    return metrics, answers


def _quality_metrics(bench: Workbench, model: PreTrainedModel) -> tuple[dict[str, Any], bytes]:
    task, seed = bench.task, bench.settings.seed
    dev, validation = bench.data.dev, bench.data.validation
    chosen_on = bench.student_logits(model, validation)
    choose_threshold(model, chosen_on, validation)
    logits, gold = bench.student_logits(model, dev), own_gold(model, dev)
    facts = quality_facts(task.metrics, logits, gold, seed=seed)
    answers = pack_answers(task.metrics, logits, gold, dev_sha256=task.dev_fingerprint())
    agreement = loyalty(
        logits,
        bench.teacher_dev_logits,
        gold,
        seed=seed,
        teacher_gold=own_gold(bench.teacher, dev),
    )
    teacher = read_metrics(bench.run.teacher)
    metrics = {
        "task_kind": task.kind,
        **facts,
        "loyalty": agreement.to_dict(),
        "max_length": bench.settings.task.max_length,
        "quality_search": bench.score(chosen_on, validation)[task.metrics[0]],
        "quality_search_count": len(validation.gold),
        **_float_quality(bench, model),
        "teacher_quality": teacher["quality"],
        "teacher_quality_search": teacher["quality_search"],
        "quality_fraction": facts["quality"] / teacher["quality"] if teacher["quality"] else None,
    }
    return metrics, answers


def _float_quality(bench: Workbench, model: PreTrainedModel) -> dict[str, Any]:
    """Tells the precision of the scores, and those before 8 bits of a student served so."""
    precision = served_precision(bench.settings.device)
    if precision is None:
        return precision_facts(bench.precision)
    metric, dev = bench.task.metrics[0], bench.data.dev
    logits = predict(model, dev, precision=bench.precision)
    return {
        **precision_facts(precision),
        "quality_before_8_bits": score([metric], logits, own_gold(model, dev))[metric],
    }


def latency_metrics(comparison: Comparison) -> dict[str, Any]:
    """Returns a student's latency and the teacher's as they stand in `metrics.json`."""
    latency, predicted = comparison.student, comparison.predicted
    told: dict[str, Any] = {
        "latency_ms": latency.median_ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
        "latency_p10_ms": latency.p10_ms,
        "latency_p90_ms": latency.p90_ms,
        "latency_runs": latency.runs,
        "latency_how": latency.how,
        "teacher_latency_ms": comparison.teacher.median_ms,
        "speedup": comparison.speedup,
    }
    if predicted is None:
        return told
    error_fraction = predicted.median_ms / latency.median_ms - 1  # of what was measured
    return {
        **told,
        "latency_predicted_ms": predicted.median_ms,
        "latency_predicted_error_fraction": error_fraction,
    }


def _long_text_metrics(bench: Workbench, model: PreTrainedModel) -> dict[str, Any]:
    """Times the student at length 128 where the model reaches it and the device knows it."""
    if bench.settings.device.kind == "table":
        return {}
    if usable_positions(model.config) < LONG_TEXT_LENGTH:
        return {}
    try:
        comparison = bench.compare(described(model.config), length=LONG_TEXT_LENGTH)
    except DeviceError as error:
        bench.narrator.say(f"No latency at length {LONG_TEXT_LENGTH}: {error}")
        return {}
    return {
        "latency_128_ms": comparison.student.median_ms,
        "teacher_latency_128_ms": comparison.teacher.median_ms,
        "speedup_128": comparison.speedup,
    }


def rank_students(run: RunDirectory, finished: Sequence[Path]) -> list[Path]:
    """Copies finished students to `students/<rank>`.

    Rank 1 is the best on search-validation among those within every limit; students over a limit
    come last. Dev scores have no say.
    """
    measured = [(read_metrics(folder), folder) for folder in finished]
    ordered = sorted(measured, key=lambda m: (not m[0]["within_limit"], -m[0]["quality_search"]))
    ranked = []
    for rank, (_, folder) in enumerate(ordered, start=1):
        target = run.student(rank)
        with folder_written_aside(target) as aside:
            shutil.copytree(folder, aside, dirs_exist_ok=True)
        ranked.append(target)
    return ranked
