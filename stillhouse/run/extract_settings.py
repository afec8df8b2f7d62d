"""Settings of students that begin as chosen neurons of their teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from stillhouse.model.students import IndexRule
from stillhouse.run.rules import STRICT

ExtractLoss: TypeAlias = Literal["auto", "words", "states", "task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractSettings:
    """Which neurons of the teacher a student begins as, with `distill.initialisation: extract`.

    Attributes:
        indices: The most important ones, or some by chance.
        loss: What a neuron is important for: `words` that are masked, told by the teacher's own
            head; `states`, the teacher's last hidden states where words are masked, which every
            teacher has; or the labels of the `task`. `auto` is `words` where the teacher's
            checkpoint has a head for them, else `states`.
        examples: Examples that importance is measured on, at most.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    indices: IndexRule = "importance"
    loss: ExtractLoss = "auto"
    examples: int = 512

    def __post_init__(self) -> None:
        """Refuses to measure on nothing."""
        if self.examples < 1:
            raise ValueError(f"extract.examples must be at least 1, got {self.examples!r}")
