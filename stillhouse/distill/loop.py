"""The one training loop: fine-tuning, short distillation of candidates, and the final one.

What differs between them is given as data: the model, the examples, the terms, the settings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stillhouse.data.batching import Batch, collate, plan_batches
from stillhouse.distill.signals import SignalReader, Signals
from stillhouse.distill.steps import UNWATCHED, Schedule, run_steps
from stillhouse.distill.vocabulary import compact_vocabulary, whole_vocabulary
from stillhouse.errors import SettingsError
from stillhouse.model.lsq import is_quantised
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.steps import Part, TrainReport, Watch
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.distill.terms import Term
    from stillhouse.model.precision import Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a model is trained.

    Attributes:
        epochs: Passes over the examples, > 0; fractions are allowed.
        batch_size: Examples a step.
        learning_rate: Peak of the schedule: linear warm-up, then linear decay to zero.
        warmup_fraction: Share of all steps spent warming up, 0..1.
        weight_decay: On weight matrices; biases, norms and embeddings have none.
        clip_norm: Largest norm of the gradient.
        precision: Arithmetic of the matrix products.
        seed: Order of the examples, and dropout.
    """

    epochs: float
    learning_rate: float
    batch_size: int = 32
    warmup_fraction: float = 0.06
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    precision: Precision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses values that cannot train."""
        for name in ("epochs", "learning_rate", "batch_size", "clip_norm"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup_fraction", "weight_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} must be within 0..1, got {getattr(self, name)}")

    def schedule(self, examples: int) -> Schedule:
        """Returns the steps over so many examples, and their rates."""
        return Schedule(
            steps=steps_in(examples, self),
            learning_rate=self.learning_rate,
            warmup_fraction=self.warmup_fraction,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )


def training_attention(device: torch.device, precision: Precision) -> Literal["eager", "sdpa"]:
    """Chooses the attention kernel for training.

    In torch 2.13 the fused kernel's backward pass in bfloat16 on CPUs makes a whole step take 1.3
    to 2 times as long as plain products do (benchmarks/attention.py); elsewhere the fused one wins.
    """
    return "eager" if device.type == "cpu" and precision == "bfloat16" else "sdpa"


def steps_in(examples: int, settings: TrainSettings) -> int:
    """Counts the optimiser steps of a training over `examples` examples."""
    per_epoch = -(-examples // settings.batch_size)
    return max(1, round(per_epoch * settings.epochs))


def train(  # noqa: PLR0913  the one training loop: what differs between trainings is given to it
    model: PreTrainedModel,
    encoded: EncodedSet,
    terms: Sequence[Term],
    settings: TrainSettings,
    *,
    accelerator: Accelerator,
    teacher: TeacherSignals | None = None,
    watch: Watch = UNWATCHED,
    parts: Callable[[nn.Module], Sequence[Part]] | None = None,
) -> TrainReport:
    """Trains a model in place on the weighted sum of the terms.

    The order of examples is a function of the seed and the epoch, and a checkpoint holds weights,
    optimiser, random state and the best weights so far, so a resumed training ends with the
    numbers of an unbroken one.

    Args:
        model: Model with a head for the task.
        encoded: Examples; `Batch.indices` counts in this set.
        terms: Parts of the objective.
        settings: Epochs, rates, precision, seed.
        accelerator: Device placement and backward pass.
        teacher: Signals of the teacher for the same examples; needed if a term reads them.
        watch: Progress, checkpoints, the time limit and evaluations.
        parts: Shares the parameters of what is trained out among rates of their own; it is shown
            the model as it is trained, with the used part of its vocabulary.

    Raises:
        SettingsError: If there is no term, no example, or no teacher for a term that reads it.
        TrainingError: If the loss is not finite, or the deadline passed.
    """
    if not terms or not len(encoded):
        raise SettingsError(
            f"training needs a term and an example, got {len(terms)} terms, {len(encoded)} examples"
        )
    needs_teacher = any(term.reads_teacher for term in terms)
    if needs_teacher and teacher is None:
        raise SettingsError("a term reads the teacher, but no teacher was given to the training")
    model.to(accelerator.device).train()
    attention = model.config._attn_implementation
    if not is_quantised(model):  # which has an attention function of its own
        model.set_attn_implementation(training_attention(accelerator.device, settings.precision))
    layers = frozenset().union(*(term.student_layers for term in terms))
    attended = frozenset().union(*(term.student_attention for term in terms))
    try:
        with (
            compact_vocabulary(model, encoded) as compact,
            torch.random.fork_rng(),
            SignalReader(model, layers, attention=attended) as reader,
        ):
            torch.manual_seed(settings.seed)
            asked = None if teacher is None else _with_full_vocabulary(teacher, encoded)
            lesson = _Lesson(reader, compact, terms, settings, accelerator, asked)
            projections = [term.projection for term in terms if term.projection is not None]
            modules = nn.ModuleList([model, *projections]).to(accelerator.device)
            report = run_steps(
                modules,
                lesson.backward,
                settings.schedule(len(encoded)),
                accelerator=accelerator,
                parameters=None if parts is None else parts(modules),
                watch=replace(_shown(model, watch), tokens=lesson.tokens),
            )
            weighted = [t.weight * part for t, part in zip(terms, report.losses, strict=False)]
            return replace(report, loss=sum(weighted)) if weighted else report
    finally:
        accelerator.free_memory()  # it would keep the optimiser, and so the weights, for good
        model.set_attn_implementation(attention)
        model.eval()


def _with_full_vocabulary(teacher: TeacherSignals, encoded: EncodedSet) -> TeacherSignals:
    """Gives the teacher the token ids that it knows, not those of the student's cut table."""

    def ask(batch: Batch) -> Signals:
        full = collate(encoded, batch.indices.cpu().numpy())
        return teacher(full.to(batch.indices.device))

    return ask


