"""Settings of taggers of words that learn from text without tags as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from pydantic import ConfigDict

from stillhouse.run.rules import STRICT

TaggerSize: TypeAlias = Literal["small", "published"]
TargetSource: TypeAlias = Literal["own", "teacher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossViewSettings:
    """A BiLSTM tagger, trained on sentences with tags and, by cross-view training, without them.

    Attributes:
        size: `published`, whose words have 300 numbers and first LSTM 1,024 units, or `small`,
            with 100 numbers and 256 units.
        word_size: Numbers of a word's vector; `None` takes that of the size.
        vectors: File of word vectors as GloVe or word2vec write them as text; without one they are
            learnt from scratch.
        most_words: Words that have a vector of their own, at most.
        labels_fraction: Share of the training sentences whose tags are read, above 0 and at most
            1; the others join the text without tags.
        targets: Who tells the tags of text without tags: the tagger itself, as published, or a
            teacher (`teacher.model`).
        unlabelled_weight: Of the loss on text without tags; at 0 none of it is read, which is
            ordinary training.
        label_smoothing: Share of every target that is spread over all tags, at least 0, below 1.
        dropout, unlabelled_dropout: On either kind of text, at least 0, below 1.
        batch_size, unlabelled_batch_size: Sentences a step of either kind.
        steps: Optimiser steps, on both kinds of text in turn.
        learning_rate: Before warm-up and decay.
        warmup_steps: Steps until the rate is full; `None` means 5,000 as published, but a tenth of
            `steps` where that is less.
        decay: The rate is divided by 1 + `decay` · √step.
        momentum: Of SGD, at least 0, below 1.
        clip_norm: Largest norm of the gradient.
        average: Share that the average of the weights keeps of itself at a step, at least 0, below
            1; averaged weights are evaluated and kept.
        evaluate_every: Steps from one look at search-validation to the next.
        patience: So many evaluations in a row that are no better end the training; `None` for
            never.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    size: TaggerSize = "small"
    word_size: int | None = None
    vectors: str | None = None
    most_words: int = 50_000
    labels_fraction: float = 1.0
    targets: TargetSource = "own"
    unlabelled_weight: float = 1.0
    label_smoothing: float = 0.1
    dropout: float = 0.5
    unlabelled_dropout: float = 0.2
    batch_size: int = 64
    unlabelled_batch_size: int = 64
    steps: int = 10_000
    learning_rate: float = 0.5
    warmup_steps: int | None = None
    decay: float = 0.005
    momentum: float = 0.9
    clip_norm: float = 1.0
    average: float = 0.998
    evaluate_every: int = 500
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot train."""
        for name in (
            "most_words",
            "batch_size",
            "unlabelled_batch_size",
            "steps",
            "learning_rate",
            "clip_norm",
            "evaluate_every",
        ):
            self._check(name, holds=getattr(self, name) > 0, rule="above 0")
        for name in ("word_size", "patience"):
            value = getattr(self, name)
            self._check(name, holds=value is None or value > 0, rule="above 0 or absent")
        for name in ("unlabelled_weight", "decay"):
            self._check(name, holds=getattr(self, name) >= 0, rule="at least 0")
        for name in ("label_smoothing", "dropout", "unlabelled_dropout", "momentum", "average"):
            self._check(name, holds=0 <= getattr(self, name) < 1, rule="at least 0 and below 1")
        self._check(
            "labels_fraction",
            holds=0 < self.labels_fraction <= 1,
            rule="above 0 and at most 1",
        )
        self._check(
            "warmup_steps",
            holds=self.warmup_steps is None or self.warmup_steps >= 0,
            rule="at least 0 or absent",
        )

    def _check(self, name: str, *, holds: bool, rule: str) -> None:
        if not holds:
            raise ValueError(f"cross_view.{name} must be {rule}, got {getattr(self, name)!r}")
