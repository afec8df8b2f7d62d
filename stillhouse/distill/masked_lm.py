"""Masked words: training a teacher's head, pre-training students by it, and scoring both.

Only the chosen tokens go through a head, some at a time: scores of the whole vocabulary at all
tokens would dominate both time and memory.

Letters in names: B batch, T tokens, D hidden, N chosen tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from stillhouse.data.encoding import NO_CLASS
from stillhouse.data.packing import shard
from stillhouse.distill.losses import kl_teacher_student, label_cross_entropy
from stillhouse.distill.workers import average_gradients, mean_over_workers, own_chance
from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.mlm_teachers import MlmHead, MlmTeacher, mlm_logits
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from stillhouse.data.masking import Masker
    from stillhouse.data.packing import PackedSet
    from stillhouse.model.precision import Precision

TOKENS_AT_ONCE = 512
"""Chosen tokens that are scored together; bounds the memory of the logits."""
HELD_OUT_SEED = 0
"""Decides the masks of held-out text, for every model alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BorrowedHead:
    """A student whose last states a teacher's head reads.

    Attributes:
        student: An encoder, bare or with a head, which is not read.
        projection: Leads from its states to the teacher's width.
        head: The teacher's.
    """

    student: PreTrainedModel
    projection: nn.Module
    head: MlmHead

    def score(self, hidden_ND: Tensor) -> Tensor:
        """Scores the words at chosen tokens, `[N, V]`."""
        logits_NV: Tensor = self.head(self.projection(hidden_ND))
        return logits_NV


MlmNetwork: TypeAlias = MlmTeacher | PreTrainedModel | BorrowedHead
"""What tells masked words: a teacher with its head, a `...ForMaskedLM` model, or an encoder with a
teacher's head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedBatch:
    """A worker's part of a step's text.

    Attributes:
        input_ids: `[B, T]` token numbers with the mask tokens in them.
        mask: `[B, T]` 1 at tokens, 0 at padding; `None` where there is no padding.
        places: `[N]` where the chosen tokens are, counted through all sequences of the part.
        labels: `[N]` what they were.
        weight_fraction: What a mean over the N tokens counts, so that the mean over the workers is
            that over the chosen tokens of all.
    """

    input_ids: Tensor
    mask: Tensor | None
    places: Tensor
    labels: Tensor
    weight_fraction: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedText:
    """What steps read.

    Attributes:
        corpus: Sequences to train on.
        masker: Hides some of their tokens, others each time.
        batch_size: Sequences a step, over all workers; a multiple of their number.
        seed: Order of the sequences, masks, and dropout.
    """

    corpus: PackedSet
    masker: Masker
    batch_size: int
    seed: int = 0

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, over all workers."""
        return self.batch_size * self.corpus.length

    def batch(self, step: int, accelerator: Accelerator) -> MaskedBatch:
        """Reads and masks the batch of a step, and takes out the worker's own part.

        All workers mask all sequences, so that masks do not depend on their number, and each knows
        how many tokens were chosen.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        everything = self.corpus.plan(batch_size=self.batch_size, seed=self.seed, step=step)
        ids_BT, labels_BT = self.masker.mask(
            self.corpus.batch(everything), seed=self.seed, step=step
        )
        own = shard(np.arange(self.batch_size), rank=rank, world=world)
        chosen = int((labels_BT != NO_CLASS).sum())
        own_chosen = int((labels_BT[own] != NO_CLASS).sum())
        mask_BT = _mask_where_padded(self.corpus, everything[own])
        return _on_device(
            ids_BT[own],
            labels_BT[own],
            mask_BT,
            accelerator.device,
            weight_fraction=world * own_chosen / max(chosen, 1),
        )


class MlmHeadStep:
    """Computes the gradients of one step of a teacher's head; its encoder stays as it is.

    With several workers each has its part of the batch, and gradients are averaged.
    """

    def __init__(
        self,
        teacher: MlmTeacher,
        text: MaskedText,
        accelerator: Accelerator,
        *,
        precision: Precision = "float32",
    ) -> None:
        """Keeps the parts.

        Args:
            teacher: Its head, fresh or not, is trained in place.
            text: What to learn from.
            accelerator: Device, on which the teacher is, and workers.
            precision: Arithmetic of the matrix products.

        Raises:
            TeacherError: If the teacher has no head.
        """
        self._body, self._score = _parts(teacher)
        self._body.eval()
        assert teacher.head is not None
        self._parameters = list(teacher.head.parameters())
        self._text, self._accelerator, self._precision = text, accelerator, precision

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, over all workers."""
        return self._text.tokens

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step to the head's.

        Returns:
            Cross-entropy in nats, the mean over the chosen tokens of all workers, `[1]`.
        """
        batch = self._text.batch(step, self._accelerator)
        device = batch.labels.device
        with torch.no_grad(), autocast(device, self._precision):
            hidden_ND = _hidden(self._body, batch)
        total = torch.zeros(1, device=device)
        for part, share in _portions(batch):
            with autocast(device, self._precision):
                logits_NV = self._score(hidden_ND[part])
            loss = share * label_cross_entropy(logits_NV, batch.labels[part])
            loss.backward()
            total += loss.detach()
        average_gradients(self._parameters, self._accelerator)
        return mean_over_workers(total, self._accelerator)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedLmLesson:
    """What a student learns at the chosen tokens.

    The loss is (1 − weight) · cross-entropy + weight · KL(teacher ‖ student), at temperature 1.
    The cross-entropy with the mixed target weight · softmax(teacher) + (1 − weight) · word, which
    google-research/mobilebert trains on with 0.5, is greater by weight × the teacher's entropy, a
    constant for the student.

    Attributes:
        teacher: With a trained head.
        weight: Of the teacher, 0..1.
        precision: Arithmetic of the matrix products.

    Source: NAS-BERT (Xu et al. 2021), section 3.4, with λ = 0.5. The temperature is not stated.
    """

    teacher: MlmTeacher
    weight: float = 0.5
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Refuses a weight that is no share."""
        if not 0 <= self.weight <= 1:
            raise SettingsError(
                f"the teacher's weight is within 0..1, but is {self.weight:g}; 0.5 is usual"
            )