class _Lesson:
    """What one step of a distillation computes."""

    def __init__(
        self,
        reader: SignalReader,
        encoded: EncodedSet,
        terms: Sequence[Term],
        settings: TrainSettings,
        accelerator: Accelerator,
        teacher: TeacherSignals | None,
    ) -> None:
        self._reader = reader
        self._encoded = encoded
        self._terms = terms
        self._settings = settings
        self._accelerator = accelerator
        self._teacher = teacher if any(term.reads_teacher for term in terms) else None
        self._plan: list[NDArray[np.int64]] = []
        self._plan_steps = range(0)

    def backward(self, step: int) -> Tensor:
        """Adds the gradients of a step; returns the unweighted losses of the terms."""
        batch = self._batch(step).to(self._accelerator.device)
        teacher = None if self._teacher is None else self._teacher(batch)
        with autocast(self._accelerator.device, self._settings.precision):
            student = self._reader(batch)
            parts = torch.stack([term(student, teacher, batch) for term in self._terms])
        weights = torch.tensor([term.weight for term in self._terms], device=parts.device)
        self._accelerator.backward((parts * weights).sum())
        return parts.detach()

    def tokens(self, step: int) -> int:
        """Counts the tokens of a step's examples, padding apart."""
        return int(self._encoded.lengths[self._chosen(step)].sum())

    def _batch(self, step: int) -> Batch:
        return collate(self._encoded, self._chosen(step))

    def _chosen(self, step: int) -> NDArray[np.int64]:
        """Returns the positions of a step's examples."""
        if step not in self._plan_steps:
            per_epoch = -(-len(self._encoded) // self._settings.batch_size)
            epoch = step // per_epoch
            self._plan = plan_batches(
                self._encoded.lengths,
                batch_size=self._settings.batch_size,
                seed=self._settings.seed,
                epoch=epoch,
            )
            self._plan_steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        return self._plan[step - self._plan_steps.start]


def _shown(model: PreTrainedModel, watch: Watch) -> Watch:
    """Lets evaluations see the model as it will be used: whole, and without dropout."""
    evaluations = watch.evaluations
    if evaluations is None:
        return watch

    def score(done: int) -> float:
        model.eval()
        with whole_vocabulary(model), torch.random.fork_rng():
            found = evaluations.score(done)
        model.train()
        return found

    return replace(watch, evaluations=replace(evaluations, score=score))
