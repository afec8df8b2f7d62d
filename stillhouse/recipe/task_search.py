"""Search with short distillation as the judge: any strategy, any device, one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.errors import RunError
from stillhouse.evaluate.metrics import constant_quality
from stillhouse.model.extraction import check_extract
from stillhouse.model.students import student_config
from stillhouse.recipe.candidates import judge_candidate, screen_candidate
from stillhouse.recipe.competitors import check_competitors, train_competitors
from stillhouse.recipe.final import choose_winners, finish_winner, rank_students, winner_of_trial
from stillhouse.recipe.kd_nas import (
    best_by_reward,
    make_controller,
    with_reward,
    write_controller,
)
from stillhouse.recipe.layer_map_search import map_trainings
from stillhouse.recipe.limits import DEFAULT_SPEEDUP, size_mb
from stillhouse.recipe.objective import check_hidden_quality, check_layer_map
from stillhouse.recipe.proxy_check import (
    check_against_final,
    choose_controls,
    keep_controls,
    warn_of_little_learning,
)
from stillhouse.recipe.quantise_bench import check_quantisable
from stillhouse.recipe.quantising import quantise_students, quantising_passes
from stillhouse.recipe.searching import Aims, refuse_hopeless, time_keeper, told, why_no_winner
from stillhouse.recipe.served import export_for_device
from stillhouse.recipe.space import space_of
from stillhouse.recipe.teacher import teacher_metrics
from stillhouse.search.controller import Controller
from stillhouse.search.loop import Judgement, run_search
from stillhouse.search.objectives import LATENCY, REWARD
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.record import Record
from stillhouse.search.samplers import make_sampler
from stillhouse.search.trial import Trial

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.search.strategy import Strategy
    from stillhouse.space.architecture import Architecture
    from stillhouse.space.search_space import SearchSpace


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search left.

    Attributes:
        trials: All finished trials, by number.
        students: Folders of the finished students, by rank.
    """

    trials: tuple[Trial, ...]
    students: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """What a search looks through, within which limits, and on how many examples it judges."""

    space: SearchSpace
    limits: LimitSettings
    proxy_examples: int


def plan_search(bench: Workbench) -> SearchPlan:
    """Settles space and limits; the workbench need not be prepared, for nothing is trained.

    Raises:
        SpaceError: If the size rule leaves nothing of the space.
        DataError: If the proxy set cannot hold an example of every class.
        SettingsError: If first weights or layer map cannot be those of every student, or students
            cannot be quantised as is asked for.
        DeviceError: If even the smallest architecture is over a limit.
    """
    plan = SearchPlan(
        space=space_of(bench), limits=effective_limits(bench), proxy_examples=len(bench.proxy)
    )
    if bench.run.is_untouched:
        _check_students(bench, list(plan.space.enumerate()))
        check_limits_can_be_met(bench, plan.space, plan.limits)
        check_competitors(bench)
    return plan


def _check_students(bench: Workbench, shapes: Sequence[Architecture]) -> None:
    """Refuses first weights, layer maps and few bits that some student of the space cannot have."""
    distill = bench.settings.distill
    if bench.settings.quantise.weight_bits is not None:  # what one of a space can, all of it can
        check_quantisable(bench.settings.quantise, student_config(shapes[0], bench.teacher.config))
    check_layer_map(distill, [shape.layers for shape in shapes], bench.teacher.config)
    if bench.settings.search.quality == "hidden":
        check_hidden_quality(distill)
    if distill.initialisation == "extract":
        for shape in shapes:
            check_extract(shape, bench.teacher_architecture)


def search_task(bench: Workbench, plan: SearchPlan) -> Outcome:
    """Searches, distils the winners and exports them; resumes what the run directory holds.

    Raises:
        RunError: If no candidate could be trained.
    """
    space, limits = plan.space, plan.limits
    bench.run.update_state(
        {
            "task": bench.task.name,
            "teacher": bench.teacher_name,
            "limits": limits.given(),
            "space_size": space.size(),
            "grid_size": space.grid_size,
            "workload": bench.workload.label,
            "device": bench.device.name,
            "proxy_examples": plan.proxy_examples,
            "objectives": list(bench.settings.search.objectives),
        }
    )
    with bench.run.timed("search"):
        trials = _search(bench, space, limits)
    _check_learning(bench, trials)
    winners = choose_winners(
        trials,
        bench.settings.final.students,
        first=best_by_reward(trials),
        objectives=aims_of(bench).of_front,
    )
    if not winners:
        raise RunError(why_no_winner(trials))
    with bench.run.timed("final"):
        finished = _finish(bench, limits, winners)
        students = rank_students(bench.run, list(finished.values()))
        export_for_device(bench, students)
    quantise_students(bench, students)
    if bench.settings.compare:
        with bench.run.timed("competitors"):
            train_competitors(bench, limits)
    if bench.settings.final.controls:
        with bench.run.timed("controls"):
            # Winners that the front was too small for are made up for: n is what can be told.
            short = bench.settings.final.students - len(winners)
            controls = choose_controls(trials, winners, bench.settings.final.controls + short)
            finished_controls = _finish(bench, limits, controls)
            keep_controls(bench, finished_controls)
            check_against_final(bench, trials, winners=finished, controls=finished_controls)
    return Outcome(trials=tuple(trials), students=tuple(students))


