"""Checkpoints loaded with the head that they bring, whichever of the known ones it is."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import anatomy_of
from stillhouse.model.heads import auto_class_of, head_named
from stillhouse.model.lsq import load_quantised, told_bits
from stillhouse.model.teachers import (
    fresh_weights,
    load_model,
    load_tokenizer,
    refuse_fresh_encoder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.model.heads import TaskHead

HeadKind: TypeAlias = Literal["classifier", "tagger", "reader", "masked words", "encoder"]
"""A tagger names every word, a reader marks the part of a passage that answers a question."""

OF_TASKS: dict[TaskHead, HeadKind] = {
    "classes": "classifier",
    "tags": "tagger",
    "spans": "reader",
}
_OF_ENDINGS: dict[str, HeadKind] = {
    "ForMaskedLM": "masked words",
    "Model": "encoder",
    "ForPreTraining": "encoder",  # its heads serve no task
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadedModel:
    """A loaded checkpoint.

    Attributes:
        name: Hub id or folder.
        model: The network in float32, or quantised as it was trained, in evaluation mode; every
            output of it is of trained weights.
        tokenizer: The tokeniser of its inputs.
        head: What its outputs are.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: HeadKind


def load_headed(name: str) -> HeadedModel:
    """Loads a checkpoint with its own head.

    Args:
        name: Hub id or folder.

    Raises:
        TeacherError: If nothing can be loaded, the family or the head is not supported, weights
            are missing, or there is no tokeniser.
    """
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise TeacherError(f"no model could be loaded from {name!r}: {error}") from error
    anatomy_of(config)
    head = _head_of(config, name)
    if told_bits(config) is not None:
        model = load_quantised(name)
    else:
        model = _classifier(name) if head == "classifier" else _other(name, head)
    return HeadedModel(name=name, model=model, tokenizer=load_tokenizer(name), head=head)


def _head_of(config: PreTrainedConfig, name: str) -> HeadKind:
    """Reads the head from the class that wrote the checkpoint; one that names none has none."""
    written = (config.architectures or ["Model"])[0]
    task = head_named(written)
    if task is not None:
        return OF_TASKS[task]
    for ending, head in _OF_ENDINGS.items():
        if written.endswith(ending):
            return head
    raise TeacherError(
        f"{name} is a {written}; supported are sequence classifiers, taggers of words, readers "
        "that answer questions on a passage, models of masked words and encoders without a head"
    )


def _classifier(name: str) -> PreTrainedModel:
    model, has_head = load_model(name)
    if not has_head:
        raise TeacherError(
            f"{name} says that it is a sequence classifier, but weights of its head are missing: "
            "fine-tune it first (stillhouse finetune)"
        )
    return model


def _other(name: str, head: HeadKind) -> PreTrainedModel:
    auto_class = _auto_class(head)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # MobileBERT's head has a part of no size where embeddings are as wide as the layers.
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            model, info = auto_class.from_pretrained(
                name,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise TeacherError(f"no model could be loaded from {name!r}: {error}") from error
    missing = fresh_weights(info)
    refuse_fresh_encoder(name, model, missing)
    if head == "encoder" and any(key.startswith("pooler.") for key in missing):
        model.pooler = None  # or its output would be chance
        missing = {key for key in missing if not key.startswith("pooler.")}
    if missing:
        advice = (
            ": fine-tune it first (stillhouse finetune)" if head in ("tagger", "reader") else ""
        )
        raise TeacherError(
            f"{name} lacks weights of a {type(model).__name__}: {', '.join(sorted(missing)[:3])}"
            f"{advice}"
        )
    trained: PreTrainedModel = model.eval()
    return trained


def _auto_class(head: HeadKind) -> Any:
    match head:
        case "tagger":
            return auto_class_of("tags")
        case "reader":
            return auto_class_of("spans")
        case "masked words":
            return AutoModelForMaskedLM
    return AutoModel
