"""Trials that failed, were over a limit or were stopped, by their reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stillhouse.report.trials import TrialRow

NO_REASON = "no reason recorded"
EXAMPLES_SHOWN = 5  # architectures named beside one reason; the table of trials names them all


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Trials that ended for one reason, told by the first of them."""

    state: str
    reason: str
    trials: tuple[TrialRow, ...]

    @property
    def told(self) -> str:
        """The reason, as an example where the trials' own differ in their figures."""
        same = all((trial.reason or NO_REASON) == self.reason for trial in self.trials)
        return self.reason if same else f"for example: {self.reason}"

    @property
    def examples(self) -> str:
        """The first few architectures, and how many more there are."""
        names = [trial.architecture for trial in self.trials[:EXAMPLES_SHOWN]]
        more = len(self.trials) - len(names)
        return "; ".join(names) + (f"; and {more} more" if more else "")


def states(trials: Sequence[TrialRow]) -> dict[str, int]:
    """Number of trials by state; a repeat counts as a repeat whatever its state."""
    return dict(
        Counter("repeat" if trial.repeat_of is not None else trial.state for trial in trials)
    )


def failures(trials: Sequence[TrialRow]) -> Iterator[Failure]:
    """Failed, infeasible and stopped trials by reason, failures first, the commonest first.

    Reasons that differ only in their numbers (how far over a limit, at which step) are one.
    """
    grouped: dict[tuple[str, str], list[TrialRow]] = {}
    for trial in trials:
        if trial.state in ("failed", "infeasible", "stopped") and trial.repeat_of is None:
            pattern = re.sub(r"\d+(\.\d+)?", "0", trial.reason)
            grouped.setdefault((trial.state, pattern), []).append(trial)
    for (state, _), rows in sorted(grouped.items(), key=lambda g: (g[0][0], -len(g[1]))):
        yield Failure(state=state, reason=rows[0].reason or NO_REASON, trials=tuple(rows))
