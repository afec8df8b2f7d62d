"""Losses between a layer of a student and one of its teacher, as pure functions.

Argument order is student, teacher, mask. Arithmetic is in float32, the teacher is detached inside,
padding takes no part, and an empty mask gives 0. States of unlike widths are compared after a
projection of the student's to the teacher's width, which the caller applies.

Letters in names: B batch, T tokens (queries), S tokens (keys), D hidden, H heads, W width of a
projection, K width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  the name that everybody knows

from stillhouse.distill.attention import attention_rule, attention_scores
from stillhouse.distill.losses import hidden_mse
from stillhouse.errors import SettingsError

LossName: TypeAlias = Literal["feature", "attention", "mean", "variance"]
FeatureTarget: TypeAlias = Literal["normalised", "plain"]

NORM_EPS = 1e-12
"""What is added to variances before a division by their root; that of google-research/mobilebert.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferMix:
    """Weights of the losses of one layer; what has 0 is not computed.

    Attributes:
        feature: Of the layer's output.
        attention: Of its attention.
        mean: Of the mean over the features of each token.
        variance: Of their variance.
        feature_target: What of the output is compared: `normalised`, see `normalised_mse`, or
            `plain`, its mean squared difference.
        is_layer_mean: Whether the sum is divided by the number of student layers.
    """

    feature: float
    attention: float
    mean: float = 0.0
    variance: float = 0.0
    feature_target: FeatureTarget
    is_layer_mean: bool

    def __post_init__(self) -> None:
        """Refuses weights that teach nothing, or the contrary."""
        weights = [getattr(self, name) for name in get_args(LossName)]
        if not (all(0 <= weight < math.inf for weight in weights) and any(weights)):
            raise SettingsError(
                "weights of transfer losses must be finite, at least 0 and not all 0, but those of "
                f"{', '.join(get_args(LossName))} are {', '.join(f'{w:g}' for w in weights)}"
            )

    @property
    def weights(self) -> dict[LossName, float]:
        """Weights without those of 0, in the order of a step's losses."""
        return {name: getattr(self, name) for name in get_args(LossName) if getattr(self, name)}


MOBILEBERT_MIX = TransferMix(
    feature=100.0,
    attention=1.0,
    mean=5000.0,
    variance=5.0,
    feature_target="normalised",
    is_layer_mean=True,
)
"""Source: google-research/mobilebert. Its code compares a layer's means and variances with those of
all teacher layers together, by a slip; ours with those of the matching layer."""

EVEN_MIX = TransferMix(feature=0.5, attention=0.5, feature_target="plain", is_layer_mean=False)
"""Source: intel-extension-for-transformers, its flash distillation after AutoDistill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSignals:
    """What the losses read of one layer.

    Attributes:
        hidden_BTD: Its output.
        query_BTW: Queries, heads side by side.
        key_BTW: Keys.
        heads: Number of heads.
    """

    hidden_BTD: Tensor  # noqa: N815
    query_BTW: Tensor  # noqa: N815
    key_BTW: Tensor  # noqa: N815
    heads: int

    def scores(self) -> Tensor:
        """Computes the layer's attention before its softmax, `[B, H, T, S]`, in float32."""
        return attention_scores(self.query_BTW, self.key_BTW, heads=self.heads)


def transfer_losses(
    student: LayerSignals, teacher: LayerSignals, mask_BT: Tensor, mix: TransferMix
) -> Tensor:
    """Computes the losses that a mix names.

    Args:
        student: Its output is projected to the teacher's width already.
        teacher: The layer to learn from.
        mask_BT: 1 at real tokens, 0 at padding.
        mix: Which losses.

    Returns:
        Unweighted, in the order of `mix.weights`, `[N]`.
    """
    return torch.stack([_loss(name, student, teacher, mask_BT, mix) for name in mix.weights])


def _loss(
    name: LossName,
    student: LayerSignals,
    teacher: LayerSignals,
    mask_BT: Tensor,
    mix: TransferMix,
) -> Tensor:
    states = student.hidden_BTD, teacher.hidden_BTD, mask_BT
    match name:
        case "feature":
            is_plain = mix.feature_target == "plain"
            return hidden_mse(*states) if is_plain else normalised_mse(*states)
        case "attention":
            return attention_kl_teacher_student(student.scores(), teacher.scores(), mask_BT)
        case "mean":
            return token_mean_mse(*states)
        case "variance":
            return token_variance_gap(*states)
        case _:
            assert_never(name)


