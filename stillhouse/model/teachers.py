"""Teachers: loading them, trusting or replacing their head, and naming their weights."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError
from scipy.optimize import linear_sum_assignment
from transformers import AutoConfig, AutoTokenizer, BertConfig

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import anatomy_of, head_paths
from stillhouse.model.anatomy import label_names as names_of
from stillhouse.model.heads import auto_class_of, head_for, head_named, head_of
from stillhouse.model.lsq import load_quantised, told_bits
from stillhouse.model.students import build_student

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.data.metric_names import TaskKind

logger = logging.getLogger(__name__)

ProblemType: TypeAlias = Literal[
    "single_label_classification", "multi_label_classification", "regression"
]
PROBLEM_TYPES: dict[TaskKind, ProblemType | None] = {
    "classes": "single_label_classification",
    "multi_label": "multi_label_classification",
    "scores": "regression",
    "tags": None,
    "spans": None,
}
"""What transformers calls the kinds of tasks; it has no word for those of tokens."""
_OUTPUTS_OF_SPANS = ("start", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A loaded teacher.

    Attributes:
        name: Hub id, folder, or what the user called it.
        model: The network, with a head for the task.
        tokenizer: The tokeniser of its inputs.
        has_trained_head: Whether the checkpoint brought that head.
        from_scratch: Whether nothing of it is trained yet.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    has_trained_head: bool
    from_scratch: bool = False


def load_model(
    name: str,
    *,
    labels: int | None = None,
    kind: TaskKind = "classes",
    seed: int = 0,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, bool]:
    """Loads a model with a head for a task from the hub or from a folder.

    Args:
        name: Hub id or folder.
        labels: Outputs of the head; a checkpoint with another number gets a fresh head. `None`
            takes the checkpoint as it is.
        kind: Task that the head is for; a checkpoint with a head for another gets a fresh one.
        seed: First weights of a fresh head.
        trust_remote_code: Whether code that lies in the checkpoint may run.

    Returns:
        The model in float32, or quantised as it was trained, and whether the checkpoint brought its
        head.

    Raises:
        TeacherError: If nothing can be loaded from `name`, its family is not supported, weights
            of its encoder are missing or of another shape, or a training is to start from a
            quantised one.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
        anatomy_of(config)
        if told_bits(config) is not None:
            return _load_in_few_bits(name, kind, is_start=labels is not None)
        fits = labels is None or config.num_labels == labels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, info = auto_class_of(kind).from_pretrained(
                name,
                num_labels=config.num_labels if labels is None else labels,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                trust_remote_code=trust_remote_code,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise TeacherError(f"no model could be loaded from {name!r}: {error}") from error
    fresh = fresh_weights(info)
    refuse_fresh_encoder(name, model, fresh)
    if _has_other_head(config, kind):
        renew_outputs(model, seed=seed)  # weights of that name may have been the other head's
        return model.eval(), False
    has_head = fits and not any(key.startswith(head_paths(config, kind)) for key in fresh)
    return model.eval(), has_head


def fresh_weights(info: Mapping[str, Any]) -> set[str]:
    """Names the weights that transformers drew by chance, by what it tells of a loading."""
    return {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}


def refuse_fresh_encoder(name: str, model: PreTrainedModel, fresh: Iterable[str]) -> None:
    """Checks that an encoder has the weights of its checkpoint; a pooler may be fresh.

    Args:
        name: Hub id or folder.
        model: Loaded, with a head or bare.
        fresh: Names of its weights that the checkpoint lacks, or has in another shape.

    Raises:
        TeacherError: Naming the first weight that was drawn by chance.
    """
    base = "" if model.base_model is model else f"{model.base_model_prefix}."
    chance = sorted(
        key
        for key in fresh
        if key.startswith(base) and not key.removeprefix(base).startswith("pooler.")
    )
    if chance:
        others = f" and {len(chance) - 1} more" if len(chance) > 1 else ""
        raise TeacherError(
            f"{name!r} has weights that do not fit its config.json: {chance[0]}{others} would be "
            "drawn by chance. Give the config.json that the weights were saved with"
        )


def _load_in_few_bits(name: str, kind: TaskKind, *, is_start: bool) -> tuple[PreTrainedModel, bool]:
    """Loads a quantised model as it is; to start a training from it is refused."""
    if is_start:
        raise TeacherError(
            f"{name!r} is quantised and trained to the end: start from the model in full "
            "precision that it was made of"
        )
    model = load_quantised(name)
    return model, head_of(model) == head_for(kind)


def _has_other_head(config: PreTrainedConfig, kind: TaskKind) -> bool:
    """Tells by the class that wrote a checkpoint; one that names none, or its own, may fit."""
    written = head_named((config.architectures or [""])[0])
    return written is not None and written != head_for(kind)


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Loads a tokeniser from the hub or from a folder.

    Args:
        name: Hub id or folder.
        trust_remote_code: Whether code that lies in the checkpoint may run.

    Raises:
        TeacherError: If there is none.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise TeacherError(f"no tokeniser could be loaded from {name!r}: {error}") from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of no files
        raise TeacherError(
            f"{name!r} has no tokeniser: its vocabulary holds special tokens alone. Put the files "
            "of the tokeniser beside the weights"
        )
    return tokenizer


def fresh_bert(
    tokenizer: PreTrainedTokenizerBase, *, labels: int, seed: int, kind: TaskKind = "classes"
) -> PreTrainedModel:
    """Builds the small BERT, 4 layers of 256, that stands in where there is no teacher.

    Args:
        tokenizer: Of its vocabulary.
        labels: Outputs of the head.
        seed: First weights.
        kind: Task that the head is for.
    """
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        intermediate_size=1024,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        id2label={index: f"LABEL_{index}" for index in range(labels)},
    )
    model: PreTrainedModel = build_student(config, seed=seed, kind=kind).eval()
    return model


