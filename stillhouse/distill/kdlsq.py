"""How a quantised student learns from the full-precision model that it was made of.

Student and teacher have the same layers, so every layer is compared with its own.

Letters in names: B batch, T tokens, C classes; a 2 stands for start and end of an answer.

Source: KDLSQ-BERT (Jin et al., arXiv 2101.05938), all three losses at once, with weight 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

import torch
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from stillhouse.data.encoding import NO_CLASS
from stillhouse.distill.layer_maps import LayerLink, layer_links
from stillhouse.distill.signals import EMBEDDINGS
from stillhouse.distill.steps import Part
from stillhouse.distill.terms import AttentionTerm, HiddenTerm, LabelTerm, Term
from stillhouse.model.lsq import activation_clips, weight_clips

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn
    from transformers import PreTrainedConfig

    from stillhouse.data.batching import Batch
    from stillhouse.data.metric_names import TaskKind
    from stillhouse.distill.signals import Signals

SPAN_FACTOR = 100.0
"""Of the loss of answers' places, each of which is divided by the number of tokens."""
WEIGHT_CLIP_RATE = 1e-3
WEIGHT_CLIP_DECAY = 2e-5
ACTIVATION_CLIP_RATE = 3e-2
ACTIVATION_CLIP_DECAY = 1e-4
"""Of AdamW; the rates are peaks, and fall with that of the weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTargetTerm:
    """The teacher's probabilities as targets, divided by the number of classes as well.

    Of questions it is 100 times the sum over start and end, divided by the tokens of all examples.
    Scores have no probabilities: their gold labels are the targets, see `kdlsq_terms`.
    """

    kind: TaskKind
    weight: float = 1.0
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
                return soft_cross_entropy(*outputs)
            case "multi_label":
                return soft_binary_cross_entropy(*outputs)
            case "tags":
                assert batch.labels is not None
                asked_BT = batch.labels != NO_CLASS
                return soft_cross_entropy(*(logits[asked_BT] for logits in outputs))
            case "spans":
                return SPAN_FACTOR * soft_span_cross_entropy(*outputs, batch.attention_mask)
            case "scores":
                raise AssertionError("scores have no probabilities")
            case _:
                assert_never(self.kind)


def soft_cross_entropy(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Mean of −teacher probability · log student probability over examples *and* classes, in nats.

    It is the entropy of the teacher, divided by C, where both agree.
    """
    log_BC = F.log_softmax(student_BC.float(), dim=-1)
    entropy_BC = -F.softmax(teacher_BC.detach().float(), dim=-1) * log_BC
    return entropy_BC.sum() / max(entropy_BC.numel(), 1)


def soft_binary_cross_entropy(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """The same of each class's yes and no: mean over examples and classes, in nats.

    Ours: KDLSQ-BERT has no task of several labels.
    """
    target_BC = teacher_BC.detach().float().sigmoid()
    summed = F.binary_cross_entropy_with_logits(student_BC.float(), target_BC, reduction="sum")
    return summed / max(target_BC.numel(), 1)


def soft_span_cross_entropy(student_BT2: Tensor, teacher_BT2: Tensor, mask_BT: Tensor) -> Tensor:
    """Cross-entropy of where answers start plus that of where they end, a token, in nats.

    Args:
        student_BT2: Student logits of every token's being first and last.
        teacher_BT2: Teacher logits.
        mask_BT: 1 at real tokens; others have no probability.

    Returns:
        The sum over examples, start and end, divided by the number of real tokens. KDLSQ-BERT lets
        padding have probability, and divides by all tokens, padding included.
    """
    real_BT1 = mask_BT.bool()[..., None]
    student_log_BT2, teacher_log_BT2 = (
        F.log_softmax(logits.float().masked_fill(~real_BT1, -torch.inf), dim=1)
        for logits in (student_BT2, teacher_BT2.detach())
    )
    # At padding 0 · −inf is no number.
    entropy_BT2 = -teacher_log_BT2.exp() * student_log_BT2.masked_fill(~real_BT1, 0.0)
    return entropy_BT2.nan_to_num(0.0).sum() / real_BT1.sum().clamp(min=1)


def kdlsq_terms(config: PreTrainedConfig, *, kind: TaskKind, label_weight: float) -> list[Term]:
    """Builds the objective: outputs, attention, hidden states and, if it has a weight, labels.

    Attention and hidden states, the embeddings' included, are compared layer by layer, and the
    mean squared differences of all layers are added up. Each is a mean over real tokens; in
    KDLSQ-BERT padding counts as well, with attention of 0 on both sides.

    Args:
        config: Of student and teacher.
        kind: What the task's labels are.
        label_weight: Of the loss of gold labels; 1 is what its code calls `new_kd`. Of scores it is
            in the objective in any case, in place of the teacher's.
    """
    layers = layer_links("uniform", config.num_hidden_layers, config.num_hidden_layers)
    embeddings = LayerLink(student=EMBEDDINGS, teacher=(EMBEDDINGS,))
    outputs: Term = SoftTargetTerm(kind=kind)
    if kind == "scores":
        outputs = LabelTerm(kind=kind)
    terms: list[Term] = [
        outputs,
        AttentionTerm(links=layers, weight=1.0, summed=True),
        HiddenTerm(
            links=(embeddings, *layers),
            student_hidden=config.hidden_size,
            teacher_hidden=config.hidden_size,
            weight=1.0,
            seed=0,  # of a projection that equal widths do without
            summed=True,
        ),
    ]
    if label_weight:
        terms.append(LabelTerm(weight=label_weight, kind=kind))
    return terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peaks of the learning rates of a quantised model.

    Attributes:
        weights: Of everything that is no clip.
        weight_clips: Of the clips of weights.
        activation_clips: Of the clips of activations.
        weight_clip_decay: AdamW's weight decay on the former.
        activation_clip_decay: That on the latter.
    """

    weights: float
    weight_clips: float
    activation_clips: float
    weight_clip_decay: float = WEIGHT_CLIP_DECAY
    activation_clip_decay: float = ACTIVATION_CLIP_DECAY


def rated_parts(rates: Rates) -> Callable[[nn.Module], Sequence[Part]]:
    """Returns what shares a quantised model's parameters out among the rates.

    The schedule's rate is that of the weights; clips have a constant multiple of it.
    """

    def share_out(modules: nn.Module) -> Sequence[Part]:
        of_weights = list(weight_clips(modules).values())
        of_activations = list(activation_clips(modules).values())
        clips = {id(clip) for clip in (*of_weights, *of_activations)}
        rest = [p for p in modules.parameters() if p.requires_grad and id(p) not in clips]
        return [
            Part(parameters=rest, multiplier=lambda _: 1.0),
            Part(
                parameters=of_weights,
                multiplier=lambda _: rates.weight_clips / rates.weights,
                weight_decay=rates.weight_clip_decay,
            ),
            Part(
                parameters=of_activations,
                multiplier=lambda _: rates.activation_clips / rates.weights,
                weight_decay=rates.activation_clip_decay,
            ),
        ]

    return share_out