def normalised_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean squared difference of states, each token's normalised to mean 0 and variance 1.

    The mean is over real tokens and features.

    Args:
        student_BTD: Student states.
        teacher_BTD: Teacher states.
        mask_BT: 1 at real tokens, 0 at padding.

    Source: google-research/mobilebert, feature map transfer: LayerNorm without weight and bias on
    both sides takes out what `token_mean_mse` and `token_variance_gap` compare. Its mean is over
    padding, too.
    """
    student_BTD, teacher_BTD = (
        F.layer_norm(states_BTD, states_BTD.shape[-1:], eps=NORM_EPS)
        for states_BTD in _real(student_BTD, teacher_BTD, mask_BT)
    )
    return hidden_mse(student_BTD, teacher_BTD, mask_BT)


def token_mean_mse(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Squared difference of the means over a token's features, averaged over real tokens.

    Source: google-research/mobilebert.
    """
    student_BTD, teacher_BTD = _real(student_BTD, teacher_BTD, mask_BT)
    gap_BT = student_BTD.mean(dim=-1) - teacher_BTD.mean(dim=-1)
    return _mean(gap_BT.square(), mask_BT)


def token_variance_gap(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Absolute difference of the variances over a token's features, averaged over real tokens.

    The variance is that of the whole population: a sum over D is divided by D.

    Source: google-research/mobilebert.
    """
    student_BTD, teacher_BTD = _real(student_BTD, teacher_BTD, mask_BT)
    gap_BT = student_BTD.var(dim=-1, correction=0) - teacher_BTD.var(dim=-1, correction=0)
    return _mean(gap_BT.abs(), mask_BT)


def attention_kl_teacher_student(
    student_BHTS: Tensor, teacher_BHTS: Tensor, mask_BT: Tensor
) -> Tensor:
    """Divergence KL(teacher ‖ student) of where tokens attend to.

    Args:
        student_BHTS: Student attention before its softmax.
        teacher_BHTS: The same of the teacher, whose number of heads may differ; `attention_rule`
            tells what is compared then.
        mask_BT: 1 at real tokens, 0 at padding, which counts neither as query nor as key.

    Returns:
        Mean over examples, heads and real queries, in nats; 0 where both agree.

    Source: attention transfer of MobileBERT (Sun et al. 2020). Its code computes the cross-entropy,
    which is greater by the teacher's entropy, a constant for the student. Other numbers of heads
    are undefined there; their mean is ours.
    """
    real_BT = mask_BT > 0
    real_B1TS = (real_BT[:, :, None] & real_BT[:, None, :])[:, None]
    student_log, teacher_log = (
        # A number, not -∞, of which differences would be NaN. Queries of padding are equal then.
        scores.float().masked_fill(~real_B1TS, torch.finfo(torch.float32).min).log_softmax(dim=-1)
        for scores in (student_BHTS, teacher_BHTS.detach())
    )
    if attention_rule(student_BHTS.shape[1], teacher_BHTS.shape[1]) == "mean_over_heads":
        student_log, teacher_log = (
            each.logsumexp(dim=1, keepdim=True) - math.log(each.shape[1])
            for each in (student_log, teacher_log)
        )
    divergence_BHT = F.kl_div(student_log, teacher_log, log_target=True, reduction="none").sum(-1)
    return _mean(divergence_BHT.mean(dim=1), mask_BT)


def _real(student_BTD: Tensor, teacher_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both in float32, with 0 at padding, which may hold anything, NaN included."""
    real_BT1 = (mask_BT > 0)[:, :, None]
    return (
        torch.where(real_BT1, student_BTD.float(), 0.0),
        torch.where(real_BT1, teacher_BTD.detach().float(), 0.0),
    )


def _mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Averages over real tokens; 0 where there is none."""
    real_BT = mask_BT > 0
    return torch.where(real_BT, values_BT, 0.0).sum() / real_BT.sum().clamp(min=1)
