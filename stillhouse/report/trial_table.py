"""The table of all trials as text, of which the page makes the most of the rows when it is opened.

Five thousand rows in HTML take a browser longer than everything else on the page together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stillhouse.report import wording
from stillhouse.report.gather import Contents
from stillhouse.report.objectives import value
from stillhouse.report.trials import TrialRow

ROWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column: its head, how its cells are called where rows are cards, and their class."""

    head: str
    label: str
    style: str = "number"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialTable:
    """Columns, the rows that the page holds from the start, and those that it makes later."""

    columns: tuple[Column, ...]
    first: Sequence[Sequence[str]]
    later: Sequence[Sequence[str]]


def trial_table(contents: Contents) -> TrialTable:
    """The trials of a run in their order, a row each."""
    has_rewards = any(trial.reward is not None for trial in contents.trials)
    rows = [_cells(trial, contents, has_rewards=has_rewards) for trial in contents.trials]
    return TrialTable(
        columns=tuple(_columns(contents, has_rewards=has_rewards)),
        first=rows[:ROWS_AT_ONCE],
        later=rows[ROWS_AT_ONCE:],
    )


def _columns(contents: Contents, *, has_rewards: bool) -> Iterator[Column]:
    quality = contents.trial_quality
    yield Column(head="Trial", label="Trial")
    yield Column(head="State", label="State", style="")
    yield Column(head="Architecture", label="Architecture", style="text")
    yield Column(head=f"{quality}, search-validation", label=quality)
    further = [wording.objective_head(name) for name in contents.further]
    for name in (*(["Reward"] if has_rewards else []), "Latency", *further, "Parameters", "Cost"):
        yield Column(head=name, label=name)
    yield Column(head="Remark", label="Remark", style="text")


def _cells(trial: TrialRow, contents: Contents, *, has_rewards: bool) -> list[str]:
    repeats = trial.repeat_of is not None
    return [
        str(trial.number),
        trial.state,
        trial.architecture,
        wording.quality(trial.quality),
        *([wording.quality(trial.reward)] if has_rewards else []),
        wording.milliseconds(trial.latency_ms),
        *(wording.objective_value(name, value(trial, name)) for name in contents.further),
        wording.count(trial.parameters),
        wording.duration(trial.cost_s),
        f"repeats trial {trial.repeat_of}" if repeats else trial.reason,
    ]
