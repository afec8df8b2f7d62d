"""The one training loop: fine-tuning, short distillation of candidates, and the final one.

What differs between them is given as data: the model, the examples, the terms, the settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stillhouse.data.batching import Batch, collate, plan_batches
from stillhouse.distill.signals import SignalReader, Signals
from stillhouse.distill.vocabulary import compact_vocabulary
from stillhouse.errors import SettingsError, TrainingError
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.checkpoint import CheckpointFolder
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training stands, told after every step.

    Attributes:
        step: Optimiser steps done.
        steps: Optimiser steps in all.
        losses: Unweighted loss of each term at this step; filled on every 20th step and the last.
    """

    step: int
    steps: int
    losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a training did.

    Attributes:
        steps: Optimiser steps in all, those before a resumption included.
        loss: Weighted sum of the terms, mean over the last tenth of the steps of this process;
            NaN where a resumed training had nothing left to do.
        wall_s: Seconds in this process.
    """

    steps: int
    loss: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a caller wants of a training beside its result.

    Attributes:
        on_step: Told the progress after each step.
        checkpoint: Where to keep checkpoints, or `None` for none.
        deadline: `time.monotonic()` after which training stops with an error, or `None`.
    """

    on_step: Callable[[Progress], None] | None = None
    checkpoint: CheckpointFolder | None = None
    deadline: float | None = None


UNWATCHED = Watch()


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


def learning_rate_at(step: int, steps: int, settings: TrainSettings) -> float:
    """Learning rate of 0-based `step`: linear up to the peak, then linear down towards zero."""
    warmup = round(steps * settings.warmup_fraction)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    return settings.learning_rate * (steps - step) / max(1, steps - warmup)


def train(
    model: PreTrainedModel,
    encoded: EncodedSet,
    terms: Sequence[Term],
    settings: TrainSettings,
    *,
    accelerator: Accelerator,
    teacher: TeacherSignals | None = None,
    watch: Watch = UNWATCHED,
) -> TrainReport:
    """Trains a model in place on the weighted sum of the terms.

    The order of examples is a function of the seed and the epoch, and a checkpoint holds weights,
    optimiser and random state, so a resumed training ends with the numbers of an unbroken one.

    Args:
        model: Sequence-classification model.
        encoded: Examples; `Batch.indices` counts in this set.
        terms: Parts of the objective.
        settings: Epochs, rates, precision, seed.
        accelerator: Device placement and backward pass.
        teacher: Signals of the teacher for the same examples; needed if a term reads them.
        watch: Progress, checkpoints and the time limit.

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
    model.set_attn_implementation(training_attention(accelerator.device, settings.precision))
    layers = frozenset().union(*(term.student_layers for term in terms))
    try:
        with (
            compact_vocabulary(model, encoded) as compact,
            torch.random.fork_rng(),
            SignalReader(model, layers) as reader,
        ):
            torch.manual_seed(settings.seed)
            asked = None if teacher is None else _with_full_vocabulary(teacher, encoded)
            training = _Training(reader, compact, terms, settings, accelerator, asked)
            return training.run(watch)
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


class _Training:
    """State of one run of the loop: parameters, optimiser, position."""

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
        self._teacher = teacher
        projections = [term.projection for term in terms if term.projection is not None]
        self._modules = nn.ModuleList([reader.model, *projections]).to(accelerator.device)
        self._parameters = [p for p in self._modules.parameters() if p.requires_grad]
        self._optimizer: torch.optim.Optimizer = accelerator.prepare(
            _adamw(self._modules, settings, accelerator.device)
        )
        self._steps = steps_in(len(encoded), settings)
        self._plan: list[NDArray[np.int64]] = []
        self._plan_steps = range(0)

    def run(self, watch: Watch) -> TrainReport:
        start_s = time.monotonic()
        done = 0
        if watch.checkpoint is not None:
            done = watch.checkpoint.load(self._modules, self._plain_optimizer())
        saved_s, losses = start_s, []
        for step in range(done, self._steps):
            parts = self._step(step)
            losses.append(parts)
            self._tell(watch, step, parts)
            now_s = time.monotonic()
            if watch.deadline is not None and now_s > watch.deadline and step + 1 < self._steps:
                raise TrainingError(
                    f"out of time after {step + 1} of {self._steps} steps; allow more time"
                )
            if watch.checkpoint is not None and now_s - saved_s > watch.checkpoint.every_s:
                watch.checkpoint.save(step + 1, self._modules, self._plain_optimizer())
                saved_s = time.monotonic()
        return TrainReport(
            steps=self._steps,
            loss=self._mean_loss(losses),
            wall_s=time.monotonic() - start_s,
        )

    def _step(self, step: int) -> Tensor:
        """Takes one optimiser step; returns the unweighted losses of the terms."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self._steps, self._settings)
        batch = self._batch(step).to(self._accelerator.device)
        reads_teacher = self._teacher is not None and any(t.reads_teacher for t in self._terms)
        teacher = self._teacher(batch) if self._teacher is not None and reads_teacher else None
        with autocast(self._accelerator.device, self._settings.precision):
            student = self._reader(batch)
            parts = self._losses(student, teacher, batch)
        weights = torch.tensor([term.weight for term in self._terms], device=parts.device)
        self._accelerator.backward((parts * weights).sum())
        norm = self._accelerator.clip_grad_norm_(self._parameters, self._settings.clip_norm)
        if norm is not None and not torch.isfinite(norm):
            raise TrainingError(
                f"gradient is not finite at step {step + 1} of {self._steps} (learning rate "
                f"{self._settings.learning_rate:g}): lower the learning rate or use float32"
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        return parts.detach()

    def _losses(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:
        return torch.stack([term(student, teacher, batch) for term in self._terms])

    def _batch(self, step: int) -> Batch:
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
        return collate(self._encoded, self._plan[step - self._plan_steps.start])

    def _tell(self, watch: Watch, step: int, parts: Tensor) -> None:
        if watch.on_step is None:
            return
        logged = step % 20 == 0 or step + 1 == self._steps
        losses = tuple(parts.tolist()) if logged else ()
        watch.on_step(Progress(step=step + 1, steps=self._steps, losses=losses))

    def _mean_loss(self, losses: list[Tensor]) -> float:
        if not losses:
            return float("nan")
        tail = torch.stack(losses[-max(1, len(losses) // 10) :]).mean(dim=0).cpu()
        return float(sum(w.weight * p for w, p in zip(self._terms, tail.tolist(), strict=True)))

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        inner = getattr(self._optimizer, "optimizer", self._optimizer)
        assert isinstance(inner, torch.optim.Optimizer)
        return inner


def _adamw(
    modules: nn.Module, settings: TrainSettings, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with no decay on biases, norms and embeddings (the last: see vocabulary.py)."""
    tables = {id(m.weight) for m in modules.modules() if isinstance(m, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for parameter in modules.parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim > 1 and id(parameter) not in tables
            (decayed if matrix else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, fused=device.type in ("cpu", "cuda")
    )
