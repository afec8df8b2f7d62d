"""What every search by trials has around its loop: limits, time, and what it tells as it goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.errors import LimitError
from stillhouse.recipe.candidates import describe_trial
from stillhouse.recipe.kd_nas import reward_of
from stillhouse.search.objectives import front_objectives, objectives_of
from stillhouse.search.pareto import hypervolume
from stillhouse.search.trial import TrialState

if TYPE_CHECKING:
    from stillhouse.device.latency import Device, Workload
    from stillhouse.run.device_settings import LimitSettings
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.search.loop import Screening
    from stillhouse.search.objectives import Objective
    from stillhouse.search.record import Record
    from stillhouse.search.trial import Trial
    from stillhouse.space.architecture import Architecture

FINEST = 4
"""Decimals of a recorded hypervolume."""


def refuse_hopeless(
    smallest: Architecture,
    screening: Screening,
    limits: LimitSettings,
    *,
    device: Device,
    workload: Workload,
) -> None:
    """Looks at the smallest architecture, so that an impossible limit stops in seconds.

    Raises:
        LimitError: Naming each limit that it exceeds, and by how much.
    """
    given = limits.given()
    over = [
        f"{name}={given[name]:g} by {amount:.0%}"
        for name, amount in screening.violations.items()
        if amount > 0
    ]
    if over:
        raise LimitError(
            f"no student can meet the limit: even the smallest of the space ({smallest.label}; "
            f"{screening.latency_ms:.3f} ms at {workload.label} on {device.name}) is over "
            f"{', '.join(over)}. Raise the limit, shorten device.length, or add smaller "
            "architectures to the space."
        )


def time_keeper(
    run: RunDirectory,
    budget_s: float | None,
    recorded: Sequence[Trial],
    final_s: Callable[[float], float],
) -> Callable[[Sequence[Trial]], bool]:
    """Says whether one more candidate fits before the final training must begin.

    Args:
        run: Knows what earlier starts took.
        budget_s: Time of the whole run, or `None` for no end.
        recorded: Trials of earlier starts.
        final_s: Estimates the time of everything after the search from that of one candidate that
            was judged in full.
    """
    phases_s: dict[str, float] = run.state().get("phases_s", {})
    # A killed process does not add up its phase; the trials that it recorded know their times.
    searched_s = max(phases_s.pop("search", 0.0), sum(trial.cost_s for trial in recorded))
    before_s, start_s = sum(phases_s.values()) + searched_s, time.monotonic()

    def may_start(trials: Sequence[Trial]) -> bool:
        first = [trial for trial in trials if trial.repeat_of is None]
        judged = [trial.cost_s for trial in first if trial.state is TrialState.COMPLETE]
        stopped = [trial.cost_s for trial in first if trial.state is TrialState.STOPPED]
        if budget_s is None or not judged:
            return True
        spent_s = before_s + time.monotonic() - start_s
        candidate_s = statistics.mean([*judged, *stopped])
        return spent_s + candidate_s + final_s(statistics.mean(judged)) <= budget_s

    return may_start


@dataclass(frozen=True, kw_only=True)
class Aims:
    """What a search makes better.

    Attributes:
        names: Objectives, as the settings have them.
        teacher_size_mb: Of the teacher; students count from there.
    """

    names: Sequence[str]
    teacher_size_mb: float

    @property
    def of_strategy(self) -> tuple[Objective, ...]:
        """What a strategy is told."""
        return objectives_of(self.names)

    @property
    def of_front(self) -> tuple[Objective, ...]:
        """What trials are recorded with and compared by."""
        return front_objectives(self.names)

    def reference(self, trials: Sequence[Trial]) -> dict[str, float] | None:
        """Tells quality 0 at the teacher's costs; `None` before its latency is known.

        The latency is that of the first trial: measured, it differs a little each time.
        """
        known = (trial.attributes.get("teacher_latency_ms") for trial in trials)
        latency_ms = next((float(ms) for ms in known if isinstance(ms, int | float)), None)
        if latency_ms is None:
            return None
        worst = {
            "quality": 0.0,
            "latency_ms": latency_ms,
            "size_mb": self.teacher_size_mb,
            "flops_fraction": 1.0,
        }
        return {one.name: worst[one.name] for one in self.of_front}


@contextmanager
def told(
    run: RunDirectory, narrator: Narrator, record: Record, aims: Aims
) -> Iterator[Callable[[Trial], None]]:
    """Gives what each finished trial is told to: curves, the table of trials, the narrator.

    Curves have the hypervolume, too; at the end that of every trial is in the run's state.
    """
    log = SummaryWriter(str(run.tensorboard / "search"))

    def on_trial(trial: Trial) -> None:
        values = {
            "trial/quality": trial.quality,
            "trial/latency_ms": trial.latency_ms,
            "trial/reward": reward_of(trial),
            "search/hypervolume": hypervolume_so_far(record.trials(), aims),
        }
        for name, value in values.items():
            if value is not None:
                log.add_scalar(name, value, trial.number)
        record.export_csv(run.trials_file)
        narrator.note(describe_trial(trial))

    try:
        yield on_trial
    finally:
        log.close()
        record.export_csv(run.trials_file)
        run.update_state({"hypervolume": hypervolume_facts(record.trials(), aims)})


def hypervolume_so_far(trials: Sequence[Trial], aims: Aims) -> float | None:
    """Tells that of all trials; `None` before the teacher's latency is known."""
    reference = aims.reference(trials)
    if reference is None:
        return None
    return hypervolume(trials, reference=reference, objectives=aims.of_front)


def hypervolume_facts(trials: Sequence[Trial], aims: Aims) -> dict[str, object]:
    """Tells it after every trial, with the point that it is told from."""
    reference = aims.reference(trials)
    if reference is None:
        return {}
    volumes = [
        hypervolume(trials[: count + 1], reference=reference, objectives=aims.of_front)
        for count in range(len(trials))
    ]
    return {
        "reference": dict(reference),
        "by_trial": [round(volume, FINEST) for volume in volumes],
    }


def why_no_winner(trials: Sequence[Trial]) -> str:
    """Tells what became of the trials of a search that found nothing."""
    states = [trial.state.value for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    failed = next((t.reason for t in reversed(trials) if t.state is TrialState.FAILED), "")
    hint = f"; the last failure: {failed}" if failed else "; widen the limit or the space"
    return f"no candidate could be trained ({counted or 'none proposed'}){hint}"
