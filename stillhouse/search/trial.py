"""What is known of one candidate, before and after it is judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from stillhouse.errors import StillhouseError
from stillhouse.space.architecture import Architecture

JsonValue: TypeAlias = (
    "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)


class CandidateFailed(StillhouseError):  # noqa: N818 - says what happened, like TrialState
    """One candidate cannot be judged; the search goes on without it.

    Args:
        reason: Why, for people.
    """

    def __init__(self, reason: str) -> None:
        """Keep the reason by name, for the record."""
        super().__init__(reason)
        self.reason = reason


class CandidateStopped(StillhouseError):  # noqa: N818 - says what happened, like TrialState
    """A short judgement of a candidate is too poor for a longer one; the search goes on.

    Args:
        reason: Why, for people.
        attributes: Whatever is worth recording of it, `rung_qualities` at least.
    """

    def __init__(self, reason: str, attributes: Mapping[str, JsonValue]) -> None:
        """Keep both by name, for the record."""
        super().__init__(reason)
        self.reason = reason
        self.attributes = attributes


class TrialState(StrEnum):
    """How far a candidate has come."""

    RUNNING = "running"
    """Started; nothing final is known."""
    COMPLETE = "complete"
    """Judged: quality and latency are known."""
    INFEASIBLE = "infeasible"
    """Over a hard limit, therefore never trained; its quality is unknown."""
    FAILED = "failed"
    """Could not be judged."""
    STOPPED = "stopped"
    """Trained with a part of the budget and no further; its quality with all of it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate and what became of it.

    Args:
        number: Position in the search, from 0, without gaps.
        architecture: What was tried.
        state: How far it came.
        quality: Score on the search-validation set, higher is better.
        latency_ms: Latency on the device of the search.
        reason: Why it is infeasible, failed or stopped, for people.
        repeat_of: Number of the earlier trial of the same architecture that lent its outcome.
        cost_s: Wall-clock time spent on it until now, by killed processes too; each of those
            may have lost what it spent since it last noted that.
        violations: By limit, the amount over it relative to the limit: 0.25 is 25 % over, 0 and
            below is kept.
        attributes: Whatever else is worth recording.

    Raises:
        ValueError: A complete trial lacks a finite quality or latency, or a stopped one its
            latency or the qualities of its rungs.
    """

    number: int
    architecture: Architecture
    state: TrialState
    quality: float | None = None
    latency_ms: float | None = None
    reason: str = ""
    repeat_of: int | None = None
    cost_s: float = 0.0
    violations: Mapping[str, float] = field(default_factory=dict)
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a complete trial that no strategy could learn from."""
        outcome = (self.quality, self.latency_ms)
        if self.state is TrialState.COMPLETE and not all(
            value is not None and math.isfinite(value) for value in outcome
        ):
            raise ValueError(f"a complete trial needs finite quality and latency, got {outcome}")
        known = (self.rung_qualities, self.latency_ms)
        if self.state is TrialState.STOPPED and (() in known or None in known):
            raise ValueError(f"a stopped trial needs rung_qualities and latency, got {known}")

    @property
    def is_finished(self) -> bool:
        """Whether the outcome is final."""
        return self.state is not TrialState.RUNNING

    @property
    def is_over_limit(self) -> bool:
        """Whether at least one limit is violated."""
        return any(amount > 0 for amount in self.violations.values())

    @property
    def rung_qualities(self) -> tuple[float, ...]:
        """Its scores after each rung of successive halving, from the attribute of that name.

        Empty where a search judges candidates at once.
        """
        scores = self.attributes.get("rung_qualities", ())
        assert isinstance(scores, Sequence)
        return tuple(score for score in scores if isinstance(score, int | float))