def _check_learning(bench: Workbench, trials: Sequence[Trial]) -> None:
    if bench.settings.search.quality != "task":
        return
    gold = bench.data.validation.gold
    teacher = teacher_metrics(bench.run)["quality_search"]
    assert isinstance(teacher, int | float)
    warn_of_little_learning(
        trials,
        constant=constant_quality(bench.task.metrics[0], gold, classes=bench.task.output_count),
        teacher=teacher,
        narrator=bench.narrator,
    )


def _finish(bench: Workbench, limits: LimitSettings, trials: Sequence[Trial]) -> dict[int, Path]:
    """Trains trials to the end; returns each one's folder by its number."""
    return {
        trial.number: finish_winner(bench, limits, winner_of_trial(bench, trial))
        for trial in trials
    }


def effective_limits(bench: Workbench) -> LimitSettings:
    """Returns the limits, or the default one, said aloud, where none was given.

    A reward weighs latency without a limit, and a search for other objectives asks for none.
    """
    limits, search = bench.settings.limit, bench.settings.search
    has_reward = search.strategy == "controller" or REWARD in search.objectives
    if limits.given() or has_reward or LATENCY.name not in search.objectives:
        return limits
    bench.narrator.say(
        f"No limit given: looking for students at least {DEFAULT_SPEEDUP:g} times as fast as the "
        "teacher (--limit changes it)."
    )
    return replace(limits, speedup=DEFAULT_SPEEDUP)


def check_limits_can_be_met(bench: Workbench, space: SearchSpace, limits: LimitSettings) -> None:
    """Measures the smallest architecture, so that an impossible limit stops in seconds.

    Raises:
        DeviceError: Naming each limit that it exceeds, and by how much.
    """
    smallest = space.smallest()
    screening = screen_candidate(bench, limits, smallest)
    refuse_hopeless(smallest, screening, limits, device=bench.device, workload=bench.workload)
    teacher_ms = screening.attributes["teacher_latency_ms"]
    assert isinstance(teacher_ms, int | float)
    if limits.latency_ms is not None and teacher_ms <= limits.latency_ms:
        bench.narrator.say(
            f"The teacher itself takes {teacher_ms:.2f} ms, within latency_ms="
            f"{limits.latency_ms:g}: a lower limit would give faster students."
        )


def _search(bench: Workbench, space: SearchSpace, limits: LimitSettings) -> list[Trial]:
    settings = bench.settings.search
    aims = aims_of(bench)
    record = Record(bench.run.storage_url, space, objectives=aims.of_front)
    strategy = strategy_of(bench, space)
    maps = map_trainings(bench.settings, space.enumerate(), bench.teacher_architecture.layers)
    has_reward = isinstance(strategy, Controller) or REWARD in aims.names

    def judge(number: int, architecture: Architecture, trial: Trial) -> Judgement:
        judgement = judge_candidate(bench, f"trial-{number:04d}", architecture)
        return with_reward(settings, limits, trial, judgement) if has_reward else judgement

    try:
        with told(bench.run, bench.narrator, record, aims) as on_trial:
            trials = run_search(
                strategy=strategy,
                record=record,
                screen=lambda architecture: screen_candidate(bench, limits, architecture),
                judge=judge,
                candidates=settings.most_candidates,
                may_start=time_keeper(
                    bench.run,
                    settings.seconds,
                    record.trials(),
                    lambda candidate_s: final_seconds(bench, candidate_s, maps=maps),
                ),
                on_trial=on_trial,
                seed=bench.settings.seed,
                ask=settings.ask,
            )
    finally:
        verdict = (
            write_controller(bench, limits, strategy, record.trials())
            if isinstance(strategy, Controller)
            else ""
        )
    if verdict:
        bench.narrator.say(verdict)
    return trials


def strategy_of(bench: Workbench, space: SearchSpace) -> Strategy:
    """Builds the strategy that was handed over, or that the settings name."""
    if bench.own.strategy is not None:
        return bench.own.strategy(space, bench.settings.seed)
    name = bench.settings.search.strategy
    if name == "controller":
        return make_controller(bench, space)
    return OptunaStrategy(
        space, make_sampler(name), bench.settings.seed, objectives=aims_of(bench).of_strategy
    )


def aims_of(bench: Workbench) -> Aims:
    """Tells what the settings want better."""
    teacher = bench.counts(bench.teacher_architecture)
    return Aims(
        names=bench.settings.search.objectives,
        teacher_size_mb=size_mb(teacher.total, bench.workload.precision),
    )


def final_seconds(bench: Workbench, candidate_s: float, *, maps: int) -> float:
    """Estimates the time of everything after the search from that of one candidate.

    Args:
        bench: Gives both amounts of training.
        candidate_s: Mean time of a candidate; it includes scoring, so the estimate is generous.
        maps: Trainings that judge layer maps, each as long as a candidate.
    """
    settings, final = bench.settings, bench.settings.final
    candidate_examples = len(bench.proxy) * bench.proxy_epochs
    final_examples = len(bench.data.transfer) * final.epochs
    trained = final.students + final.controls + len(settings.compare)
    seen = trained * final_examples
    seen += final.students * quantising_passes(settings.quantise) * len(bench.data.transfer)
    again = final.noise_candidates if final.controls else 0
    return candidate_s * (seen / candidate_examples + again + maps)
