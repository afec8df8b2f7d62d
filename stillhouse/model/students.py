"""Students: ordinary models of an architecture, with fresh weights or with the teacher's slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import nn

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import (
    BERT,
    anatomy_of,
    factored_size,
    label_names,
    layered_anatomy_of,
)
from stillhouse.model.heads import auto_class_of
from stillhouse.model.kept_layers import KeptLayersRule, kept_layers
from stillhouse.model.mobilebert import mobilebert_config
from stillhouse.model.modeling_free_head_bert import FreeHeadBertConfig
from stillhouse.model.slicing import copy_slices
from stillhouse.space.mobilebert import MobileBertArchitecture

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from stillhouse.data.metric_names import TaskKind
    from stillhouse.space.architecture import Architecture, BertArchitecture

InitialisationKind: TypeAlias = Literal["slices", "extract", "scratch"]
IndexRule: TypeAlias = Literal["importance", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisation:
    """Where a student's first weights came from.

    Attributes:
        kind: Leading `slices` of the teacher, chosen neurons of it (`extract`), random (`scratch`),
            or a `checkpoint` of its own.
        layers: Teacher layer (0-based) that each student layer was cut from; empty from scratch.
        indices: How the neurons of an extract were chosen.
        loss: What their importance was measured by.
    """

    kind: InitialisationKind | Literal["checkpoint"]
    layers: tuple[int, ...] = ()
    indices: IndexRule | None = None
    loss: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Returns plain data for the trial record; what is not said has no key."""
        chosen = {"indices": self.indices, "loss": self.loss}
        return {
            "kind": self.kind,
            "layers": list(self.layers),
            **{name: value for name, value in chosen.items() if value is not None},
        }


def student_config(
    architecture: Architecture, teacher: PreTrainedConfig, *, dropout: float = 0.0
) -> PreTrainedConfig:
    """Describes a student of the teacher's vocabulary, positions and labels.

    It is of the teacher's family, or a MobileBERT. Factored embeddings keep their width, whatever
    the student's own.

    Args:
        architecture: Shape of the student.
        teacher: The teacher's configuration, the source of everything that is not shape.
        dropout: Probability in hidden states and attention while training, 0..1. Zero by default:
            soft targets regularise enough, and dropout costs a tenth of a CPU step.
    """
    if isinstance(architecture, MobileBertArchitecture):
        return mobilebert_config(architecture, teacher, dropout=dropout)
    anatomy = layered_anatomy_of(teacher)
    kind, extra = _configuration(architecture, teacher)
    given = {name: getattr(teacher, name) for name in anatomy.shared}
    given |= dict.fromkeys(anatomy.dropouts, dropout)
    given |= {
        "hidden_size": architecture.hidden_size,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        anatomy.ffn_size: architecture.ffn_size,
        anatomy.activation: architecture.activation,
    }
    if anatomy.factored_projection is not None:
        given["embedding_size"] = factored_size(teacher) or architecture.hidden_size
    return kind(
        **(given | extra),
        id2label=dict(enumerate(label_names(teacher))),
        label2id={name: index for index, name in enumerate(label_names(teacher))},
        problem_type=teacher.problem_type,
    )


def _configuration(
    architecture: BertArchitecture, teacher: PreTrainedConfig
) -> tuple[type[PreTrainedConfig], dict[str, Any]]:
    """Returns the class of a student's configuration and what it has beside its family's.

    Raises:
        TeacherError: If the heads are free and the teacher's family has no model for that.
    """
    if not architecture.has_free_heads and not isinstance(teacher, FreeHeadBertConfig):
        return type(teacher), {}
    anatomy = layered_anatomy_of(teacher)
    if anatomy.query != BERT.query or anatomy.factored_projection is not None:
        raise TeacherError(
            f"a student of {teacher.model_type} cannot have {architecture.heads} heads of "
            f"{architecture.head_size} at a width of {architecture.hidden_size}: take a teacher "
            "after BERT or RoBERTa, or heads that share the width out"
        )
    offset = getattr(teacher, "position_offset", 0)
    if anatomy.positions_follow_padding:
        offset = teacher.pad_token_id + 1
    return FreeHeadBertConfig, {"head_size": architecture.head_size, "position_offset": offset}


def build_student(
    config: PreTrainedConfig, *, seed: int, kind: TaskKind = "classes"
) -> PreTrainedModel:
    """Builds a student with fresh weights, without touching the global random state.

    Args:
        config: Shape and labels.
        seed: First weights.
        kind: Task that its head is for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = auto_class_of(kind).from_config(config)
    return model


def initialise_student(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    kind: Literal["slices", "scratch"],
    *,
    rule: KeptLayersRule = "spread",
) -> Initialisation:
    """Gives a freshly built student its first weights, in place.

    Chosen neurons of the teacher are given by `extraction.extract`.

    Args:
        student: Fresh model; keeps its random weights with `scratch`.
        teacher: Source of the slices, of its head too where that is for the same kind of task.
        kind: Where the weights come from.
        rule: Which layers slices keep.

    Returns:
        What was done, for the trial record.
    """
    if kind == "scratch":
        return Initialisation(kind=kind)
    depths = student.config.num_hidden_layers, teacher.config.num_hidden_layers
    layers = kept_layers(rule, *depths)
    copy_slices(student, teacher, layers)
    return Initialisation(kind=kind, layers=layers)


def set_dropout(model: PreTrainedModel, probability: float) -> None:
    """Sets every dropout of a loaded model, and what its configuration says of it, in place."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = probability
    for name in anatomy_of(model.config).dropouts:
        setattr(model.config, name, probability)
