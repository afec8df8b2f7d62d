"""Losses as pure functions; argument order is student, teacher, mask.

Arithmetic is in float32, the teacher is detached inside, sums are divided by the number of kept
items, and an empty mask gives 0.

Letters in names: B batch, T tokens (queries), S tokens (keys), D hidden, H heads, C classes; a 2
stands for start and end of an answer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from stillhouse.distill.attention import attention_rule

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


def token_kl_teacher_student(
    student_BTC: Tensor, teacher_BTC: Tensor, mask_BT: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Divergence KL(teacher ‖ student) of the class distributions of tokens, times temperature².

    Args:
        student_BTC: Student logits.
        teacher_BTC: Teacher logits.
        mask_BT: True (1) at the tokens that count.
        temperature: Divides both logits, > 0; the factor temperature² keeps the gradient's scale.

    Returns:
        Mean over the tokens that count, in nats; 0 where both distributions agree.

    Source: Hinton et al. 2015, section 2, for each token.
    """
    kept_BT = mask_BT.bool()
    return kl_teacher_student(student_BTC[kept_BT], teacher_BTC[kept_BT], temperature=temperature)


def span_kl_teacher_student(
    student_BT2: Tensor, teacher_BT2: Tensor, mask_BT: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Divergence KL(teacher ‖ student) of where an answer starts and where it ends.

    Args:
        student_BT2: Student logits of every token's being first and last.
        teacher_BT2: Teacher logits.
        mask_BT: True (1) at real tokens; others have no probability.
        temperature: Divides both logits, > 0; the loss is multiplied by its square.

    Returns:
        Mean over examples with a real token, and over start and end, in nats; 0 where the
        distributions agree.

    Source: Hinton et al. 2015, section 2; DistilBERT's run_squad_w_distillation.py, which lets
    padding have probability as well.
    """
    student_log_BT2, teacher_log_BT2 = (
        # At padding both are -inf, whose difference is no number.
        _log_softmax_of_tokens(logits / temperature, mask_BT).masked_fill(_padding(mask_BT), 0.0)
        for logits in (student_BT2.float(), teacher_BT2.detach().float())
    )
    divergence_BT2 = teacher_log_BT2.exp() * (teacher_log_BT2 - student_log_BT2)
    kept = mask_BT.bool().any(dim=-1).sum().clamp(min=1)
    return divergence_BT2.sum() / (2 * kept) * temperature**2


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


def attention_mse(student_BHTS: Tensor, teacher_BHTS: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared difference of attention before its softmax, over heads and real tokens.

    Args:
        student_BHTS: Student scores.
        teacher_BHTS: Teacher scores; where the numbers of heads differ, `attention_rule`, the means
            over all heads are compared.
        mask_BT: 1 at real tokens, 0 at padding, which counts neither as query nor as key.

    Source: TinyBERT (Jiao et al. 2020), equation 7. Its code sets the scores of padded keys to 0 on
    both sides and divides by all entries, padding included. Other numbers of heads are undefined
    there; their mean is ours.
    """
    student_BHTS, teacher_BHTS = student_BHTS.float(), teacher_BHTS.detach().float()
    if attention_rule(student_BHTS.shape[1], teacher_BHTS.shape[1]) == "mean_over_heads":
        student_BHTS, teacher_BHTS = (
            each.mean(dim=1, keepdim=True) for each in (student_BHTS, teacher_BHTS)
        )
    squared_BTS = (student_BHTS - teacher_BHTS).square().mean(dim=1)
    real_BT = mask_BT > 0
    real_BTS = real_BT[:, :, None] & real_BT[:, None, :]
    return torch.where(real_BTS, squared_BTS, 0.0).sum() / real_BTS.sum().clamp(min=1)


def label_cross_entropy(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Cross-entropy with gold classes, in nats; examples of class `IGNORED_LABEL` do not count."""
    kept_B = labels_B != IGNORED_LABEL
    summed = F.cross_entropy(
        logits_BC.float(), labels_B, ignore_index=IGNORED_LABEL, reduction="sum"
    )
    return summed / kept_B.sum().clamp(min=1)


def tag_cross_entropy(logits_BTC: Tensor, tags_BT: Tensor) -> Tensor:
    """Cross-entropy with gold tags, in nats; tokens whose tag is below 0 do not count."""
    kept_BT = tags_BT >= 0
    return label_cross_entropy(logits_BTC[kept_BT], tags_BT[kept_BT])


def span_cross_entropy(logits_BT2: Tensor, places_B2: Tensor, mask_BT: Tensor) -> Tensor:
    """Cross-entropy with the first and the last token of gold answers, in nats.

    Args:
        logits_BT2: Logits of every token's being first and last.
        places_B2: First and last token; examples with `IGNORED_LABEL` twice do not count.
        mask_BT: True (1) at real tokens; others have no probability.

    Returns:
        Mean over the examples that count, and over start and end.

    Source: Devlin et al. 2019, BERT, section 4.2.
    """
    log_BT2 = _log_softmax_of_tokens(logits_BT2.float(), mask_BT)
    summed = F.nll_loss(log_BT2, places_B2, ignore_index=IGNORED_LABEL, reduction="sum")
    return summed / (places_B2 != IGNORED_LABEL).sum().clamp(min=1)


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


def _log_softmax_of_tokens(logits_BT2: Tensor, mask_BT: Tensor) -> Tensor:
    """Log-probabilities over the real tokens of an example; -inf at padding."""
    return F.log_softmax(logits_BT2.masked_fill(_padding(mask_BT), -torch.inf), dim=1)


def _padding(mask_BT: Tensor) -> Tensor:
    return ~mask_BT.bool()[..., None]
