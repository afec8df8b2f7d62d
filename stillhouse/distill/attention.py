"""Attention before its softmax, from the queries and keys of a layer.

Letters in names: B batch, T tokens (queries), S tokens (keys), H heads, W width of a projection,
K width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

AttentionRule: TypeAlias = Literal["each_head", "mean_over_heads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Queries and keys of one layer.

    Attributes:
        query_BTW: Queries, heads side by side.
        key_BTW: Keys.
        heads: Number of heads.
    """

    query_BTW: Tensor  # noqa: N815
    key_BTW: Tensor  # noqa: N815
    heads: int

    def scores(self) -> Tensor:
        """Computes the layer's attention before its softmax, `[B, H, T, S]`, in float32."""
        return attention_scores(self.query_BTW, self.key_BTW, heads=self.heads)


def attention_scores(query_BTW: Tensor, key_BTW: Tensor, *, heads: int) -> Tensor:
    """Computes attention before its softmax, Q Kᵀ/√K of each head, in float32.

    Args:
        query_BTW: Queries, heads side by side.
        key_BTW: Keys.
        heads: Number of heads, which divides the width.

    Returns:
        `[B, H, T, S]`.
    """
    with torch.autocast(query_BTW.device.type, enabled=False):
        query_BTHK, key_BSHK = (
            projected.float().unflatten(-1, (heads, -1)) for projected in (query_BTW, key_BTW)
        )
        scores_BHTS = torch.einsum("bthk,bshk->bhts", query_BTHK, key_BSHK)
        return scores_BHTS / math.sqrt(query_BTHK.shape[-1])


def attention_rule(student_heads: int, teacher_heads: int) -> AttentionRule:
    """Tells how the attention of a student is compared with that of its teacher.

    Returns:
        `each_head`, with the teacher's head of the same number; or, where the numbers of heads
        differ and so no head has a counterpart, `mean_over_heads`: the mean of all with that of the
        teacher's.
    """
    return "each_head" if student_heads == teacher_heads else "mean_over_heads"
