"""Quantised parts of models: a projection, a table, and an attention function, with learnt clips.

A quantised tensor has 2^(bits−1) − 1 steps on either side of 0, the last of them at its clip. The
clip is a parameter like others: it moves with the gradient. What is computed are the quantised
numbers in floating point, so any device runs such a model, at the speed of floating point.

Letters in names: B batch, T tokens (queries), S tokens (keys), D hidden, H heads, K head size,
O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

ACTIVATION_BITS: Final = 8
SMALLEST_CLIP = 1e-8
ATTENTION = "lsq"
"""Name of the attention function with quantised probabilities."""

Observer: TypeAlias = Callable[[nn.Module, str, Tensor], None]
"""Told the module, the name of its clip, and the activation that is about to be quantised."""


class ClipQuantiser(torch.autograd.Function):
    """Rounds to the steps below a clip; the gradients pass straight through the rounding.

    The quantised value is an even function of the clip, so a clip that training pushes below 0
    acts as its absolute value, and its gradient follows that: no clip has to be held back.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, clip: Tensor, bits: int, passes_outside: bool) -> Tensor:  # noqa: D102, FBT001
        ctx.save_for_backward(values, clip)
        ctx.bits, ctx.passes_outside = bits, passes_outside
        height = clip.abs().clamp(min=SMALLEST_CLIP)
        codes = (values.float() / height).clamp(-1, 1).mul(levels_of(bits)).round()
        return (height * codes / levels_of(bits)).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: D102
        values, clip = ctx.saved_tensors
        levels = levels_of(ctx.bits)
        ratio = values.float() / clip.abs().clamp(min=SMALLEST_CLIP)
        inside = ratio.abs() <= 1
        rounded = ratio.mul(levels).round() / levels
        slope = torch.where(inside, rounded - ratio, ratio.sign())
        to_clip = (grad.float() * slope).sum() * torch.where(clip < 0, -1.0, 1.0)
        to_values = grad if ctx.passes_outside else torch.where(inside, grad, 0)
        return to_values, to_clip.to(clip.dtype), None, None


def levels_of(bits: int) -> int:
    """Returns the number of steps on either side of 0."""
    return int(2 ** (bits - 1) - 1)


def quantise(values: Tensor, clip: Tensor, bits: int, *, passes_outside: bool) -> Tensor:
    """Rounds values to α·k/Q with whole k from −Q to Q, Q = 2^(bits−1) − 1.

    Args:
        values: Any shape.
        clip: α, a scalar; its sign has no meaning.
        bits: At least 2, which leaves −α, 0 and α.
        passes_outside: Whether the gradient passes where |values| > α too, as it does for weights,
            which could not come back otherwise; for activations it is 0 there.

    Returns:
        Values of the same shape and type. The gradient of α is Σ gradient · (sign(v) where
        |v| > α, else q(v)/α − v/α).

    Source: KDLSQ-BERT (Jin et al., arXiv 2101.05938), section 3.1. LSQ (Esser et al. 2020) learns
    the step α/Q and scales its gradient by 1/√(N·Q); here α has a learning rate of its own instead.
    """
    found: Tensor = ClipQuantiser.apply(values, clip, bits, passes_outside)  # type: ignore[no-untyped-call]  # in torch
    return found


def quantise_activation(module: nn.Module, name: str, values: Tensor) -> Tensor:
    """Quantises an activation in 8 bits with a module's clip of that name."""
    observer: Observer | None = getattr(module, "observer", None)
    if observer is not None:
        observer(module, name, values)
    return quantise(values, getattr(module, name), ACTIVATION_BITS, passes_outside=False)


class QuantisedLinear(nn.Linear):
    """A projection of quantised activations by a quantised weight; its bias is not quantised.

    Attributes:
        weight_bits: Of the weight.
        weight_clip: Clip of the weight, a scalar.
        input_clip: Clip of the input.
        output_clip: Clip of the output, `None` where that is not quantised.
    """

    weight_bits: int
    weight_clip: nn.Parameter
    input_clip: nn.Parameter
    output_clip: nn.Parameter | None
    observer: Observer | None = None

    @classmethod
    def of(cls, linear: nn.Linear, *, weight_bits: int, has_output_clip: bool) -> QuantisedLinear:
        """Takes a projection's parameters over; its clips are not set yet."""
        made = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        made.weight, made.bias = linear.weight, linear.bias
        made.weight_bits = weight_bits
        device = linear.weight.device
        made.weight_clip, made.input_clip = unset_clip(device), unset_clip(device)
        made.output_clip = unset_clip(device) if has_output_clip else None
        return made

    def quantised_weight(self) -> Tensor:
        """Returns the weight that is computed with, `[O, D]`."""
        return quantise(self.weight, self.weight_clip, self.weight_bits, passes_outside=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102  its name in torch
        entered = quantise_activation(self, "input_clip", input)
        left = F.linear(entered, self.quantised_weight(), self.bias)
        return left if self.output_clip is None else quantise_activation(self, "output_clip", left)


class QuantisedEmbedding(nn.Embedding):
    """A table of quantised rows.

    Only the rows that are looked up are rounded: others get no gradient, and give the clip none.

    Attributes:
        weight_bits: Of the table.
        weight_clip: Its clip, a scalar.
    """

    weight_bits: int
    weight_clip: nn.Parameter

    @classmethod
    def of(cls, table: nn.Embedding, *, weight_bits: int) -> QuantisedEmbedding:
        """Takes a table's parameters over; its clip is not set yet."""
        made = cls(
            table.num_embeddings,
            table.embedding_dim,
            padding_idx=table.padding_idx,
            device="meta",
        )
        made.weight, made.weight_bits = table.weight, weight_bits
        made.weight_clip = unset_clip(table.weight.device)
        return made

    def quantised_weight(self) -> Tensor:
        """Returns the whole table as it is computed with."""
        return self.quantised(self.weight)

    def quantised(self, rows: Tensor) -> Tensor:
        """Rounds rows of the table, of any shape."""
        return quantise(rows, self.weight_clip, self.weight_bits, passes_outside=True)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102  its name in torch
        return self.quantised(super().forward(input))


QuantisedPart: TypeAlias = QuantisedLinear | QuantisedEmbedding


def lsq_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Attention whose probabilities are quantised before the product with the values.

    Args:
        module: Self-attention with a scalar `probability_clip`.
        query: `[B, H, T, K]`.
        key: `[B, H, S, K]`.
        value: `[B, H, S, K]`.
        attention_mask: Added to the scores, broadcast to `[B, H, T, S]`.
        scaling: Factor of the scores; 1/√K by default.
        dropout: Of the probabilities, 0..1.

    Returns:
        Context `[B, T, H, K]` and probabilities `[B, H, T, S]`, as transformers wants them.
    """
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores_BHTS = query @ key.transpose(-1, -2) * factor
    if attention_mask is not None:
        scores_BHTS = scores_BHTS + attention_mask
    attention_BHTS = F.dropout(scores_BHTS.softmax(dim=-1), dropout, training=module.training)
    attention_BHTS = quantise_activation(module, "probability_clip", attention_BHTS)
    return (attention_BHTS @ value).transpose(1, 2).contiguous(), attention_BHTS


AttentionInterface.register(ATTENTION, lsq_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


def unset_clip(device: torch.device) -> nn.Parameter:
    """Returns a clip that nothing has been told about: not a number."""
    return nn.Parameter(torch.tensor(torch.nan, device=device))
