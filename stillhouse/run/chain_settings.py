"""Settings of NAS-BERT: blocks, masked language modelling, selection and pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from stillhouse.run.rules import STRICT, check


def _check_optimiser(section: str, settings: BlocksSettings | PretrainSettings) -> None:
    for name in ("batch_size", "learning_rate"):
        value = getattr(settings, name)
        check(holds=value > 0, rule=f"{section}.{name} must be above 0", value=value)
    for name in ("warmup_fraction", "weight_decay"):
        value = getattr(settings, name)
        check(holds=0 <= value <= 1, rule=f"{section}.{name} must be in 0..1", value=value)
    rule = f"{section}.dropout must be at least 0 and below 1"
    check(holds=0 <= settings.dropout < 1, rule=rule, value=settings.dropout)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksSettings:
    """The block-wise supernet: its space, its training, and how it shrinks.

    Attributes:
        count: Blocks, 1 to 4, a divisor of the teacher's layers; `None` means blocks of three
            layers where there are at most four of them, else the most that divide the layers.
        operations: Most operations of a block.
        hidden_sizes: Widths of the students, multiples of the teacher's head size; empty means the
            published shares of the teacher's (1/6, 1/4, 1/3, 1/2, 2/3).
        steps_per_epoch: Optimiser steps from one shrinking to the next.
        warm_epochs: Epochs before the first shrinking.
        bins: Ranges of size and latency, each of which keeps candidates of its own.
        bins_by: Whether a candidate whose latency lies in another range than its size is dropped at
            once, as published, or latency plays no part until students are selected.
        sampled: Candidates of a bin that are compared after an epoch; the worse half is dropped.
        kept: Candidates of a bin at which shrinking ends.
        dev_batches: Held-out batches that candidates are compared on.
        batch_size: Sequences a step.
        learning_rate: Peak of the schedule, linear down to 0 over all epochs.
        warmup_fraction: Share of all steps spent warming up, 0..1.
        weight_decay: On weight matrices, 0..1.
        dropout: While training, 0..1.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    count: int | None = None
    operations: int = 6
    hidden_sizes: tuple[int, ...] = ()
    steps_per_epoch: int = 1_000
    warm_epochs: int = 3
    bins: int = 10
    bins_by: Literal["size_and_latency", "size"] = "size_and_latency"
    sampled: int = 2_000
    kept: int = 10
    dev_batches: int = 5
    batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_fraction: float = 0.08
    weight_decay: float = 0.01
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be built, trained or shrunk."""
        for name in ("operations", "steps_per_epoch", "bins", "kept", "dev_batches"):
            value = getattr(self, name)
            check(holds=value > 0, rule=f"blocks.{name} must be above 0", value=value)
        check(
            holds=self.sampled > 1,
            rule="blocks.sampled must be above 1: the worse half of them is dropped",
            value=self.sampled,
        )
        check(
            holds=self.warm_epochs >= 0,
            rule="blocks.warm_epochs must not be negative",
            value=self.warm_epochs,
        )
        most = 4
        check(
            holds=self.count is None or 0 < self.count <= most,
            rule="blocks.count must be 1 to 4: selection goes through all combinations",
            value=self.count,
        )
        _check_optimiser("blocks", self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MlmSettings:
    """Masked language modelling: what is hidden, and a head for a teacher that has none.

    Attributes:
        probability: Share of the tokens that are hidden.
        whole_word: Whether all pieces of a word are hidden together.
        head_steps: Optimiser steps of a head that has to be trained.
        head_learning_rate: Peak of their schedule.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    probability: float = 0.15
    whole_word: bool = False
    head_steps: int = 2_000
    head_learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        """Refuses what hides nothing or everything, and a head that would not learn."""
        check(
            holds=0 < self.probability < 1,
            rule="mlm.probability must be above 0 and below 1",
            value=self.probability,
        )
        for name in ("head_steps", "head_learning_rate"):
            value = getattr(self, name)
            check(holds=value > 0, rule=f"mlm.{name} must be above 0", value=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectSettings:
    """Choosing complete students from the table of blocks.

    Attributes:
        candidates: Rows of the lowest summed loss whose complete models are compared.
        runners_up: How many of the next best are named.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    candidates: int = 100
    runners_up: int = 5

    def __post_init__(self) -> None:
        """Refuses to compare none."""
        rule = "select.candidates must be above 0"
        check(holds=self.candidates > 0, rule=rule, value=self.candidates)
        rule = "select.runners_up must not be negative"
        check(holds=self.runners_up >= 0, rule=rule, value=self.runners_up)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """Pre-training a selected student on plain text, under the teacher's eyes.

    Attributes:
        steps: Optimiser steps.
        batch_size: Sequences a step, over all workers.
        learning_rate: Peak of the schedule, linear down to 0.
        warmup_fraction: Share of the steps spent warming up, 0..1.
        weight_decay: On weight matrices, 0..1.
        dropout: While training, 0..1.
        teacher_weight: Share of the teacher's part in the loss (the paper's lambda), 0..1; the
            rest is that of the hidden tokens themselves.
        start: First weights: fresh ones, as published, or those of the blocks' supernets.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    steps: int = 10_000
    batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_fraction: float = 0.08
    weight_decay: float = 0.01
    dropout: float = 0.1
    teacher_weight: float = 0.5
    start: Literal["scratch", "supernet"] = "scratch"

    def __post_init__(self) -> None:
        """Refuses what cannot train."""
        check(holds=self.steps > 0, rule="pretrain.steps must be above 0", value=self.steps)
        check(
            holds=0 <= self.teacher_weight <= 1,
            rule="pretrain.teacher_weight must be in 0..1",
            value=self.teacher_weight,
        )
        _check_optimiser("pretrain", self)
