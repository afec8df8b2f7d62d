"""Cross-view training: a tagger of words teaches its own restricted views on text without tags.

Source: Clark et al., "Semi-Supervised Sequence Modeling with Cross-View Training" (EMNLP 2018),
and its code (tensorflow/models, research/cvt_text), which settles what the paper leaves open:
labelled steps train the primary module alone, targets are smoothed on both kinds of text, they are
told by the weights as they are and not by their average, and both kinds of steps count for the
learning rate.

Letters in names: B sentences, T words of the longest, C tags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from stillhouse.data.batching import plan_batches
from stillhouse.data.word_batches import collate_words
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from stillhouse.data.word_batches import WordBatch, WordSet
    from stillhouse.distill.steps import Groups, TrainReport, Watch
    from stillhouse.model.word_tagger import CrossViewTagger, RestrictedView

SHIFTS: dict[RestrictedView, int] = {
    "full": 0,
    "forward": 0,
    "backward": 0,
    "future": 1,
    "past": -1,
}
"""How many words on the tag stands that a view tells."""
_OTHER_ORDER = 2**32
"""Added to the seed, it sets the order of text without tags apart from that of the sentences."""


class Targets(NamedTuple):
    """What tags a batch is told to have.

    Attributes:
        probabilities_BTC: Distributions over the tags, without gradient.
        known_BT: The words that have one.
    """

    probabilities_BTC: Tensor  # noqa: N815
    known_BT: Tensor  # noqa: N815


class TeacherTargets(Protocol):
    """Where targets come from that are not the tagger's own."""

    def __call__(self, indices: NDArray[np.int64], words: int) -> Targets:
        """Returns the targets of sentences without tags.

        Args:
            indices: `[B]` positions of the sentences in their set.
            words: T, the words that they are padded to.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossViewRule:
    """What a step computes.

    Attributes:
        label_smoothing: Share of every target that is spread over all tags, 0..1.
        dropout: On sentences with tags, 0..1.
        unlabelled_dropout: On those without, 0..1.
        batch_size: Sentences with tags of a step.
        unlabelled_batch_size: Sentences without.
        unlabelled_weight: Of the loss on them, >= 0; at 0 all steps are on sentences with tags.
        seed: Order of the sentences, and dropout.
    """

    label_smoothing: float = 0.1
    dropout: float = 0.5
    unlabelled_dropout: float = 0.2
    batch_size: int = 64
    unlabelled_batch_size: int = 64
    unlabelled_weight: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """How the weights are moved, and averaged.

    Attributes:
        steps: Optimiser steps in all.
        learning_rate: Before warm-up and decay.
        warmup_steps: Steps until the rate is full.
        decay: The rate is divided by 1 + decay · √step.
        momentum: Of SGD, 0..1.
        clip_norm: Largest norm of the gradient.
        average: Share that the average keeps of itself at a step, 0..1.
    """

    steps: int
    learning_rate: float = 0.5
    warmup_steps: int = 5_000
    decay: float = 0.005
    momentum: float = 0.9
    clip_norm: float = 1.0
    average: float = 0.998

    def rate(self, step: int) -> float:
        """Learning rate of a 0-based step: η · min(1, t / warm-up) / (1 + decay · √t).

        t counts steps from 1; in CVT's code from 0, so that its first step does nothing.
        """
        done = step + 1
        warm = min(1.0, done / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * warm / (1 + self.decay * math.sqrt(done))


def smoothed(probabilities_BTC: Tensor, share: float) -> Tensor:
    """Spreads a share of every distribution evenly over all tags."""
    return probabilities_BTC * (1 - share) + share / probabilities_BTC.shape[-1]


def view_loss(logits_BTC: Tensor, targets: Targets, words_BT: Tensor, *, shift: int = 0) -> Tensor:
    """Cross-entropy of what is told at word t with the target of word t + `shift`.

    Where there is no word, or the word that is told of is none or has no target, nothing counts. A
    word without a target of its own tells of its neighbours all the same.

    Args:
        logits_BTC: What a module tells.
        targets: What it should tell.
        words_BT: Where there is a word, and no padding.
        shift: 1 for the word after, -1 for the one before, 0 for the word itself.

    Returns:
        The mean over the words that count, in nats; 0 where there are none.
    """
    words = logits_BTC.shape[1]
    told = slice(max(0, -shift), words - max(0, shift))
    wanted = slice(max(0, shift), words - max(0, -shift))
    kept_BT = words_BT[:, told] & words_BT[:, wanted] & targets.known_BT[:, wanted]
    target_BTC = targets.probabilities_BTC[:, wanted].detach().float()
    log_BTC = functional.log_softmax(logits_BTC[:, told].float(), dim=-1)
    loss_BT = -(target_BTC * log_BTC).sum(dim=-1)
    return (loss_BT * kept_BT).sum() / kept_BT.sum().clamp(min=1)


def cross_view_loss(
    logits: Mapping[RestrictedView, Tensor], targets: Targets, words_BT: Tensor, *, share: float
) -> Tensor:
    """Sums the losses of all views on targets with label smoothing.

    Args:
        logits: `[B, T, C]` of every view.
        targets: Not smoothed yet.
        words_BT: Where there is a word, and no padding.
        share: Of the label smoothing, 0..1.
    """
    smooth = Targets(smoothed(targets.probabilities_BTC, share), targets.known_BT)
    return torch.stack(
        [view_loss(part, smooth, words_BT, shift=SHIFTS[view]) for view, part in logits.items()]
    ).sum()


def drawn_sentences(encoded: WordSet, rule: CrossViewRule, steps: int) -> list[NDArray[np.int64]]:
    """Lists the batches of text without tags that a training of so many steps reads."""
    order = _Order(encoded, rule.unlabelled_batch_size, rule.seed + _OTHER_ORDER)
    return [order.batch(number) for number in range(steps // 2)]


def train_cross_view(
    model: CrossViewTagger,
    labelled: WordSet,
    unlabelled: WordSet | None,
    rule: CrossViewRule,
    movement: Movement,
    *,
    setting: TrainingPlace,
) -> TrainReport:
    """Trains a tagger in place; it ends with the averaged weights that were best.

    Steps on sentences with tags and on text without them take turns. A resumed training ends with
    the numbers of an unbroken one.

    Args:
        model: Tagger and auxiliary modules.
        labelled: Sentences with tags.
        unlabelled: Sentences without; not read at a weight of 0.
        rule: What a step computes.
        movement: How weights are moved.
        setting: Where it runs, how it is judged and watched.

    Raises:
        SettingsError: If there is no text without tags to learn from.
        TrainingError: If the gradient is not finite.
    """
    if rule.unlabelled_weight > 0 and (unlabelled is None or not len(unlabelled)):
        raise SettingsError(
            "cross-view training needs text without tags; give some, or unlabelled_weight 0"
        )
    device = setting.accelerator.device
    model.to(device)
    average = AveragedModel(model, multi_avg_fn=_averaging(movement.average))
    average.requires_grad_(requires_grad=False)

    def optimizer(groups: Groups, learning_rate: float) -> torch.optim.Optimizer:
        sgd = torch.optim.SGD(groups, lr=learning_rate, momentum=movement.momentum)
        sgd.register_step_post_hook(lambda *_: average.update_parameters(model))
        return sgd

    schedule = Schedule(
        steps=movement.steps,
        learning_rate=movement.learning_rate,
        weight_decay=0.0,
        clip_norm=movement.clip_norm,
        rate=movement.rate,
        optimizer=optimizer,
    )
    lesson = _Lesson(model, labelled, unlabelled, rule, setting)
    with torch.random.fork_rng():
        torch.manual_seed(rule.seed)
        report = run_steps(
            nn.ModuleDict({"model": model, "average": average}),
            lesson.backward,
            schedule,
            accelerator=setting.accelerator,
            watch=replace(setting.watched(average), tokens=lesson.words),
        )
    model.load_state_dict(average.module.state_dict())
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlace:
    """Where a tagger is trained, and who looks on.

    Attributes:
        accelerator: Device and backward pass.
        watch: Given the averaged model, says how the training is watched and evaluated.
        teacher: Targets on text without tags; `None` for the tagger's own.
    """

    accelerator: Accelerator
    watch: Callable[[CrossViewTagger], Watch]
    teacher: TeacherTargets | None = None

    def watched(self, average: AveragedModel) -> Watch:
        """Returns the watch of a training whose averaged weights are judged."""
        return self.watch(cast("CrossViewTagger", average.module))


class _Lesson:
    """What one step computes."""

    def __init__(
        self,
        model: CrossViewTagger,
        labelled: WordSet,
        unlabelled: WordSet | None,
        rule: CrossViewRule,
        setting: TrainingPlace,
    ) -> None:
        self._model, self._rule, self._setting = model, rule, setting
        self._labelled, self._unlabelled = labelled, unlabelled
        self._order = _Order(labelled, rule.batch_size, rule.seed)
        self._other_order: _Order | None = None
        if unlabelled is not None and rule.unlabelled_weight > 0:
            self._other_order = _Order(
                unlabelled, rule.unlabelled_batch_size, rule.seed + _OTHER_ORDER
            )
        self._losses = torch.zeros(1 if self._other_order is None else 2)

    def backward(self, step: int) -> Tensor:
        """Adds the gradients of a step.

        Returns:
            The last losses on either kind of text, 0 of one that was not read yet.
        """
        _, indices = self._chosen(step)
        kind = 0 if self._other_order is None else step % 2
        loss = self._unlabelled_loss(indices) if kind else self._labelled_loss(indices)
        weight = self._rule.unlabelled_weight if kind else 1.0
        self._setting.accelerator.backward(loss * weight)
        self._losses = self._losses.clone()
        self._losses[kind] = loss.detach()
        return self._losses

    def words(self, step: int) -> int:
        """Counts the words of a step."""
        encoded, indices = self._chosen(step)
        return int(encoded.lengths[indices].sum())

    def _chosen(self, step: int) -> tuple[WordSet, NDArray[np.int64]]:
        """Returns what a step reads: a set, and positions of sentences in it."""
        if self._other_order is None:
            return self._labelled, self._order.batch(step)
        if step % 2 == 0:
            return self._labelled, self._order.batch(step // 2)
        assert self._unlabelled is not None
        return self._unlabelled, self._other_order.batch(step // 2)

    def _labelled_loss(self, indices: NDArray[np.int64]) -> Tensor:
        batch = self._batch(self._labelled, indices)
        assert batch.tags_BT is not None
        logits_BTC = self._model.tagger(batch, self._rule.dropout)
        gold_BTC = functional.one_hot(batch.tags_BT.clamp(min=0), logits_BTC.shape[-1]).float()
        smooth = smoothed(gold_BTC, self._rule.label_smoothing)
        return view_loss(logits_BTC, Targets(smooth, batch.mask_BT), batch.mask_BT)

    def _unlabelled_loss(self, indices: NDArray[np.int64]) -> Tensor:
        assert self._unlabelled is not None
        batch = self._batch(self._unlabelled, indices)
        targets = self._targets(batch, indices)
        tagger = self._model.tagger
        views = tagger.encoder(batch, self._rule.unlabelled_dropout)
        words_BT, share = batch.mask_BT, self._rule.label_smoothing
        loss = cross_view_loss(self._model.auxiliary(views), targets, words_BT, share=share)
        if self._setting.teacher is not None:
            loss = loss + cross_view_loss(
                {"full": tagger.primary(views.full_BTD)}, targets, words_BT, share=share
            )
        return loss

    def _targets(self, batch: WordBatch, indices: NDArray[np.int64]) -> Targets:
        if self._setting.teacher is not None:
            told = self._setting.teacher(indices, batch.words_BT.shape[1])
            device = batch.words_BT.device
            return Targets(told.probabilities_BTC.to(device), told.known_BT.to(device))
        with torch.no_grad():
            return Targets(self._model.tagger(batch).softmax(dim=-1), batch.mask_BT)

    def _batch(self, encoded: WordSet, indices: NDArray[np.int64]) -> WordBatch:
        return collate_words(encoded, indices).to(self._setting.accelerator.device)


class _Order:
    """Batches of a set, pass after pass, each pass in an order of its own."""

    def __init__(self, encoded: WordSet, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = encoded.lengths, batch_size, seed
        self._a_pass = -(-len(encoded) // batch_size)
        self._pass = -1
        self._plan: list[NDArray[np.int64]] = []

    def batch(self, number: int) -> NDArray[np.int64]:
        """Returns the sentences of a 0-based batch."""
        passed, place = divmod(number, self._a_pass)
        if passed != self._pass:
            self._plan = plan_batches(
                self._lengths, batch_size=self._batch_size, seed=self._seed, epoch=passed
            )
            self._pass = passed
        return self._plan[place]


def _averaging(share: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Moves an average a little towards the weights, at first faster.

    The share grows as (1 + n) / (10 + n) until it is full, as TensorFlow's averages do that count
    their updates: without it a short training would end with an average of its first weights.
    """

    def average(
        averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor | int
    ) -> None:
        count = int(updates)
        kept = min(share, (1 + count) / (10 + count))
        for mean, weight in zip(averaged, current, strict=True):
            mean.lerp_(weight.detach(), 1 - kept)

    return average
