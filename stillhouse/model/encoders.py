"""Bare encoders: what a network is before it has a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import anatomy_of, layered_anatomy_of
from stillhouse.model.teachers import fresh_weights, load_tokenizer, refuse_fresh_encoder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.model.anatomy import LayeredAnatomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """A loaded encoder without a head.

    Attributes:
        name: Hub id or folder.
        model: The network, in float32.
        tokenizer: The tokeniser of its inputs.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load_encoder(name: str) -> Encoder:
    """Loads an encoder from the hub or from a folder; a head that it has is left out.

    Raises:
        TeacherError: If nothing can be loaded from `name`, its family is not supported, its weights
            are not those of its configuration, or it has no tokeniser.
    """
    try:
        anatomy_of(AutoConfig.from_pretrained(name))
        model, info = AutoModel.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TeacherError(
            f"no encoder can be loaded from {name!r}: {reason}. Give a folder with config.json and "
            "weights, or a hub id"
        ) from error
    refuse_fresh_encoder(name, model, fresh_weights(info))
    return Encoder(name=name, model=model.eval(), tokenizer=load_tokenizer(name))


def build_encoder(config: PreTrainedConfig, *, seed: int) -> PreTrainedModel:
    """Builds an encoder with fresh weights, without touching the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModel.from_config(config)
    return model


def bare_anatomy(config: PreTrainedConfig) -> LayeredAnatomy:
    """Returns the anatomy of a family with paths from the bare encoder, not from a classifier.

    The paths of the head stay as they are: they lead nowhere in a bare encoder.

    Raises:
        TeacherError: If the family is that of chains, of which nothing is cut.
    """
    anatomy = layered_anatomy_of(config)
    projection = anatomy.factored_projection
    return replace(
        anatomy,
        embeddings=_without_base(anatomy.embeddings),
        factored_projection=None if projection is None else _without_base(projection),
        layers=_without_base(anatomy.layers),
    )


def _without_base(path: str) -> str:
    return path.partition(".")[2]
