"""AdvGLUE's dev set: GLUE examples that were perturbed against other models, in one JSON file.

Source: Wang et al. 2021, "Adversarial GLUE", https://arxiv.org/abs/2111.02840; `dev_ann.json` of
https://adversarialglue.github.io. Label numbers are those of the hub, as in `glue`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillhouse.data.examples import Examples
from stillhouse.data.glue import GLUE_TASKS
from stillhouse.data.table_files import read_lines
from stillhouse.errors import DataError, SettingsError

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "sst2": ("sst2",),
    "qqp": ("qqp",),
    "mnli": ("mnli", "mnli-mm"),
    "qnli": ("qnli",),
    "rte": ("rte",),
}
"""Sections of the file for each GLUE task that has any."""
ORIGINAL = "original_"
"""Begins the name of the column that tells a text before it was perturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvGlueSection:
    """A section of the file.

    Attributes:
        name: Its name there.
        perturbed: N examples.
        originals: Those M of them whose text before the perturbation is told, with that text.
        with_original: `[M]` places of these among the N.
    """

    name: str
    perturbed: Examples
    originals: Examples
    with_original: tuple[int, ...]


def adv_glue_sections(task: str) -> tuple[str, ...]:
    """Returns the names of a GLUE task's sections.

    Args:
        task: Such as `glue/sst2`.

    Raises:
        SettingsError: If AdvGLUE has none for it.
    """
    name = task.removeprefix("glue/")
    if not task.startswith("glue/") or name not in SECTIONS:
        known = ", ".join(f"glue/{one}" for one in SECTIONS)
        raise SettingsError(f"AdvGLUE has examples of {known}, but the task is {task!r}")
    return SECTIONS[name]


def read_adv_glue(path: Path, section: str) -> AdvGlueSection:
    """Reads a section of AdvGLUE's dev set.

    Args:
        path: The file.
        section: One of those in `SECTIONS`.

    Raises:
        DataError: If the file is missing or broken, or has no such section.
    """
    try:
        content = json.loads("\n".join(read_lines(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); give AdvGLUE's dev_ann.json") from error
    if not isinstance(content, dict) or not isinstance(content.get(section), list):
        raise DataError(
            f"{path} has no list {section!r}; give AdvGLUE's dev_ann.json, one object with a list "
            "of examples for each task"
        )
    layout = GLUE_TASKS[section.removesuffix("-mm")]
    columns, classes = layout.hub_text, len(layout.label_names)
    rows: list[Mapping[str, object]] = content[section]
    for number, row in enumerate(rows, start=1):
        _check_row(row, columns, classes, where=f"{path}, {section}, example {number}")
    if not rows:
        raise DataError(f"{path}: the list {section!r} is empty; it needs examples")
    told = tuple(
        place
        for place, row in enumerate(rows)
        if any(ORIGINAL + column in row for column in columns)
    )
    undone = [{**rows[place], **_originals(rows[place])} for place in told]
    return AdvGlueSection(
        name=section,
        perturbed=_examples(rows, columns),
        originals=_examples(undone, columns),
        with_original=told,
    )


def _check_row(row: object, columns: tuple[str, ...], classes: int, *, where: str) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{where} is no JSON object but {str(row)[:80]}")
    named = [*columns, *(ORIGINAL + column for column in columns if ORIGINAL + column in row)]
    for column in named:
        if not isinstance(row.get(column), str):
            raise DataError(f"{where}: {column!r} is a text, but is {row.get(column)!r}")
    label = row.get("label")
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < classes:
        raise DataError(f"{where}: the label is from 0 to {classes - 1}, but is {label!r}")


def _originals(row: Mapping[str, object]) -> dict[str, object]:
    return {
        name.removeprefix(ORIGINAL): text for name, text in row.items() if name.startswith(ORIGINAL)
    }


def _examples(rows: Sequence[Mapping[str, object]], columns: tuple[str, ...]) -> Examples:
    texts = [[str(row[column]) for row in rows] for column in columns]
    return Examples(
        text_a=texts[0],
        text_b=texts[1] if len(texts) > 1 else None,
        labels=[int(str(row["label"])) for row in rows],
    )
