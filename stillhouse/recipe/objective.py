"""The distillation objective that settings describe, for a student and its teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse.distill.layer_maps import layer_links
from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm, Term

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.run.settings import DistillSettings


def distillation_terms(
    settings: DistillSettings,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    *,
    is_regression: bool,
    seed: int,
) -> list[Term]:
    """Builds the terms with a weight above 0.

    Args:
        settings: Weights, temperature and layer map.
        student: Gives depth and width.
        teacher: Gives depth and width.
        is_regression: Whether outputs are scores instead of class logits.
        seed: First weights of the projection between unequal widths.
    """
    terms: list[Term] = []
    if settings.logit_weight:
        terms.append(
            LogitTerm(
                weight=settings.logit_weight,
                temperature=settings.temperature,
                is_regression=is_regression,
            )
        )
    if settings.label_weight:
        terms.append(LabelTerm(weight=settings.label_weight, is_regression=is_regression))
    if settings.hidden_weight:
        links = layer_links(
            settings.hidden_map, student.num_hidden_layers, teacher.num_hidden_layers
        )
        terms.append(
            HiddenTerm(
                links=links,
                student_hidden=student.hidden_size,
                teacher_hidden=teacher.hidden_size,
                weight=settings.hidden_weight,
                seed=seed,
            )
        )
    return terms


def teacher_layers(terms: list[Term]) -> frozenset[int]:
    """Returns the teacher layers whose hidden states some term reads."""
    return frozenset().union(*(term.teacher_layers for term in terms))
