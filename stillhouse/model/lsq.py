"""Models whose weights and activations are quantised with learnt clips, as they are trained.

A quantised tensor has 2^(bits−1) − 1 steps on either side of 0, the last of them at its clip. The
clip is a parameter like others: it moves with the gradient. What is computed are the quantised
numbers in floating point, so any device runs such a model, at the speed of floating point.

Letters in names: B batch, T tokens (queries), S tokens (keys), D hidden, H heads, K head size,
O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everybody knows
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig
from transformers.masking_utils import eager_mask
from transformers.utils.hub import cached_file

from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.anatomy import (
    FAMILIES,
    LayeredAnatomy,
    anatomy_of,
    encoder_layers,
)
from stillhouse.model.heads import auto_class_of, head_named, head_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FEWEST_BITS, MOST_BITS = 2, 8
ACTIVATION_BITS: Final = 8
SMALLEST_CLIP = 1e-8
ATTENTION = "lsq"
"""Name of the attention function with quantised probabilities."""
CONFIG_KEY = "stillhouse_quantisation"
"""Entry of a quantised model's configuration: `weight_bits` and `activation_bits`."""
WEIGHTS_FILE = "model.safetensors"
NO_ATTENTION_FUNCTION = "free_head_bert"

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
        made.weight_clip, made.input_clip = _unset(device), _unset(device)
        made.output_clip = _unset(device) if has_output_clip else None
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
        made.weight_clip = _unset(table.weight.device)
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


def quantise_model(model: PreTrainedModel, *, weight_bits: int) -> None:
    """Makes a model's projections, tables and attention quantised ones, in place.

    Word and position embeddings, the projections of all layers and the first one of a classifier's
    head are quantised; token types, norms, biases, the last projection onto outputs, and that of
    factored embeddings to the layers' width are not. No clip is set yet.

    Args:
        model: With a head for a task; all its parameters stay the objects that they are.
        weight_bits: Of all quantised weights, 2 to 8.

    Raises:
        SettingsError: If there are fewer or more bits.
        TeacherError: If the model's family cannot be quantised, or it is quantised already.

    Source: KDLSQ-BERT, which quantises the same. ELECTRA, whose factored embeddings need a
    projection, is not among its models.
    """
    if not FEWEST_BITS <= weight_bits <= MOST_BITS:
        raise SettingsError(
            f"weights are quantised to {FEWEST_BITS} to {MOST_BITS} bits, got {weight_bits}"
        )
    if is_quantised(model):
        raise TeacherError("the model is quantised already: take the one that it was made of")
    anatomy = check_family(model.config)
    tables = model.get_submodule(anatomy.embeddings)
    for name in ("word_embeddings", "position_embeddings"):
        table = tables.get_submodule(name)
        assert isinstance(table, nn.Embedding)
        setattr(tables, name, QuantisedEmbedding.of(table, weight_bits=weight_bits))
    for layer in encoder_layers(model):
        _quantise_layer(layer, anatomy, weight_bits)
    if head_of(model) == "classes":
        _quantise_linear(model, anatomy.head_projection, weight_bits)
    model.config.update(
        {CONFIG_KEY: {"weight_bits": weight_bits, "activation_bits": ACTIVATION_BITS}}
    )
    model.set_attn_implementation(ATTENTION)


def _quantise_layer(layer: nn.Module, anatomy: LayeredAnatomy, weight_bits: int) -> None:
    for path in (anatomy.query, anatomy.key, anatomy.value):
        _quantise_linear(layer, path, weight_bits, has_output_clip=True)
    for path in (anatomy.attention_output, anatomy.ffn_input, anatomy.ffn_output):
        _quantise_linear(layer, path, weight_bits)
    attention = layer.get_submodule(anatomy.query.rpartition(".")[0])
    attention.register_parameter("probability_clip", _unset(next(layer.parameters()).device))


def _quantise_linear(
    parent: nn.Module, path: str, weight_bits: int, *, has_output_clip: bool = False
) -> None:
    linear = parent.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    parent.set_submodule(
        path, QuantisedLinear.of(linear, weight_bits=weight_bits, has_output_clip=has_output_clip)
    )


