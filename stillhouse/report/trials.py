"""The trials of a run, as trials.csv tells them, and their front."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stillhouse.report.fields import architecture_label, integer, number, read_table, text
from stillhouse.report.objectives import TWO, Names, unbeaten

ARCHITECTURE_COLUMNS = (
    "family",
    "layers",
    "hidden_size",
    "heads",
    "head_size",  # only of free heads
    "ffn_size",
    "activation",
    "bottleneck_size",  # this and what follows only of MobileBERTs
    "ffn_count",
    "embedding_size",
    "attention",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One line of trials.csv; `quality` is on the search-validation set."""

    number: int
    state: str
    architecture: str
    quality: float | None
    reward: float | None
    latency_ms: float | None
    teacher_latency_ms: float | None
    speedup: float | None
    size_mb: float | None
    memory_mb: float | None
    flops_fraction: float | None
    parameters: float | None
    cost_s: float | None
    repeat_of: int | None
    reason: str


def read_trials(path: Path, notes: list[str]) -> Iterator[TrialRow]:
    """The lines of trials.csv; one without a number is noted and left out."""
    for line, row in enumerate(read_table(path, path.name, notes), start=2):
        trial_number = integer(row, "number")
        if trial_number is None:
            notes.append(f"{path.name} line {line} has no trial number; it is left out")
            continue
        yield TrialRow(
            number=trial_number,
            state=(row.get("state") or "").lower(),
            architecture=architecture_label(
                {key: row[key] for key in ARCHITECTURE_COLUMNS if row.get(key)}
            ),
            quality=number(row, "quality"),
            reward=number(row, "reward"),
            latency_ms=number(row, "latency_ms"),
            teacher_latency_ms=number(row, "teacher_latency_ms"),
            speedup=number(row, "speedup"),
            size_mb=number(row, "size_mb"),
            memory_mb=number(row, "memory_mb"),
            flops_fraction=number(row, "flops_fraction"),
            parameters=number(row, "parameters"),
            cost_s=number(row, "cost_s"),
            repeat_of=integer(row, "repeat_of"),
            reason=text(row, "reason"),
        )


def trained(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """Complete trials with both figures, without repeats."""
    return [
        trial
        for trial in trials
        if trial.state == "complete"
        and trial.repeat_of is None
        and trial.quality is not None
        and trial.latency_ms is not None
    ]


def best_trials(trials: Iterable[TrialRow], names: Names = TWO) -> list[TrialRow]:
    """Trials that no other beats in these objectives, fastest first."""
    front = unbeaten(trained(trials), names)
    return sorted(front, key=lambda trial: (trial.latency_ms or 0.0, trial.number))
