"""Losses as pure functions; argument order is student, teacher, mask.

Arithmetic is in float32, the teacher is detached inside, sums are divided by the number of kept
items, and an empty mask gives 0.

Letters in names: B batch, T tokens, D hidden, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

IGNORED_LABEL = -100
"""Class of an example that has no label."""


def kl_teacher_student(
    student_BC: Tensor, teacher_BC: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Divergence KL(teacher ‖ student) of softened class distributions, times temperature².

    Args:
        student_BC: Student logits.
        teacher_BC: Teacher logits.
        temperature: Divides both logits, > 0; the factor temperature² keeps the gradient's scale.

    Returns:
        Mean over examples, in nats; 0 where both distributions agree.

    Source: Hinton et al. 2015, section 2.
    """
    student_log_BC = F.log_softmax(student_BC.float() / temperature, dim=-1)
    teacher_log_BC = F.log_softmax(teacher_BC.detach().float() / temperature, dim=-1)
    divergence_B = F.kl_div(student_log_BC, teacher_log_BC, log_target=True, reduction="none").sum(
        dim=-1
    )
    return divergence_B.sum() / max(divergence_B.numel(), 1) * temperature**2


def binary_kl_teacher_student(
    student_BC: Tensor, teacher_BC: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Divergence KL(teacher ‖ student) of each class's yes and no, times temperature².

    Args:
        student_BC: Student logits of independent classes.
        teacher_BC: Teacher logits.
        temperature: Divides both logits, > 0; the factor temperature² keeps the gradient's scale.

    Returns:
        Mean over examples and classes, in nats; 0 where all probabilities agree.

    Source: Yang et al. 2023, "Multi-Label Knowledge Distillation", its multi-label logits
    distillation. There classes are summed, which would let the loss grow with their number, and
    there is no temperature.
    """
    student_BC = student_BC.float() / temperature
    teacher_BC = teacher_BC.detach().float() / temperature
    yes_BC = F.logsigmoid(teacher_BC) - F.logsigmoid(student_BC)
    no_BC = F.logsigmoid(-teacher_BC) - F.logsigmoid(-student_BC)
    divergence_BC = torch.sigmoid(teacher_BC) * yes_BC + torch.sigmoid(-teacher_BC) * no_BC
    return divergence_BC.sum() / max(divergence_BC.numel(), 1) * temperature**2


def output_mse(student_BC: Tensor, teacher_BC: Tensor) -> Tensor:
    """Mean squared difference of outputs: the logit loss of a regression task."""
    squared_BC = (student_BC.float() - teacher_BC.detach().float()).square()
    return squared_BC.sum() / max(squared_BC.numel(), 1)


def hidden_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared difference of hidden states over real tokens and features.

    Args:
        student_BTD: Student states, already projected to the teacher's width.
        teacher_BTD: Teacher states.
        mask_BT: 1 at real tokens, 0 at padding.
    """
    squared_BT = (student_BTD.float() - teacher_BTD.detach().float()).square().mean(dim=-1)
    kept_BT = mask_BT.to(squared_BT.dtype)
    # Chosen, not multiplied: padding may hold anything, NaN included.
    summed = torch.where(kept_BT > 0, squared_BT, 0.0).sum()
    return summed / kept_BT.sum().clamp(min=1)


def label_cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with gold classes, in nats; examples of class `IGNORED_LABEL` do not count."""
    kept_B = labels_B != IGNORED_LABEL
    summed = F.cross_entropy(
        logits_BC.float(), labels_B, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return summed / kept_B.sum().clamp(min=1)


def label_binary_cross_entropy(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """Cross-entropy of each class's yes and no, in nats; examples with a NaN label do not count.

    Args:
        logits_BC: Logits of independent classes.
        labels_BC: 1 at the classes of an example, else 0.

    Returns:
        Mean over the kept examples and classes.
    """
    kept_B = ~torch.isnan(labels_BC).any(dim=-1)
    entropy_BC = F.binary_cross_entropy_with_logits(
        logits_BC.float(), torch.nan_to_num(labels_BC.float()), reduction="none"
    )
    # Chosen, not multiplied: logits of examples that do not count may be anything.
    summed = torch.where(kept_B, entropy_BC.mean(dim=-1), 0.0).sum()
    return summed / kept_B.sum().clamp(min=1)


def label_mse(outputs_B1: Tensor, labels_B: Tensor) -> Tensor:
    """Mean squared error to gold scores; examples whose score is NaN do not count."""
    kept_B = ~torch.isnan(labels_B)
    error_B = outputs_B1.float().squeeze(-1) - torch.nan_to_num(labels_B.float())
    return (error_B.square() * kept_B).sum() / kept_B.sum().clamp(min=1)