class MaskedLmStep:
    """Computes the gradients of one step of a student that pre-trains with a teacher.

    With several workers each has its part of the batch, and gradients are averaged.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        lesson: MaskedLmLesson,
        text: MaskedText,
        accelerator: Accelerator,
    ) -> None:
        """Keeps the parts.

        Args:
            student: A `...ForMaskedLM` model, trained in place.
            lesson: What it learns.
            text: What it learns from.
            accelerator: Device, on which both networks are, and workers.

        Raises:
            TeacherError: If the teacher has no head.
        """
        self._student, self._lesson = student, lesson
        self._body, self._score = _parts(student)
        self._teacher_body, self._teacher_score = _parts(lesson.teacher)
        self._teacher_body.eval()
        self._text, self._accelerator = text, accelerator
        self._parameters = [p for p in student.parameters() if p.requires_grad]

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, over all workers."""
        return self._text.tokens

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step to the student's.

        The scores' gradients come together at the hidden states, and go through the rest of the
        student at once.

        Returns:
            Cross-entropy and KL(teacher ‖ student), unweighted, in nats, `[2]`: means over the
            chosen tokens of all workers.
        """
        batch = self._text.batch(step, self._accelerator)
        device, precision = batch.labels.device, self._lesson.precision
        with torch.no_grad(), autocast(device, precision):
            wanted_ND = _hidden(self._teacher_body, batch)
        self._student.train()  # an evaluation may have been in between
        with own_chance(self._accelerator, seed=self._text.seed, step=step):
            with autocast(device, precision):
                found_ND = _hidden(self._body, batch)
            hidden_ND = found_ND.detach().requires_grad_()
            losses = self._learn(hidden_ND, wanted_ND, batch)
        torch.autograd.backward(found_ND, hidden_ND.grad)
        average_gradients(self._parameters, self._accelerator)
        return mean_over_workers(losses, self._accelerator)

    def _learn(self, hidden_ND: Tensor, wanted_ND: Tensor, batch: MaskedBatch) -> Tensor:
        """Adds the gradients of head and hidden states; returns both losses."""
        device, weight = hidden_ND.device, self._lesson.weight
        weights = torch.tensor([1 - weight, weight], device=device)
        total = torch.zeros(2, device=device)
        for part, share in _portions(batch):
            with autocast(device, self._lesson.precision):
                logits_NV = self._score(hidden_ND[part])
                with torch.no_grad():
                    wanted_NV = self._teacher_score(wanted_ND[part])
            both = torch.stack(
                [
                    label_cross_entropy(logits_NV, batch.labels[part]),
                    kl_teacher_student(logits_NV, wanted_NV),
                ]
            )
            (share * both @ weights).backward()
            total += share * both.detach()
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class MlmScore:
    """How well masked words of held-out text are told.

    Attributes:
        accuracy_fraction: Of the chosen tokens, 0..1.
        cross_entropy_nats: Mean over the chosen tokens.
        chosen_count: Chosen tokens.
    """

    accuracy_fraction: float
    cross_entropy_nats: float
    chosen_count: int


@torch.no_grad()
def held_out_mlm(
    network: MlmNetwork,
    corpus: PackedSet,
    masker: Masker,
    *,
    batch_size: int = 32,
    precision: Precision = "float32",
    on_progress: Callable[[float], None] | None = None,
) -> MlmScore:
    """Scores a teacher or a student on held-out text.

    Each sequence has masks of its own, which depend on neither the network nor the batch size.

    Args:
        network: Computed where it is; left in evaluation mode.
        corpus: Held-out sequences; all are read.
        masker: Hides tokens.
        batch_size: Sequences at a time.
        precision: Arithmetic of the matrix products.
        on_progress: Told the finished fraction, 0..1.

    Raises:
        TeacherError: If a teacher has no head.
    """
    model = _model(network)
    body, score = _parts(network)
    model.eval()
    right, loss, count = 0, 0.0, 0
    for start in range(0, len(corpus), batch_size):
        indices = np.arange(start, min(start + batch_size, len(corpus)))
        batch = _held_out_batch(corpus, masker, indices, model.device)
        with autocast(model.device, precision):
            hidden_ND = _hidden(body, batch)
        for part, _ in _portions(batch):
            with autocast(model.device, precision):
                logits_NV = score(hidden_ND[part])
            labels_N = batch.labels[part]
            right += int((logits_NV.argmax(dim=-1) == labels_N).sum())
            loss += label_cross_entropy(logits_NV, labels_N).item() * len(labels_N)
            count += len(labels_N)
        if on_progress is not None:
            on_progress((start + len(indices)) / len(corpus))
    return MlmScore(
        accuracy_fraction=right / max(count, 1),
        cross_entropy_nats=loss / max(count, 1),
        chosen_count=count,
    )


def hidden_tokens(corpus: PackedSet, masker: Masker) -> list[int]:
    """Lists the tokens of held-out text that `held_out_mlm` hides."""
    found: list[int] = []
    for index in range(len(corpus)):
        _, labels_1T = masker.mask(corpus.batch([index]), seed=HELD_OUT_SEED, step=index)
        found += labels_1T[labels_1T != NO_CLASS].tolist()
    return found


def _model(network: MlmNetwork) -> PreTrainedModel:
    if isinstance(network, BorrowedHead):
        return network.student
    return network.encoder.model if isinstance(network, MlmTeacher) else network


def _parts(network: MlmNetwork) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Tells a network's encoder, and what scores words at its last hidden states."""
    if isinstance(network, BorrowedHead):
        return network.student.base_model, network.score
    if not isinstance(network, MlmTeacher):
        return network.base_model, partial(mlm_logits, network)
    if network.head is None:
        raise TeacherError(
            f"{network.encoder.name!r} has no head for masked words; train one on its encoder first"
        )
    return network.encoder.model, network.head


