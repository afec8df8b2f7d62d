"""Which models of a run are drawn side by side: the teacher first, then what came of it."""

from __future__ import annotations

from collections.abc import Iterator

from stillhouse.report import wording
from stillhouse.report.architecture_drawing import Gallery, Model, draw_models
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Contents

MOST_REFERENCES = 6
"""Hand-crafted architectures that are drawn; a table has them all."""


def draw_architectures(contents: Contents) -> Gallery | None:
    """The models of a run that are known well enough to be drawn; None without a student."""
    students = [*_students(contents)]
    if not students:
        return None
    return draw_models([*_teacher(contents), *students, *_references(contents)])


def _teacher(contents: Contents) -> Iterator[Model]:
    figures = contents.teacher
    if figures.shape is not None:
        yield Model(
            name="teacher",
            mark="",
            kind="teacher",
            label=figures.architecture,
            note=_note(figures),
            shape=figures.shape,
        )


def _students(contents: Contents) -> Iterator[Model]:
    known = [(one.rank, one.figures) for one in contents.students]
    if contents.chains is not None:
        known = [(one.number, one.figures) for one in contents.chains.selected]
    for number, figures in known:
        if figures.shape is not None:
            yield Model(
                name=f"student {number}",
                mark=str(number),
                kind="student",
                label=figures.architecture,
                note=_note(figures),
                shape=figures.shape,
            )


def _references(contents: Contents) -> Iterator[Model]:
    for one in contents.references.points[:MOST_REFERENCES]:
        if one.shape is not None:
            yield Model(
                name=one.name,
                mark="",
                kind="reference",
                label=one.architecture,
                note=wording.count(one.parameters) + " parameters" if one.parameters else "",
                shape=one.shape,
            )


def _note(figures: Figures) -> str:
    parts = []
    if figures.parameters is not None:
        parts.append(f"{wording.count(figures.parameters)} parameters")
    if figures.latency_ms is not None:
        parts.append(wording.milliseconds(figures.latency_ms))
    return ", ".join(parts)
