"""Plans: what a run will do, and what time and disk it will take, from a few timed steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from stillhouse.device.table import TableDevice
from stillhouse.distill.loop import steps_in, train
from stillhouse.distill.terms import LabelTerm
from stillhouse.model.predict import predict
from stillhouse.recipe.layer_map_search import map_space
from stillhouse.recipe.limits import size_mb
from stillhouse.recipe.objective import distillation_terms
from stillhouse.recipe.quantising import quantising_passes
from stillhouse.recipe.teacher import finetuning_passes
from stillhouse.space.counts import count_encoder_parameters

if TYPE_CHECKING:
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.recipe.task_search import SearchPlan
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.space.architecture import Architecture

TIMED_STEPS = 8
TIMED_EXAMPLES = 256
STATE_BYTES = 2
"""A cached hidden state is float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPhase:
    """One phase of a run.

    Attributes:
        name: Such as `search`.
        what: What is done, for people.
        steps: Optimiser steps in all.
        seconds: Estimated time.
    """

    name: str
    what: str
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will do.

    Attributes:
        phases: In their order.
        disk_mb: Estimated by purpose, in 10⁶ bytes; those under `while it runs` are freed after.
        notes: What the estimate stands on.
    """

    phases: tuple[PlannedPhase, ...]
    disk_mb: dict[str, float]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Estimated time of everything."""
        return sum(phase.seconds for phase in self.phases)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timing:
    """Seconds that one architecture took: a step, an example scored, a latency measured."""

    step_s: float
    score_s: float
    compare_s: float


def make_plan(bench: Workbench, search: SearchPlan) -> Plan:
    """Times a few steps of the teacher and of three candidates, and adds up the rest.

    Args:
        bench: A workbench that is loaded; it need not be prepared.
        search: Space and limits.
    """
    costs = _Costs(
        bench=bench,
        timings=tuple(_time_candidate(bench, shape) for shape in _small_middle_large(search)),
    )
    notes = [
        f"Timed: {TIMED_STEPS} steps each of the space's smallest, middle and largest "
        "architecture. Other work on this machine makes it slower."
    ]
    if bench.settings.search.most_candidates is None:
        notes.append(
            "No number of candidates is given: the search fills the time that the rest leaves."
        )
    if bench.settings.distill.layer_map == "search":
        notes.append(_note_of_maps(bench, search))
    phases = (
        *_teacher_phases(bench),
        _signals_phase(bench),
        *_search_phases(bench, costs),
        *_final_phases(bench, costs),
        *_quantising_phases(bench, costs),
    )
    return Plan(phases=phases, disk_mb=_disk_mb(bench, search), notes=tuple(notes))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Costs:
    """What one candidate and one final student cost, a mean over the timed architectures."""

    bench: Workbench
    timings: tuple[_Timing, ...]

    @property
    def proxy_steps(self) -> int:
        settings = self.bench.train_settings(self.bench.proxy_epochs)
        return steps_in(len(self.bench.proxy), settings)

    @property
    def final_steps(self) -> int:
        settings = self.bench.train_settings(self.bench.settings.final.epochs)
        return steps_in(len(self.bench.data.transfer), settings)

    @property
    def compare_s(self) -> float:
        return statistics.mean(timing.compare_s for timing in self.timings)

    def trained_s(self, steps: int) -> float:
        """Seconds to train so many steps and to score on search-validation."""
        scored = len(self.bench.data.validation)
        return statistics.mean(t.step_s * steps + t.score_s * scored for t in self.timings)


def _signals_phase(bench: Workbench) -> PlannedPhase:
    example_s = _score_seconds(lambda part: _predict_teacher(bench, part), bench.data.train)
    proxy, transfer = len(bench.proxy), len(bench.data.transfer)
    return PlannedPhase(
        name="teacher signals",
        what=f"{proxy:,} proxy and {transfer:,} training examples",
        steps=0,
        seconds=example_s * (proxy + transfer),
    )


def _search_phases(bench: Workbench, costs: _Costs) -> list[PlannedPhase]:
    candidate_s = costs.trained_s(costs.proxy_steps) + costs.compare_s
    count = bench.settings.search.most_candidates
    if count is None:
        budget_s = bench.settings.search.seconds or 0.0
        later_s = sum(phase.seconds for phase in _final_phases(bench, costs))
        count = max(1, int((budget_s - later_s) / candidate_s))
    return [
        PlannedPhase(
            name="search",
            what=f"{_counted(count, 'candidate')} × {costs.proxy_steps:,} steps",
            steps=count * costs.proxy_steps,
            seconds=count * candidate_s,
        )
    ]


def _final_phases(bench: Workbench, costs: _Costs) -> list[PlannedPhase]:
    final, compared = bench.settings.final, len(bench.settings.compare)
    again = final.noise_candidates if final.controls else 0
    final_s = costs.trained_s(costs.final_steps) + 2 * costs.compare_s  # timed at two lengths
    proxy_s = costs.trained_s(costs.proxy_steps)
    planned = (
        ("final", "student", final.students, costs.final_steps, final_s),
        ("competitors", "competitor", compared, costs.final_steps, final_s),
        ("controls", "control", final.controls, costs.final_steps, final_s),
        ("noise ceiling", "second judgement", again, costs.proxy_steps, proxy_s),
    )
    return [
        PlannedPhase(
            name=name,
            what=f"{_counted(count, what)} × {steps:,} steps",
            steps=count * steps,
            seconds=count * each_s,
        )
        for name, what, count, steps, each_s in planned
        if count
    ]


