"""AutoDistill: a search for MobileBERTs by quality and latency, judged by flash distillation.

Source: Zhang et al., "AutoDistill: an End-to-End Framework to Explore and Distill
Hardware-Efficient Language Models", 2022, arXiv 2201.08539. Quality is that at masked words, as in
the paper, and latency is a true second objective. What differs here: the space is in the
proportions of the teacher at hand, which need not be MobileBERT's own; there is no sentence-order
task; the sampler is Optuna's Gaussian process with expected hypervolume improvement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from stillhouse.errors import DeviceError, RunError
from stillhouse.recipe.final import choose_winners, rank_students
from stillhouse.recipe.flash import judge_by_flash
from stillhouse.recipe.limits import violations
from stillhouse.recipe.mlm_nursery import refuse_other_origin, with_mlm_head
from stillhouse.recipe.mobile_final import finish_student, keep_teacher
from stillhouse.recipe.mobile_nursery import METRIC, open_mobile_nursery
from stillhouse.recipe.searching import refuse_hopeless, time_keeper, told, why_no_winner
from stillhouse.recipe.workbench import latency_facts
from stillhouse.search.loop import Screening, run_search
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.record import Record
from stillhouse.search.samplers import make_sampler
from stillhouse.search.trial import CandidateFailed

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator

    from stillhouse.recipe.mobile_nursery import MobileNursery
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import RunSettings
    from stillhouse.search.trial import JsonValue, Trial
    from stillhouse.space.architecture import Architecture


def search_mobilebert(
    settings: RunSettings, run: RunDirectory, narrator: Narrator, accelerator: Accelerator
) -> list[Path]:
    """Searches, distils the front in full and exports it; resumes what the run directory holds.

    Returns:
        Folders of the finished students, by rank.

    Raises:
        StillhouseError: As `open_mobile_nursery` does.
        DeviceError: If even the smallest student is over a limit.
        RunError: If the teacher or the corpus has changed, or no candidate could be trained.
    """
    nursery = open_mobile_nursery(settings, run, narrator, accelerator)
    if not nursery.limits.given():
        narrator.say(
            "No limit given: students are searched over all latencies (--limit narrows that)."
        )
    if run.is_untouched:  # later, a noisy measurement must not refuse what was begun
        _refuse_hopeless(nursery)
    _note_start(nursery)
    with run.timed("teacher's head"):
        text = nursery.text_of(settings.transfer.batch_size)
        nursery = with_mlm_head(nursery, text)
        keep_teacher(nursery)
    with run.timed("search"):
        trials = _search(nursery)
    winners = choose_winners(trials, settings.final.students)
    if not winners:
        raise RunError(why_no_winner(trials))
    with run.timed("final"):
        return rank_students(run, [finish_student(nursery, winner) for winner in winners])


def _note_start(nursery: MobileNursery) -> None:
    """Writes what the run stands on; refuses another teacher or corpus than it began with."""
    run, space, corpus = nursery.run, nursery.space, nursery.corpus
    run.write_provenance(nursery.settings, refuse_other_origin(nursery))
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
        }
    )
    largest = max(space, key=nursery.parameters)
    nursery.narrator.say(
        f"{space.size()} MobileBERTs in the proportions of {nursery.teacher_architecture.label}; "
        f"steps of a candidate: {nursery.flash_steps_a_layer(largest)} for each of "
        f"{largest.layers} layers; corpus of {len(corpus.train):,} sequences of "
        f"{corpus.train.length} tokens, {len(corpus.held_out):,} held out."
    )


def _refuse_hopeless(nursery: MobileNursery) -> None:
    smallest = nursery.space.smallest()
    refuse_hopeless(
        smallest,
        _screen(nursery, smallest),
        nursery.limits,
        device=nursery.device,
        workload=nursery.workload,
    )


def _screen_or_fail(nursery: MobileNursery, architecture: Architecture) -> Screening:
    try:
        return _screen(nursery, architecture)
    except DeviceError as error:
        raise CandidateFailed(str(error)) from error


def _screen(nursery: MobileNursery, architecture: Architecture) -> Screening:
    comparison = nursery.device.compare(architecture, nursery.workload)
    parameters = nursery.parameters(architecture)
    flops_fraction = nursery.flops_fraction(architecture)
    facts = {
        **latency_facts(comparison),
        "parameters": parameters,
        "flops_fraction": flops_fraction,
    }
    return Screening(
        latency_ms=comparison.student.median_ms,
        violations=violations(
            nursery.limits, comparison, parameters=parameters, flops_fraction=flops_fraction
        ),
        attributes=cast("dict[str, JsonValue]", facts),
    )


def _search(nursery: MobileNursery) -> list[Trial]:
    settings, run = nursery.settings.search, nursery.run
    assert settings.strategy != "controller"  # the job refused it
    record = Record(run.storage_url, nursery.space)
    strategy = OptunaStrategy(nursery.space, make_sampler(settings.strategy), nursery.settings.seed)
    with told(run, nursery.narrator, record) as on_trial:
        return run_search(
            strategy=strategy,
            record=record,
            screen=lambda architecture: _screen_or_fail(nursery, architecture),
            judge=lambda number, architecture, _: judge_by_flash(nursery, number, architecture),
            candidates=settings.most_candidates,
            may_start=time_keeper(
                run, settings.seconds, record.trials(), lambda each: _final_seconds(nursery, each)
            ),
            on_trial=on_trial,
            seed=nursery.settings.seed,
        )


def _final_seconds(nursery: MobileNursery, candidate_s: float) -> float:
    """Estimates the time of all students from that of a candidate.

    A step of a transfer goes through half of the layers on average, one of pre-training through
    all of them.
    """
    settings = nursery.settings
    transfer, pretrain = settings.transfer, settings.pretrain
    flash_steps = transfer.flash_fraction * (transfer.steps + pretrain.steps)
    step_s = candidate_s / flash_steps
    sequences = pretrain.batch_size / transfer.batch_size
    student_s = step_s * (transfer.steps + 2 * sequences * pretrain.steps)
    return settings.final.students * student_s