def _unset(device: torch.device) -> nn.Parameter:
    """Returns a clip that nothing has been told about: not a number."""
    return nn.Parameter(torch.tensor(torch.nan, device=device))


def check_family(config: PreTrainedConfig) -> LayeredAnatomy:
    """Returns the anatomy of a family whose models can be quantised.

    Raises:
        TeacherError: If its attention goes through no function that could be another, or its
            layers are no plain ones.
    """
    anatomy = anatomy_of(config)
    if isinstance(anatomy, LayeredAnatomy) and config.model_type != NO_ATTENTION_FUNCTION:
        return anatomy
    able = [
        name
        for name, one in FAMILIES.items()
        if isinstance(one, LayeredAnatomy) and name != NO_ATTENTION_FUNCTION
    ]
    raise TeacherError(
        f"a model of type {config.model_type!r} cannot be trained in few bits: it has an attention "
        f"of its own; models of these types can: {', '.join(sorted(able))}"
    )


def quantised_parts(model: nn.Module) -> Mapping[str, QuantisedPart]:
    """Returns the modules with a quantised weight, by name, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantisedLinear | QuantisedEmbedding)
    }


def weight_clips(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Returns the clips of all weights, by name."""
    return _clips(model, "weight_clip")


def activation_clips(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Returns the clips of all activations, by name."""
    return _clips(model, "input_clip", "output_clip", "probability_clip")


def all_clips(model: nn.Module) -> Mapping[str, nn.Parameter]:
    """Returns the clips of all weights and activations, by name."""
    return {**weight_clips(model), **activation_clips(model)}


def _clips(model: nn.Module, *names: str) -> Mapping[str, nn.Parameter]:
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[2] in names
    }


@contextmanager
def observed(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Shows an observer each activation before it is quantised, for as long as the context lasts.

    The observer may set the clip that it is told of.
    """
    owners = {name.rpartition(".")[0] for name in activation_clips(model)}
    modules = [model.get_submodule(name) for name in owners]
    for module in modules:
        module.observer = observer  # type: ignore[assignment]  # no parameter, a plain attribute
    try:
        yield
    finally:
        for module in modules:
            del module.observer


def is_quantised(model: nn.Module) -> bool:
    """Tells whether a model computes with quantised weights."""
    return any(isinstance(m, QuantisedLinear | QuantisedEmbedding) for m in model.modules())


def told_bits(config: PreTrainedConfig) -> int | None:
    """Returns the bits of the weights that a configuration tells, `None` of a plain model."""
    entry = getattr(config, CONFIG_KEY, None)
    return None if entry is None else int(entry["weight_bits"])


@torch.no_grad()
def settle(model: PreTrainedModel) -> None:
    """Rounds all quantised weights for good, and makes clips positive; the outputs stay.

    What is saved then are the weights that the model computes with.
    """
    for part in quantised_parts(model).values():
        part.weight.copy_(part.quantised_weight())
    for clip in all_clips(model).values():
        clip.copy_(clip.abs().clamp(min=SMALLEST_CLIP))


def load_quantised(folder: str | Path) -> PreTrainedModel:
    """Loads a quantised model from a folder or from the hub.

    Raises:
        TeacherError: If there is none, or its configuration does not say that it is quantised.
    """
    model = unfilled_model(folder)
    try:
        file = cached_file(str(folder), WEIGHTS_FILE)
    except (OSError, ValueError) as error:
        raise TeacherError(f"no weights in {str(folder)!r}: {error}") from error
    assert file is not None
    model.load_state_dict(load_file(file))
    return model


def unfilled_model(folder: str | Path) -> PreTrainedModel:
    """Builds the quantised model that a checkpoint's configuration describes; its weights are any.

    Raises:
        TeacherError: If there is no configuration, or it does not say that it is quantised.
    """
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise TeacherError(f"no quantised model in {str(folder)!r}: {error}") from error
    bits = told_bits(config)
    if bits is None:
        raise TeacherError(
            f"{str(folder)!r} holds no quantised model: its config.json has no {CONFIG_KEY!r}"
        )
    delattr(config, CONFIG_KEY)
    head = head_named((config.architectures or [""])[0]) or "classes"
    model: PreTrainedModel = auto_class_of(head).from_config(config)
    quantise_model(model, weight_bits=bits)
    model.eval()
    return model
