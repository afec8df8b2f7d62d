"""Which layers of a teacher a student's layers begin as; 0-based, the rules stated 1-based."""

from __future__ import annotations

from typing import Literal, TypeAlias

KeptLayersRule: TypeAlias = Literal["spread", "uniform"]
"""`spread_layers` or `uniform_layers`."""


def kept_layers(rule: KeptLayersRule, student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Chooses teacher layers for a student by the rule of that name."""
    choose = uniform_layers if rule == "uniform" else spread_layers
    return choose(student_layers, teacher_layers)


def spread_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Chooses teacher layers for a student: evenly spread, the first and the last one included.

    Args:
        student_layers: Layers of the student, >= 1.
        teacher_layers: Layers of the teacher, >= 1.

    Returns:
        One 0-based teacher layer for each student layer, never descending; a single one is the
        teacher's last.
    """
    if student_layers == 1:
        return (teacher_layers - 1,)
    last = teacher_layers - 1
    return tuple(round(i * last / (student_layers - 1)) for i in range(student_layers))


def uniform_layer(student_layer: int, student_layers: int, teacher_layers: int) -> int:
    """Teacher layer ⌈i·L_T/L_S⌉ (1-based i) of a uniform map, so that the last meets the last.

    Integer arithmetic: 0-based floor(i·L_T/L_S), as some re-implementations have it, never
    reaches the teacher's last layer.
    """
    return -(-(student_layer + 1) * teacher_layers // student_layers) - 1


def uniform_layers(student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """Chooses teacher layers for a student by the uniform map, by which it is distilled as well.

    Source: ETD (Chen et al., arXiv 2104.11928): 0, N/M, 2N/M, ..., N of N layers, where 0 are the
    embeddings. Where M does not divide N, ours rounds up.
    """
    return tuple(
        uniform_layer(layer, student_layers, teacher_layers) for layer in range(student_layers)
    )
