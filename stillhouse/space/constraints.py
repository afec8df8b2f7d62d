"""Rules that an architecture can be checked against without running it."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from stillhouse.space.architecture import Architecture
from stillhouse.space.counts import Ends, count_encoder_parameters, count_parameters


class Constraint(Protocol):
    """A rule on architectures; a space holds only those that every one of its rules allows."""

    @property
    def name(self) -> str:
        """Short name of the rule, unique within a space."""

    @property
    def description(self) -> str:
        """The rule with its numbers, as a reader of a report should see it."""

    def allows(self, architecture: Architecture) -> bool:
        """Tell whether the architecture keeps the rule; the same answer every time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderBelow:
    """Fewer encoder parameters (embeddings and head not counted) than `parameters`."""

    parameters: int
    name: ClassVar[str] = "encoder_parameters"

    @property
    def description(self) -> str:
        """The rule with its numbers."""
        return f"fewer than {self.parameters:,} encoder parameters"

    def allows(self, architecture: Architecture) -> bool:
        """Count in closed form and compare."""
        return count_encoder_parameters(architecture) < self.parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalBelow:
    """Fewer parameters in all than `parameters`, for a classifier with these ends."""

    parameters: int
    ends: Ends
    name: ClassVar[str] = "parameters"

    @property
    def description(self) -> str:
        """The rule with its numbers."""
        return f"fewer than {self.parameters:,} parameters"

    def allows(self, architecture: Architecture) -> bool:
        """Count in closed form and compare."""
        return count_parameters(architecture, self.ends).total < self.parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsAtMost:
    """No more attention heads per layer than `heads`."""

    heads: int
    name: ClassVar[str] = "heads"

    @property
    def description(self) -> str:
        """The rule with its numbers."""
        return f"at most {self.heads} heads"

    def allows(self, architecture: Architecture) -> bool:
        """Compare the number of heads."""
        return architecture.heads <= self.heads
