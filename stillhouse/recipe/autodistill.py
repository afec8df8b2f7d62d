"""AutoDistill: a search for MobileBERTs by quality and latency, judged by flash distillation.

Source: Zhang et al., "AutoDistill: an End-to-End Framework to Explore and Distill
Hardware-Efficient Language Models", 2022, arXiv 2201.08539. Quality is that at masked words, as in
the paper, and latency is a true second objective. What differs here: the space is in the
proportions of the teacher at hand, which need not be MobileBERT's own; there is no sentence-order
task; the sampler is Optuna's Gaussian process with expected hypervolume improvement.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from stillhouse.errors import DeviceError, RunError
from stillhouse.recipe.final import choose_winners, rank_students
from stillhouse.recipe.flash import flash_judge
from stillhouse.recipe.kd_nas import best_by_reward, with_reward
from stillhouse.recipe.limits import size_mb
from stillhouse.recipe.mlm_nursery import refuse_other_origin, with_mlm_head
from stillhouse.recipe.mobile_final import finalist_of_trial, finish_student, keep_teacher
from stillhouse.recipe.mobile_nursery import (
    METRIC,
    flash_steps,
    open_mobile_nursery,
    screen_mobilebert,
)
from stillhouse.recipe.mobile_references import judge_references, train_competitors
from stillhouse.recipe.searching import Aims, time_keeper, told, why_no_winner
from stillhouse.recipe.served import say_how_far_served
from stillhouse.search.halving import judge_by_rungs
from stillhouse.search.loop import run_search
from stillhouse.search.objectives import REWARD
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.record import Record
from stillhouse.search.samplers import make_sampler
from stillhouse.search.trial import CandidateFailed
from stillhouse.space.published import autodistill_references

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from stillhouse.recipe.mobile_nursery import MobileNursery
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.search.loop import Judgement, Screening
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import Architecture

SCORED = (
    "candidates and students tell masked words with their encoder in {}, too, and with a head in "
    "float32, which is not served"
)
"""What is said where the device is of 8 bits."""

REWARD_ALPHA = -0.07
"""Exponent of the latency where the reward alone is searched: MnasNet's, as AutoDistill is read."""


