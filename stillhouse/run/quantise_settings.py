"""Settings of models that are trained in few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from stillhouse.model.lsq import FEWEST_BITS, MOST_BITS
from stillhouse.model.lsq_ranges import RangeRule
from stillhouse.run.rules import STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantiseSettings:
    """A model in few bits that learns from itself in full precision.

    Attributes:
        model: `quantise` only: folder or hub id of a checkpoint with a trained head for the task.
        weight_bits: Of projections and embeddings, 2 to 8; activations have 8. In a recipe on a
            task each finished student is quantised as well where this is given.
        ranges: First clips: those of `error` have the least squared error; those of `quantile`, the
            paper's, leave a twentieth of the values outside; those of `kl`, of its final scripts,
            keep the distribution of cumulative counts best.
        epochs: Passes over the training set.
        batch_size: Examples a step.
        learning_rate: Peak of that of the weights, linear down to 0.
        weight_clip_rate: That of the clips of weights; `None` means 1e-3, for questions
            `learning_rate`.
        activation_clip_rate: That of the clips of activations; `None` means 3e-2, for questions
            `learning_rate`.
        weight_decay: On weight matrices, 0..1; questions are learnt without any.
        label_weight: Of the loss of gold labels, beside those of the teacher's signals.
        evaluate_every: Epochs from one evaluation on search-validation to the next; the best one's
            weights are kept.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    model: str | None = None
    weight_bits: int | None = None
    ranges: RangeRule = "error"
    epochs: float = 3.0
    batch_size: int = 16
    learning_rate: float = 5e-5
    weight_clip_rate: float | None = None
    activation_clip_rate: float | None = None
    weight_decay: float = 0.01
    label_weight: float = 0.0
    evaluate_every: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what cannot be quantised or trained."""
        bits = self.weight_bits
        if bits is not None and not FEWEST_BITS <= bits <= MOST_BITS:
            raise ValueError(
                f"quantise.weight_bits must be {FEWEST_BITS} to {MOST_BITS}, got {bits!r}"
            )
        amounts = ("epochs", "batch_size", "learning_rate", "evaluate_every")
        for name in (*amounts, "weight_clip_rate", "activation_clip_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"quantise.{name} must be above 0, got {value!r}")
        if not self.label_weight >= 0:
            raise ValueError(
                f"quantise.label_weight must not be negative, got {self.label_weight!r}"
            )
        if not 0 <= self.weight_decay <= 1:
            raise ValueError(f"quantise.weight_decay must be in 0..1, got {self.weight_decay!r}")