def _hidden(body: nn.Module, batch: MaskedBatch) -> Tensor:
    """Computes the last hidden states at the chosen tokens."""
    output = body(input_ids=batch.input_ids, attention_mask=batch.mask)
    hidden_ND: Tensor = output.last_hidden_state.flatten(0, 1)[batch.places]
    return hidden_ND


def _portions(batch: MaskedBatch) -> Iterator[tuple[slice, float]]:
    """Cuts the chosen tokens; with what a portion's mean counts in that of the step.

    There is at least one portion, so that even a worker without any token has gradients.
    """
    count = len(batch.labels)
    for start in range(0, max(count, 1), TOKENS_AT_ONCE):
        size = min(TOKENS_AT_ONCE, count - start)
        yield slice(start, start + size), batch.weight_fraction * size / max(count, 1)


def _held_out_batch(
    corpus: PackedSet, masker: Masker, indices: NDArray[np.int64], device: torch.device
) -> MaskedBatch:
    rows = zip(corpus.batch(indices), indices, strict=True)
    pairs = [masker.mask(row[None], seed=HELD_OUT_SEED, step=int(index)) for row, index in rows]
    ids_BT, labels_BT = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return _on_device(ids_BT, labels_BT, _mask_where_padded(corpus, indices), device)


def _mask_where_padded(corpus: PackedSet, indices: NDArray[np.int64]) -> NDArray[np.int32] | None:
    """Attention without a mask is the faster."""
    return None if corpus.used_length == corpus.length else corpus.attention_mask(indices)


def _on_device(
    ids_BT: NDArray[np.int32],
    labels_BT: NDArray[np.int64],
    mask_BT: NDArray[np.int32] | None,
    device: torch.device,
    *,
    weight_fraction: float = 1.0,
) -> MaskedBatch:
    (places_N,) = np.nonzero(labels_BT.reshape(-1) != NO_CLASS)
    return MaskedBatch(
        input_ids=torch.from_numpy(ids_BT).long().to(device),
        mask=None if mask_BT is None else torch.from_numpy(mask_BT).long().to(device),
        places=torch.from_numpy(places_N).to(device),
        labels=torch.from_numpy(labels_BT.reshape(-1)[places_N]).to(device),
        weight_fraction=weight_fraction,
    )
