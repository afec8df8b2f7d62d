"""Strategies on a recorded table: what they would have found, in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stillhouse.search.recorded import RecordedRow, RecordedTable
from stillhouse.search.strategy import Strategy
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture

_REPEATS_BEFORE_DRAW = 20  # as in a search


def replay(strategy: Strategy, table: RecordedTable, *, candidates: int, seed: int) -> list[Trial]:
    """Play a search against a table instead of training.

    Each candidate gets the figures of one of its recorded seeds. Which one is a matter of `seed`
    and the architecture alone, so strategies that are replayed with the same seed meet the same
    noise. Repeats are recorded and not counted, as in a search.

    Args:
        strategy: Fresh; searches over `table.space()`.
        table: What is found out about which architecture.
        candidates: How many to try, at most; no more than the table has.
        seed: Of the noise, at least 0.

    Returns:
        All trials by number, repeats included.

    Raises:
        ValueError: The strategy proposes what is not in the table.
    """
    drawn = _draw_rows(table, seed)
    trials: list[Trial] = []
    first: dict[Architecture, Trial] = {}
    repeats = 0
    while len(first) < min(candidates, len(drawn)):
        if repeats < _REPEATS_BEFORE_DRAW:
            [architecture] = strategy.ask(1)
        else:
            architecture = _draw_untried(drawn, first, [seed, len(trials)])
        repeats = repeats + 1 if architecture in first else 0
        trials.append(_outcome(len(trials), architecture, drawn, first))
        first.setdefault(architecture, trials[-1])
        strategy.tell(trials[-1:])
    return trials


def _outcome(
    number: int,
    architecture: Architecture,
    drawn: Mapping[Architecture, RecordedRow],
    first: Mapping[Architecture, Trial],
) -> Trial:
    if architecture in first:
        return replace(first[architecture], number=number, repeat_of=first[architecture].number)
    if architecture not in drawn:
        raise ValueError(
            f"{architecture.label} is not recorded; replay a strategy over the table's own space"
        )
    row = drawn[architecture]
    return Trial(
        number=number,
        architecture=architecture,
        state=TrialState.COMPLETE,
        quality=row.quality,
        latency_ms=row.latency_ms,
    )


def _draw_rows(table: RecordedTable, seed: int) -> dict[Architecture, RecordedRow]:
    generator = np.random.default_rng(seed)
    drawn = {}
    for architecture in sorted(table.rows, key=lambda item: item.key):  # not as it was recorded
        rows = sorted(table.rows[architecture], key=lambda row: row.seed)
        drawn[architecture] = rows[generator.integers(len(rows))]
    return drawn


def _draw_untried(
    drawn: Mapping[Architecture, RecordedRow],
    tried: Mapping[Architecture, Trial],
    seed: Sequence[int],
) -> Architecture:
    untried = [architecture for architecture in drawn if architecture not in tried]
    return untried[np.random.default_rng(seed).integers(len(untried))]