def search_mobilebert(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> list[Path]:
    """Searches, distils the front in full and exports it; resumes what the run directory holds.

    The hand-crafted MobileBERTs are judged beside the candidates; what `compare` names is distilled
    in full, too.

    Returns:
        Folders of the finished students, by rank.

    Raises:
        StillhouseError: As `open_mobile_nursery` does.
        RunError: If the teacher or the corpus has changed, or no candidate could be trained.
    """
    nursery = open_mobile_nursery(settings, run, narrator, accelerator)
    if not nursery.limits.given():
        narrator.say(
            "No limit given: students are searched over all latencies (--limit narrows that)."
        )
    _note_start(nursery)
    with run.timed("teacher's head"):
        text = nursery.text_of(settings.transfer.batch_size)
        nursery = with_mlm_head(nursery, text)
        keep_teacher(nursery)
    with run.timed("search"):
        trials = _search(nursery)
    winners = choose_winners(
        trials,
        settings.final.students,
        first=best_by_reward(trials),
        objectives=_aims(nursery).of_front,
    )
    if not winners:
        raise RunError(why_no_winner(trials))
    with run.timed("references"):
        judge_references(nursery)
    with run.timed("final"):
        finalists = map(finalist_of_trial, winners)
        students = rank_students(run, [finish_student(nursery, one) for one in finalists])
    if settings.compare:
        with run.timed("competitors"):
            train_competitors(nursery)
    return students


def _note_start(nursery: MobileNursery) -> None:
    """Writes what the run stands on; refuses another teacher or corpus than it began with."""
    run, space, corpus = nursery.run, nursery.space, nursery.corpus
    run.write_provenance(nursery.settings, refuse_other_origin(nursery))
    say_how_far_served(nursery.settings.device, nursery.narrator, SCORED)
    run.update_state(
        {
            "task": f"corpus {nursery.settings.corpus.name}",
            "teacher": nursery.teacher.encoder.name,
            "limits": nursery.limits.given(),
            "space_size": space.size(),
            "grid_size": space.grid_size,
            "workload": nursery.workload.label,
            "device": nursery.device.name,
            "metric": METRIC,
            "objectives": list(nursery.settings.search.objectives),
        }
    )
    largest = max(space, key=nursery.parameters)
    nursery.narrator.say(
        f"{space.size()} MobileBERTs in the proportions of {nursery.teacher_architecture.label}; "
        f"steps of a candidate: {nursery.flash_steps_a_layer(largest)} for each of "
        f"{largest.layers} layers; corpus of {len(corpus.train):,} sequences of "
        f"{corpus.train.length} tokens, {len(corpus.held_out):,} held out."
    )
    _note_rungs(nursery, largest)


def _note_rungs(nursery: MobileNursery, architecture: Architecture) -> None:
    halving = nursery.halving
    shares = [halving.share(rung) for rung in range(1, halving.rungs)]
    if shares:
        steps = [str(nursery.flash_steps_a_layer(architecture, share)) for share in shares]
        nursery.narrator.say(
            f"Successive halving: candidates are first judged by {' and '.join(steps)} steps for "
            f"each layer, and one in {halving.reduction} of about the same latency goes on."
        )


def _screen(nursery: MobileNursery, architecture: Architecture) -> Screening:
    try:
        return screen_mobilebert(nursery.scales, nursery.limits, architecture)
    except DeviceError as error:
        raise CandidateFailed(str(error)) from error


def _search(nursery: MobileNursery) -> list[Trial]:
    settings, run = nursery.settings.search, nursery.run
    assert settings.strategy != "controller"  # the job refused it
    aims = _aims(nursery)
    weighing = settings if settings.alpha is not None else replace(settings, alpha=REWARD_ALPHA)
    record = Record(run.storage_url, nursery.space, objectives=aims.of_front)
    strategy = OptunaStrategy(
        nursery.space,
        make_sampler(settings.strategy),
        nursery.settings.seed,
        objectives=aims.of_strategy,
    )

    def judge(number: int, architecture: Architecture, trial: Trial) -> Judgement:
        judge_at = flash_judge(nursery, number, architecture)
        rewarded = partial(with_reward, weighing, nursery.limits, trial)
        return judge_by_rungs(
            nursery.halving,
            trial,
            record.trials(),
            (lambda rung: rewarded(judge_at(rung))) if REWARD in aims.names else judge_at,
        )

    with told(run, nursery.narrator, record, aims) as on_trial:
        return run_search(
            strategy=strategy,
            record=record,
            screen=lambda architecture: _screen(nursery, architecture),
            judge=judge,
            candidates=settings.most_candidates,
            may_start=time_keeper(
                run, settings.seconds, record.trials(), lambda each: _final_seconds(nursery, each)
            ),
            on_trial=on_trial,
            seed=nursery.settings.seed,
            ask=settings.ask,
        )


def _aims(nursery: MobileNursery) -> Aims:
    teacher = nursery.parameters(nursery.teacher_architecture)
    return Aims(
        names=nursery.settings.search.objectives,
        teacher_size_mb=size_mb(teacher, nursery.workload.precision),
    )


def _final_seconds(nursery: MobileNursery, candidate_s: float) -> float:
    """Estimates the time of all that follows from that of a candidate through all rungs.

    A step of a transfer goes through half of the layers on average, one of pre-training through
    all of them.
    """
    settings = nursery.settings
    transfer, pretrain = settings.transfer, settings.pretrain
    step_s = candidate_s / (flash_steps(settings) * nursery.halving.total_share)
    sequences = pretrain.batch_size / transfer.batch_size
    student_s = step_s * (transfer.steps + 2 * sequences * pretrain.steps)
    references = len(autodistill_references(nursery.teacher_architecture))
    flash_s = references * step_s * flash_steps(settings)
    return flash_s + (settings.final.students + len(settings.compare)) * student_s
