"""Settings of progressive transfer, and of its short form that judges candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from stillhouse.run.rules import STRICT

MixName: TypeAlias = Literal["mobilebert", "even"]
LEAST_REDUCTION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSettings:
    """Students that learn the layers of their teacher one after the other.

    Attributes:
        steps: Optimiser steps of a finished student's transfer, shared out among its layers;
            `pretrain.steps` follow.
        flash_fraction: Length of a candidate's transfer, as a share of `steps` and
            `pretrain.steps` together.
        rungs: Lengths at which a candidate is judged, each anew, the last of them the whole of
            `flash_fraction`; 1 judges it at that alone.
        reduction: Each length is the one before it times this, and one candidate in so many of
            about its latency goes on to it.
        batch_size: Sequences a step.
        learning_rate: Background rate; a layer has three times it in its own phase.
        weight_decay: On weight matrices, 0..1.
        mix: Weights of the losses: those of MobileBERT, or `even` ones of states and attention.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    steps: int = 10_000
    flash_fraction: float = 0.05
    rungs: int = 1
    reduction: int = 3
    batch_size: int = 64
    learning_rate: float = 5e-4
    weight_decay: float = 0.01
    mix: MixName = "mobilebert"

    def __post_init__(self) -> None:
        """Refuses what cannot train."""
        for name in ("steps", "rungs", "batch_size", "learning_rate"):
            value = getattr(self, name)
            if not value > 0:
                raise ValueError(f"transfer.{name} must be above 0, got {value!r}")
        if not 0 < self.flash_fraction <= 1:
            raise ValueError(
                "transfer.flash_fraction must be above 0 and at most 1, "
                f"got {self.flash_fraction!r}"
            )
        if self.reduction < LEAST_REDUCTION:
            raise ValueError(
                f"transfer.reduction must be at least {LEAST_REDUCTION}, got {self.reduction!r}"
            )
        if not 0 <= self.weight_decay <= 1:
            raise ValueError(f"transfer.weight_decay must be in 0..1, got {self.weight_decay!r}")
