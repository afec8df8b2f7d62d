"""Terms: a loss, its weight, and the signals that it reads. A training objective is their sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, assert_never

import torch
from torch import Tensor, nn

from stillhouse.data.encoding import NO_CLASS
from stillhouse.distill.losses import (
    attention_mse,
    binary_kl_teacher_student,
    hidden_mse,
    kl_teacher_student,
    label_binary_cross_entropy,
    label_cross_entropy,
    label_mse,
    output_mse,
    span_cross_entropy,
    span_kl_teacher_student,
    tag_cross_entropy,
    token_kl_teacher_student,
)

if TYPE_CHECKING:
    from stillhouse.data.batching import Batch
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.distill.layer_maps import LayerLink
    from stillhouse.distill.signals import Signals


class Term(Protocol):
    """One weighted part of a training objective."""

    @property
    def weight(self) -> float:
        """Factor of the loss in the sum."""
        ...

    @property
    def student_layers(self) -> frozenset[int]:
        """Student layers whose hidden states the loss reads (0-based, or `EMBEDDINGS`)."""
        ...

    @property
    def teacher_layers(self) -> frozenset[int]:
        """Teacher layers whose hidden states the loss reads (0-based, or `EMBEDDINGS`)."""
        ...

    @property
    def student_attention(self) -> frozenset[int]:
        """Student layers whose queries and keys the loss reads (0-based)."""
        ...

    @property
    def teacher_attention(self) -> frozenset[int]:
        """Teacher layers whose queries and keys the loss reads (0-based)."""
        ...

    @property
    def reads_teacher(self) -> bool:
        """Whether the loss needs the teacher at all."""
        ...

    @property
    def projection(self) -> nn.Module | None:
        """Weights that are trained with the student and thrown away after."""
        ...

    def __call__(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:
        """Returns the unweighted loss of one batch as a float32 scalar."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTerm:
    """What gold labels teach.

    Cross-entropy with gold classes, alone or class by class, with the tags of words, or with start
    and end of an answer; or squared error to gold scores.
    """

    weight: float = 1.0
    kind: TaskKind = "classes"
    student_layers: frozenset[int] = frozenset()
    teacher_layers: frozenset[int] = frozenset()
    student_attention: frozenset[int] = frozenset()
    teacher_attention: frozenset[int] = frozenset()
    reads_teacher: bool = False
    projection: None = None

    def __call__(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:  # noqa: D102, ARG002
        assert batch.labels is not None
        match self.kind:
            case "classes":
                return label_cross_entropy(student.logits, batch.labels)
            case "multi_label":
                return label_binary_cross_entropy(student.logits, batch.labels)
            case "scores":
                return label_mse(student.logits, batch.labels)
            case "tags":
                return tag_cross_entropy(student.logits, batch.labels)
            case "spans":
                return span_cross_entropy(student.logits, batch.labels, batch.attention_mask)
            case _:
                assert_never(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitTerm:
    """The teacher's outputs: KL(teacher ‖ student), whole or class by class, or squared difference.

    The last is for the scores of a regression. Tokens count that a tag is asked of, known or not;
    of questions the distributions of an answer's start and end over the real tokens.
    """

    weight: float = 1.0
    temperature: float = 1.0
    kind: TaskKind = "classes"
    student_layers: frozenset[int] = frozenset()
    teacher_layers: frozenset[int] = frozenset()
    student_attention: frozenset[int] = frozenset()
    teacher_attention: frozenset[int] = frozenset()
    reads_teacher: bool = True
    projection: None = None

    def __call__(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:  # noqa: D102
        assert teacher is not None
        outputs = student.logits, teacher.logits
        match self.kind:
            case "classes":
                return kl_teacher_student(*outputs, temperature=self.temperature)
            case "multi_label":
                return binary_kl_teacher_student(*outputs, temperature=self.temperature)
            case "scores":
                return output_mse(*outputs)
            case "tags":
                assert batch.labels is not None
                asked_BT = batch.labels != NO_CLASS
                return token_kl_teacher_student(*outputs, asked_BT, temperature=self.temperature)
            case "spans":
                mask_BT = batch.attention_mask
                return span_kl_teacher_student(*outputs, mask_BT, temperature=self.temperature)
            case _:
                assert_never(self.kind)


class HiddenTerm:
    """Hidden states of linked layers: mean squared difference after one shared projection.

    The projection maps the student's width to that of the linked teacher states, concatenated; it
    is left out where the widths agree.
    """

    reads_teacher = True
    student_attention: frozenset[int] = frozenset()
    teacher_attention: frozenset[int] = frozenset()

    def __init__(
        self,
        *,
        links: tuple[LayerLink, ...],
        student_hidden: int,
        teacher_hidden: int,
        weight: float,
        seed: int,
        summed: bool = False,
    ) -> None:
        """Makes the projection.

        Args:
            links: The layer map; every link has the same number of teacher layers.
            student_hidden: Width of the student.
            teacher_hidden: Width of the teacher.
            weight: Factor in the objective.
            seed: First weights of the projection.
            summed: Whether the losses of the links are added, instead of averaged.
        """
        self._summed = summed
        self.weight = weight
        self.links = links
        self.student_layers = frozenset(link.student for link in links)
        self.teacher_layers = frozenset(layer for link in links for layer in link.teacher)
        width = teacher_hidden * len(links[0].teacher)
        self.projection: nn.Module | None = None
        if width != student_hidden:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.projection = nn.Linear(student_hidden, width)

    def __call__(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:  # noqa: D102
        assert teacher is not None
        losses = []
        for link in self.links:
            student_BTD = student.hidden_BTD[link.student]
            if self.projection is not None:
                student_BTD = self.projection(student_BTD)
            # A cache gives float16, which autocast to bfloat16 refuses to join.
            states = [teacher.hidden_BTD[layer].float() for layer in link.teacher]
            teacher_BTD = torch.cat(states, dim=-1)
            losses.append(hidden_mse(student_BTD, teacher_BTD, batch.attention_mask))
        return _joined(losses, summed=self._summed)


class AttentionTerm:
    """Attention of linked layers before its softmax: mean squared difference.

    Source: TinyBERT (Jiao et al. 2020), equation 7.
    """

    reads_teacher = True
    projection: None = None
    student_layers: frozenset[int] = frozenset()
    teacher_layers: frozenset[int] = frozenset()

    def __init__(
        self, *, links: tuple[LayerLink, ...], weight: float, summed: bool = False
    ) -> None:
        """Keeps the layer map.

        Args:
            links: At least one; a student layer is compared with each of its teacher layers.
            weight: Factor in the objective.
            summed: Whether the losses of the links are added, instead of averaged.
        """
        self.weight = weight
        self.pairs = tuple((link.student, layer) for link in links for layer in link.teacher)
        self.student_attention = frozenset(ours for ours, _ in self.pairs)
        self.teacher_attention = frozenset(theirs for _, theirs in self.pairs)
        self._summed = summed

    def __call__(self, student: Signals, teacher: Signals | None, batch: Batch) -> Tensor:  # noqa: D102
        assert teacher is not None
        losses = [
            attention_mse(
                student.attention[ours].scores(),
                teacher.attention[theirs].scores(),
                batch.attention_mask,
            )
            for ours, theirs in self.pairs
        ]
        return _joined(losses, summed=self._summed)


def _joined(losses: list[Tensor], *, summed: bool) -> Tensor:
    stacked = torch.stack(losses)
    return stacked.sum() if summed else stacked.mean()
