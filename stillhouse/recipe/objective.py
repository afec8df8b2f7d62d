"""The distillation objective that settings describe, for a student and its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.distill.layer_maps import layer_links
from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm, Term

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.data.metric_names import TaskKind
    from stillhouse.run.settings import DistillSettings


def distillation_terms(
    settings: DistillSettings,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    *,
    kind: TaskKind,
    seed: int,
) -> list[Term]:
    """Builds the terms with a weight above 0.

    Args:
        settings: Weights, temperature and layer map.
        student: Gives depth and width.
        teacher: Gives depth and width.
        kind: What the task's labels are.
        seed: First weights of the projection between unequal widths.
    """
    terms: list[Term] = []
    if settings.logit_weight:
        terms.append(
            LogitTerm(
                weight=settings.logit_weight,
                temperature=settings.temperature,
                kind=kind,
            )
        )
    if settings.label_weight:
        terms.append(LabelTerm(weight=settings.label_weight, kind=kind))
    if settings.hidden_weight:
        terms.append(
            hidden_term(settings, student, teacher, weight=settings.hidden_weight, seed=seed)
        )
    return terms


def hidden_term(
    settings: DistillSettings,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    *,
    weight: float,
    seed: int,
) -> HiddenTerm:
    """Builds the loss of hidden states with the settings' layer map, whatever its weight there."""
    return HiddenTerm(
        links=layer_links(
            settings.hidden_map, student.num_hidden_layers, teacher.num_hidden_layers
        ),
        student_hidden=student.hidden_size,
        teacher_hidden=teacher.hidden_size,
        weight=weight,
        seed=seed,
    )


def teacher_layers(terms: list[Term]) -> frozenset[int]:
    """Returns the teacher layers whose hidden states some term reads."""
    return frozenset().union(*(term.teacher_layers for term in terms))