def _quantising_phases(bench: Workbench, costs: _Costs) -> list[PlannedPhase]:
    wanted, students = bench.settings.quantise, bench.settings.final.students
    if wanted.weight_bits is None:
        return []
    steps = -(-len(bench.data.transfer) // wanted.batch_size) * wanted.epochs
    # Steps are timed at the batch size of the distillation.
    passes = quantising_passes(wanted) / bench.settings.final.epochs
    return [
        PlannedPhase(
            name="quantised",
            what=f"{_counted(students, 'student')} × {steps:,.0f} steps in few bits",
            steps=round(students * steps),
            seconds=students * costs.trained_s(round(passes * costs.final_steps)),
        )
    ]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _predict_teacher(bench: Workbench, part: EncodedSet) -> None:
    """Runs the teacher over examples, as filling its cache does."""
    predict(bench.teacher.to(bench.accelerator.device), part, precision=bench.precision)


def _small_middle_large(search: SearchPlan) -> list[Architecture]:
    ordered = sorted(search.space.enumerate(), key=count_encoder_parameters)
    return [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _time_candidate(bench: Workbench, architecture: Architecture) -> _Timing:
    student = bench.build(architecture).to(bench.accelerator.device)
    distill = bench.settings.distill
    bench.initialise(student)
    terms = distillation_terms(
        distill,
        student.config,
        bench.teacher.config,
        kind=bench.task.kind,
        seed=bench.settings.seed,
    )
    terms += bench.own.terms_of(student.config, bench.teacher.config)
    part = _part(bench.data.train, TIMED_STEPS * distill.batch_size)
    teacher = bench.signals(part, terms, "Teacher over a few examples")

    def go() -> float:
        settings = bench.train_settings(1.0)
        report = train(
            student, part, terms, settings, accelerator=bench.accelerator, teacher=teacher
        )
        return report.wall_s / report.steps

    go()  # the first pass builds kernels
    start_s = time.monotonic()
    bench.compare(architecture)
    compare_s = time.monotonic() - start_s
    return _Timing(
        step_s=go(),
        score_s=_score_seconds(lambda few: bench.quality(student, few), bench.data.train),
        compare_s=0.0 if isinstance(bench.device, TableDevice) else compare_s,
    )


def _teacher_phases(bench: Workbench) -> list[PlannedPhase]:
    passes = finetuning_passes(bench)
    if not passes:
        return []
    part = _part(bench.data.train, TIMED_STEPS * bench.settings.teacher.batch_size)
    kept = {name: tensor.clone() for name, tensor in bench.teacher.state_dict().items()}
    terms = [LabelTerm(kind=bench.task.kind)]
    settings = replace(bench.train_settings(1.0), batch_size=bench.settings.teacher.batch_size)
    for _ in range(2):
        report = train(bench.teacher, part, terms, settings, accelerator=bench.accelerator)
    bench.teacher.load_state_dict(kept)
    examples = passes * len(bench.data.train)
    steps = round(examples / bench.settings.teacher.batch_size)
    return [
        PlannedPhase(
            name="teacher",
            what=f"fine-tuning, {passes:g} epochs with the trial of its learning rates",
            steps=steps,
            seconds=steps * report.wall_s / report.steps,
        )
    ]


def _score_seconds(score: Callable[[EncodedSet], object], encoded: EncodedSet) -> float:
    """Seconds an example."""
    part = _part(encoded, TIMED_EXAMPLES)
    score(part)
    start_s = time.monotonic()
    score(part)
    return (time.monotonic() - start_s) / len(part)


def _part(encoded: EncodedSet, count: int) -> EncodedSet:
    """Evenly spread examples, so that their lengths are those of the set."""
    count = min(count, len(encoded))
    return encoded.select([index * len(encoded) // count for index in range(count)])


def _note_of_maps(bench: Workbench, search: SearchPlan) -> str:
    """Tells how many layer maps are judged at most for a depth, which may not have as many."""
    settings, teacher_layers = bench.settings, bench.teacher_architecture.layers
    one_a_depth = {shape.layers: shape for shape in search.space.enumerate()}.values()
    sizes = [map_space(settings, shape, teacher_layers).size() for shape in one_a_depth]
    most, seeds = min(settings.layer_map.most_evaluations, max(sizes)), settings.layer_map.seeds
    return (
        f"The search for layer maps is not counted: up to {_counted(most, 'map')} for each depth "
        f"among the students, each as long as {_counted(seeds, 'candidate')}."
    )


def _disk_mb(bench: Workbench, search: SearchPlan) -> dict[str, float]:
    settings, teacher = bench.settings, bench.teacher_architecture
    shapes = _small_middle_large(search)
    sizes_mb = [size_mb(bench.counts(shape).total) for shape in shapes]
    kept = settings.final.students + settings.final.controls + len(settings.compare)
    deepest = max(shape.layers for shape in shapes)
    # Each student layer reads one or two teacher layers; each is cached once.
    layers = min(teacher.layers, 2 * deepest) if settings.distill.hidden_weight else 0
    tokens = int(bench.data.transfer.lengths.sum()) + int(bench.proxy.lengths.sum())
    cache_mb = tokens * layers * teacher.hidden_size * STATE_BYTES / 1e6
    return {
        "teacher": size_mb(sum(p.numel() for p in bench.teacher.parameters())),
        _counted(kept, "student"): kept * statistics.mean(sizes_mb),
        "while it runs: teacher cache": min(cache_mb, settings.distill.cache_gb * 1e3),
        # Weights and the two moments of AdamW.
        "while it runs: checkpoint": 3 * max(sizes_mb),
    }
