"""What every search by trials has around its loop: limits, time, and what it tells as it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch.utils.tensorboard.writer import SummaryWriter

from stillhouse.errors import DeviceError
from stillhouse.recipe.candidates import describe_trial
from stillhouse.recipe.kd_nas import reward_of
from stillhouse.search.pareto import hypervolume
from stillhouse.search.trial import TrialState

if TYPE_CHECKING:
    from stillhouse.device.latency import Device, Workload
    from stillhouse.run.directory import RunDirectory
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import LimitSettings
    from stillhouse.search.loop import Screening
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
        DeviceError: Naming each limit that it exceeds, and by how much.
    """
    given = limits.given()
    over = [
        f"{name}={given[name]:g} by {amount:.0%}"
        for name, amount in screening.violations.items()
        if amount > 0
    ]
    if over:
        raise DeviceError(
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
        final_s: Estimates the time of everything after the search from that of one candidate.
    """
    phases_s: dict[str, float] = run.state().get("phases_s", {})
    # A killed process does not add up its phase; the trials that it recorded know their times.
    searched_s = max(phases_s.pop("search", 0.0), sum(trial.cost_s for trial in recorded))
    before_s, start_s = sum(phases_s.values()) + searched_s, time.monotonic()

    def may_start(trials: Sequence[Trial]) -> bool:
        trained = [
            trial.cost_s
            for trial in trials
            if trial.state is TrialState.COMPLETE and trial.repeat_of is None
        ]
        if budget_s is None or not trained:
            return True
        spent_s = before_s + time.monotonic() - start_s
        candidate_s = sum(trained) / len(trained)
        return spent_s + candidate_s + final_s(candidate_s) <= budget_s

    return may_start


@contextmanager
def told(
    run: RunDirectory, narrator: Narrator, record: Record
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
            "search/hypervolume": hypervolume_so_far(record.trials()),
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
        run.update_state({"hypervolume": hypervolume_facts(record.trials())})


def hypervolume_so_far(trials: Sequence[Trial]) -> float | None:
    """Tells that of all trials; `None` before the teacher's latency is known."""
    slowest_ms = _reference_ms(trials)
    return None if slowest_ms is None else hypervolume(trials, slowest_ms=slowest_ms)


def hypervolume_facts(trials: Sequence[Trial]) -> dict[str, object]:
    """Tells it after every trial, with the point that it is told from."""
    slowest_ms = _reference_ms(trials)
    if slowest_ms is None:
        return {}
    return {
        "reference": {"latency_ms": slowest_ms, "quality": 0.0},
        "by_trial": [
            round(hypervolume(trials[: count + 1], slowest_ms=slowest_ms), FINEST)
            for count in range(len(trials))
        ],
    }


def _reference_ms(trials: Sequence[Trial]) -> float | None:
    """The teacher's latency as the first trial has it; measured, it differs a little each time."""
    for trial in trials:
        known = trial.attributes.get("teacher_latency_ms")
        if isinstance(known, int | float):
            return float(known)
    return None


def why_no_winner(trials: Sequence[Trial]) -> str:
    """Tells what became of the trials of a search that found nothing."""
    states = [trial.state.value for trial in trials]
    counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    failed = next((t.reason for t in reversed(trials) if t.state is TrialState.FAILED), "")
    hint = f"; the last failure: {failed}" if failed else "; widen the limit or the space"
    return f"no candidate could be trained ({counted or 'none proposed'}){hint}"