def name_labels(model: PreTrainedModel, label_names: Sequence[str], *, kind: TaskKind) -> None:
    """Writes the task's labels into the model's configuration, in place.

    Args:
        model: Model with a head for the task.
        label_names: Names of classes or tags; empty for scores and spans.
        kind: The task.
    """
    names = label_names or (_OUTPUTS_OF_SPANS if kind == "spans" else ("score",))
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.config.problem_type = PROBLEM_TYPES[kind]


def label_order_by_name(
    model: PreTrainedModel, label_names: Sequence[str]
) -> tuple[int, ...] | None:
    """Finds the model's output for each of the task's labels by its name.

    Capitals count only where names differ in nothing else.

    Returns:
        For each task label the model's output, or `None` where the names do not agree.
    """
    for spelt in (str, str.lower):
        theirs = {spelt(name): index for index, name in enumerate(names_of(model.config))}
        wanted = [spelt(name) for name in label_names]
        if len(theirs) == len(wanted) and theirs.keys() == set(wanted):
            return tuple(theirs[name] for name in wanted)
    return None


def label_order_by_agreement(
    logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> tuple[int, ...]:
    """Finds the permutation of outputs that agrees best with the gold labels.

    Args:
        logits_NC: The model's outputs.
        labels_N: Gold classes.

    Returns:
        For each task label the model's output.
    """
    classes = logits_NC.shape[1]
    agreement = np.zeros((classes, classes))
    np.add.at(agreement, (labels_N, logits_NC.argmax(axis=1)), 1)
    _, outputs = linear_sum_assignment(agreement, maximize=True)
    return tuple(int(output) for output in outputs)


@torch.no_grad()
def reorder_outputs(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Puts the model's outputs into the task's order of labels, in place."""
    for parameter in _outputs(model).parameters():
        parameter.copy_(parameter[list(order)].clone())


@torch.no_grad()
def renew_outputs(model: PreTrainedModel, *, seed: int) -> None:
    """Draws the last layer of the head anew, in place; the rest of the head stays."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in _outputs(model).named_parameters():
        fresh = torch.zeros(parameter.shape)
        if name == "weight":
            fresh.normal_(std=model.config.initializer_range, generator=generator)
        parameter.copy_(fresh)


def _outputs(model: PreTrainedModel) -> nn.Module:
    """Returns the last layer of the head."""
    return model.get_submodule(head_paths(model.config, head_of(model) or "classes")[-1])


def hash_weights(model: PreTrainedModel) -> str:
    """Returns the SHA-256 over names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
