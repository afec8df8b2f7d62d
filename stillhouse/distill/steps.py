"""Optimiser steps: schedule, clipping, checkpoints, evaluations and resumption of any training.

What a step computes is given as a function that adds to the gradients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from stillhouse.distill.checkpoint import BestWeights
from stillhouse.distill.token_count import TRAINED
from stillhouse.errors import SettingsError, TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stillhouse.distill.checkpoint import CheckpointFolder

STEPS_A_LOG = 20
"""Losses are read off the device, and told, once in so many steps."""
GROUPS_A_PART = 2
"""Of the optimiser: with weight decay, and without."""
Groups: TypeAlias = "list[dict[str, Any]]"
"""Parameters with their weight decay, as PyTorch's optimisers take them."""


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
        steps: Optimiser steps taken, those before a resumption included.
        loss: Mean over the last tenth of the steps of this process; NaN where a resumed training
            had nothing left to do. Of a training on terms, their weighted sum.
        losses: The same of each loss; empty where `loss` is NaN.
        wall_s: Seconds in this process.
        scores: Of every evaluation, by the steps that were done.
        best_step: Steps after which the model had the weights that it has now, where evaluations
            chose them.
    """

    steps: int
    loss: float
    wall_s: float
    losses: tuple[float, ...] = ()
    scores: Mapping[int, float] = field(default_factory=dict)
    best_step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """Looks at a model while it learns; it ends with the weights that were best.

    Attributes:
        score: Tells how good the model is after the given number of steps, higher better. `train`
            shows it the model in evaluation mode and with its whole vocabulary, and it cannot
            change what the training draws by chance.
        every_steps: Steps from one evaluation to the next; the last step is followed by one, too.
        patience: So many evaluations in a row that are no better than the best end the training;
            `None` trains to the end.
    """

    score: Callable[[int], float]
    every_steps: int
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuses amounts that are not above 0."""
        for name in ("every_steps", "patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"{name} must be above 0, got {value}")

    def are_due(self, done: int, steps: int) -> bool:
        """Tells whether the model is looked at after `done` of `steps` steps."""
        return done % self.every_steps == 0 or done == steps

    def are_spent(self, best: BestWeights) -> bool:
        """Tells whether the patience is at its end."""
        return self.patience is not None and best.count_since >= self.patience


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a caller wants of a training beside its result.

    Attributes:
        on_step: Told the progress after each step.
        checkpoint: Where to keep checkpoints, or `None` for none.
        deadline: `time.monotonic()` after which training stops with an error, or `None`.
        evaluations: What chooses the weights to end with, or `None` for the last ones.
        tokens: Tells how many tokens a 0-based step reads, over all workers, for the cost of the
            job; `train` knows it of its own. `None` counts none.
    """

    on_step: Callable[[Progress], None] | None = None
    checkpoint: CheckpointFolder | None = None
    deadline: float | None = None
    evaluations: Evaluations | None = None
    tokens: Callable[[int], int] | None = None


UNWATCHED = Watch()


def adamw(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
    """Makes AdamW, in one kernel where there is one."""
    device = next(one.device for group in groups for one in group["params"])
    return torch.optim.AdamW(groups, lr=learning_rate, fused=device.type in ("cpu", "cuda"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How parameters are moved.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Peak: linear warm-up, then linear decay.
        warmup_fraction: Share of all steps spent warming up, 0..1.
        end_fraction: Share of the peak that the decay leads to, 0..1; at 1 there is none.
        weight_decay: On weight matrices; biases, norms and embeddings have none.
        clip_norm: Largest norm of the gradient.
        rate: Tells the learning rate of a 0-based step, where it is no such straight line.
        optimizer: Makes what moves the parameters.
    """

    steps: int
    learning_rate: float
    warmup_fraction: float = 0.0
    end_fraction: float = 0.0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    rate: Callable[[int], float] | None = None
    optimizer: Callable[[Groups, float], torch.optim.Optimizer] = adamw

    def __post_init__(self) -> None:
        """Refuses values that cannot train."""
        for name in ("steps", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.end_fraction <= 1:
            raise SettingsError(f"end_fraction must be within 0..1, got {self.end_fraction}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of 0-based `step`."""
        if self.rate is not None:
            return self.rate(step)
        warmup = round(self.steps * self.warmup_fraction)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        decayed = self.learning_rate * (self.steps - step) / max(1, self.steps - warmup)
        return decayed + self.end_fraction * (self.learning_rate - decayed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Parameters that are trained at a rate of their own.

    Attributes:
        parameters: Those of the part, in no other one.
        multiplier: Tells what the schedule's rate is multiplied by at a 0-based step, >= 0.
        weight_decay: On all of them, >= 0; `None` for the schedule's on weight matrices alone.
    """

    parameters: Sequence[nn.Parameter]
    multiplier: Callable[[int], float]
    weight_decay: float | None = None


def run_steps(
    modules: nn.Module,
    backward: Callable[[int], Tensor],
    schedule: Schedule,
    *,
    accelerator: Accelerator,
    parameters: Sequence[nn.Parameter] | Sequence[Part] | None = None,
    watch: Watch = UNWATCHED,
    has_own_work: bool = False,
) -> TrainReport:
    """Trains parameters in place.

    A checkpoint holds weights, optimiser, random state and the best weights so far, so that a
    resumed training ends with the numbers of an unbroken one, where `backward` is a function of its
    step and the random state.

    Args:
        modules: What a checkpoint holds.
        backward: Adds the gradients of a 0-based step and returns its losses, `[N]`.
        schedule: Steps and rates.
        accelerator: Which process writes checkpoints and tells progress: the main one.
        parameters: What is trained, perhaps in parts; `None` means all of the modules that have
            gradients.
        watch: Progress, checkpoints, the time limit and evaluations.
        has_own_work: Whether each process trains something else, and so writes and tells its own.

    Returns:
        What was done; its loss is the mean over the N losses.

    Raises:
        TrainingError: If the gradient is not finite, or the deadline passed.
    """
    if parameters is None:
        parameters = [p for p in modules.parameters() if p.requires_grad]
    parts = [one for one in parameters if isinstance(one, Part)]
    if not parts:
        whole = [one for one in parameters if isinstance(one, nn.Parameter)]
        parts = [Part(parameters=whole, multiplier=lambda _: 1.0)]
    is_writer = has_own_work or accelerator.is_main_process
    return _Run(modules, parts, schedule, watch, is_writer=is_writer).to_the_end(backward)


class _Run:
    """State of one training: optimiser, position, best weights."""

    def __init__(
        self,
        modules: nn.Module,
        parts: Sequence[Part],
        schedule: Schedule,
        watch: Watch,
        *,
        is_writer: bool,
    ) -> None:
        self._modules, self._schedule = modules, schedule
        self._watch, self._is_writer = watch, is_writer
        self._parameters = [parameter for part in parts for parameter in part.parameters]
        groups = parameter_groups(modules, parts, schedule)
        self._optimizer = schedule.optimizer(groups, schedule.learning_rate)
        self._multipliers = [part.multiplier for part in parts for _ in range(GROUPS_A_PART)]
        self._best = BestWeights()
        self._saved_s = time.monotonic()

    def to_the_end(self, backward: Callable[[int], Tensor]) -> TrainReport:
        start_s = self._saved_s = time.monotonic()
        done, losses = 0, []
        if self._watch.checkpoint is not None:
            done = self._watch.checkpoint.load(self._modules, self._optimizer, self._best)
        while not self._is_over(done):
            losses.append(self._step(backward, done))
            self._tell(done, losses[-1])
            done += 1
            self._evaluate(done)
            self._check_deadline(done)
            self._save(done)
        if self._best.weights:
            self._modules.load_state_dict(self._best.weights)
        tail = torch.stack(losses[-max(1, len(losses) // 10) :]).mean(dim=0) if losses else None
        return TrainReport(
            steps=done,
            loss=float("nan") if tail is None else tail.mean().item(),
            losses=() if tail is None else tuple(tail.tolist()),
            wall_s=time.monotonic() - start_s,
            scores=self._best.scores,
            best_step=self._best.step,
        )

    def _is_over(self, done: int) -> bool:
        evaluations = self._watch.evaluations
        spent = evaluations is not None and evaluations.are_spent(self._best)
        return spent or done >= self._schedule.steps

    def _step(self, backward: Callable[[int], Tensor], step: int) -> Tensor:
        rate = self._schedule.learning_rate_at(step)
        for group, multiplier in zip(self._optimizer.param_groups, self._multipliers, strict=True):
            group["lr"] = rate * multiplier(step)
        losses = backward(step)
        norm = nn.utils.clip_grad_norm_(self._parameters, self._schedule.clip_norm)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"gradient is not finite at step {step + 1} of {self._schedule.steps} (learning "
                f"rate {self._schedule.learning_rate:g}): lower the learning rate or use float32"
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._watch.tokens is not None and self._is_writer:
            TRAINED.add(self._watch.tokens(step))
        return losses

    def _evaluate(self, done: int) -> None:
        """Scores the model if that is due, and keeps its weights if they are the best so far."""
        evaluations = self._watch.evaluations
        if evaluations is not None and evaluations.are_due(done, self._schedule.steps):
            self._best.offer(done, evaluations.score(done), self._modules)

    def _check_deadline(self, done: int) -> None:
        deadline = self._watch.deadline
        if deadline is not None and time.monotonic() > deadline and not self._is_over(done):
            raise TrainingError(
                f"out of time after {done} of {self._schedule.steps} steps; allow more time"
            )

    def _save(self, done: int) -> None:
        checkpoint = self._watch.checkpoint
        if checkpoint is None or time.monotonic() - self._saved_s <= checkpoint.every_s:
            return
        if self._is_writer:
            checkpoint.save(done, self._modules, self._optimizer, self._best)
        self._saved_s = time.monotonic()

    def _tell(self, step: int, losses: Tensor) -> None:
        if self._watch.on_step is None or not self._is_writer:
            return
        is_logged = step % STEPS_A_LOG == 0 or step + 1 == self._schedule.steps
        told = tuple(losses.tolist()) if is_logged else ()
        self._watch.on_step(Progress(step=step + 1, steps=self._schedule.steps, losses=told))


def parameter_groups(modules: nn.Module, parts: Sequence[Part], schedule: Schedule) -> Groups:
    """Parts parameters: no decay on biases, norms and embeddings (the last: see vocabulary.py).

    A part with a decay of its own has it on all its parameters.
    """
    tables = {id(m.weight) for m in modules.modules() if isinstance(m, nn.Embedding)}
    groups: Groups = []
    for part in parts:
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for parameter in part.parameters:
            is_matrix = parameter.ndim > 1 and id(parameter) not in tables
            (decayed if is_matrix else plain).append(parameter)
        of_matrices, of_others = schedule.weight_decay, 0.0
        if part.weight_decay is not None:
            of_matrices = of_others = part.weight_decay
        groups += [
            {"params": decayed, "weight_decay": of_matrices},
            {"params": plain, "weight_decay": of_others},
        ]
    return groups
