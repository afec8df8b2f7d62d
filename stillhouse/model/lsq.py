"""Models whose weights and activations are quantised with learnt clips, as they are trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig
from transformers.utils.hub import cached_file

from stillhouse.errors import SettingsError, TeacherError
from stillhouse.model.anatomy import (
    FAMILIES,
    LayeredAnatomy,
    anatomy_of,
    encoder_layers,
)
from stillhouse.model.heads import auto_class_of, head_named, head_of
from stillhouse.model.lsq_parts import (
    ACTIVATION_BITS,
    ATTENTION,
    SMALLEST_CLIP,
    QuantisedEmbedding,
    QuantisedLinear,
    unset_clip,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.model.lsq_parts import Observer, QuantisedPart

FEWEST_BITS, MOST_BITS = 2, 8
CONFIG_KEY = "stillhouse_quantisation"
"""Entry of a quantised model's configuration: `weight_bits` and `activation_bits`."""
WEIGHTS_FILE = "model.safetensors"


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
    attention.register_parameter("probability_clip", unset_clip(next(layer.parameters()).device))


def _quantise_linear(
    parent: nn.Module, path: str, weight_bits: int, *, has_output_clip: bool = False
) -> None:
    linear = parent.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    parent.set_submodule(
        path, QuantisedLinear.of(linear, weight_bits=weight_bits, has_output_clip=has_output_clip)
    )


def check_family(config: PreTrainedConfig) -> LayeredAnatomy:
    """Returns the anatomy of a family whose models can be quantised.

    Raises:
        TeacherError: If its layers are no plain ones, as those of chains and of MobileBERTs.
    """
    anatomy = anatomy_of(config)
    if isinstance(anatomy, LayeredAnatomy):
        return anatomy
    able = [name for name, one in FAMILIES.items() if isinstance(one, LayeredAnatomy)]
    raise TeacherError(
        f"a model of type {config.model_type!r} cannot be trained in few bits: its layers are no "
        f"plain ones; models of these types can: {', '.join(sorted(able))}"
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
        TeacherError: If there is none, or its configuration does not say that it is quantised, or
            is of other weights.
    """
    model = unfilled_model(folder)
    try:
        file = cached_file(str(folder), WEIGHTS_FILE)
        assert file is not None
        weights = load_file(file)
    except (OSError, ValueError, SafetensorError) as error:
        raise TeacherError(f"no weights in {str(folder)!r}: {error}") from error
    fill_quantised(model, weights, folder)
    return model


def fill_quantised(
    model: PreTrainedModel, weights: Mapping[str, Tensor], source: str | Path
) -> None:
    """Gives a quantised model the weights of a checkpoint, in place.

    Raises:
        TeacherError: If they are not those of its configuration.
    """
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise TeacherError(
            f"the weights in {str(source)!r} do not fit its config.json: {first[0].strip()} Give "
            "the config.json that they were saved with"
        ) from error


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
