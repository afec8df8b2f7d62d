"""Tasks from tables: the user's own files (`table_files.py`), or datasets already loaded.

The columns tell the kind of task (`column_roles.py`): texts with a label, words with a tag each
(`tagging.py`), or questions on passages (`questions.py`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, assert_never

from stillhouse.data.column_roles import find_roles, wanted_columns
from stillhouse.data.examples import Examples, Source
from stillhouse.data.label_sets import (
    are_label_sets,
    check_label_sets,
    encode_label_sets,
    label_set_names,
)
from stillhouse.data.labels import (
    are_numbers,
    check_present,
    class_names,
    encode_classes,
    encode_numbers,
)
from stillhouse.data.metric_names import USUAL_METRICS
from stillhouse.data.questions import question_source, table_questions
from stillhouse.data.splits import hold_out, usual_count
from stillhouse.data.table_files import (
    TABLE_KINDS,
    TABLE_SUFFIXES,
    class_feature,
    named_columns,
    read_lines,
    read_table,
)
from stillhouse.data.tagging import tagged_set, tagged_source
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from datasets import Dataset

    from stillhouse.data.column_roles import Columns, Roles
    from stillhouse.data.labels import RawLabel
    from stillhouse.data.metric_names import TaskKind

DEV_SEED = 0

_logger = logging.getLogger(__name__)

EncodedLabels: TypeAlias = "Sequence[int] | Sequence[tuple[int, ...]] | Sequence[float]"
"""As in `Examples`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """The columns of one set, and what messages call it."""

    columns: Columns
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The texts of one set, its label column as it was read, and where that stands."""

    texts: Examples
    labels: Sequence[object]
    where: str


def load_table(
    path: Path, *, dev: Path | None, text: Sequence[str], label: str | None, metric: str | None
) -> Source:
    """Loads a task from tables.

    Args:
        path: Table of training examples.
        dev: Table of dev examples; without it 10 % of the training examples are held out.
        text: Columns of one or two texts, of lists of words, or of questions and contexts; none
            leaves them to `find_roles`.
        label: Column of labels, of lists of tags, or of answers; none leaves it to `find_roles`.
        metric: The user's metric; decides between classes and numbers where it is given.

    Raises:
        DataError: If a file, a column or a label is missing or unusable.
    """
    wanted = wanted_columns(text, label)
    tables = [
        _Table(columns=read_table(file, wanted), where=str(file))
        for file in (path, dev)
        if file is not None
    ]
    roles = find_roles(tables[0].columns, text=text, label=label, where=tables[0].where)
    return _from_tables(tables, roles, names=None, metric=metric)


def load_columns(
    train: Dataset,
    dev: Dataset | None,
    *,
    text: Sequence[str],
    label: str | None,
    metric: str | None,
    names: tuple[str, str] = ("train", "dev"),
) -> Source:
    """Makes a task's source from datasets.

    Args:
        train: Training examples.
        dev: Dev examples; without them 10 % of the training examples are held out.
        text: As for `load_table`.
        label: As for `load_table`; classes of a `ClassLabel` column, or of lists of it, keep their
            names and their order.
        metric: The user's metric; decides between classes and numbers where it is given.
        names: What messages call the two sets.

    Raises:
        DataError: If a column or a label is missing or unusable.
    """
    wanted = wanted_columns(text, label)
    tables = []
    for where, dataset in zip(names, (train, dev), strict=True):
        if dataset is None:
            continue
        if len(dataset) == 0:
            raise DataError(f"{where} is empty; it needs examples")
        tables.append(_Table(columns=named_columns(dataset, wanted), where=where))
    roles = find_roles(tables[0].columns, text=text, label=label, where=tables[0].where)
    classes = class_feature(train.features.get(roles.label))
    given = None if classes is None else tuple(name.strip() for name in classes.names)
    return _from_tables(tables, roles, names=given, metric=metric)


def load_unlabelled(path: Path, *, text: Sequence[str], pairs: bool) -> Dataset:
    """Loads texts without labels from a table, or from a text file with one text a line.

    Args:
        path: A table file with the text columns, or a text file.
        text: The one or two text columns of a table.
        pairs: Whether the task's examples are pairs of texts.

    Raises:
        DataError: If the file is missing or empty, lacks a column, or holds no pairs.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _texts(read_table(path, text), text=text, where=str(path)).to_dataset(())
    if pairs:
        raise DataError(
            f"{path}: the task's examples are pairs of texts, which a text file cannot hold; give "
            f"a {TABLE_KINDS} file with the columns {', '.join(text)}"
        )
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty; it needs one text a line")
    return Examples(text_a=lines).to_dataset(())


def _from_tables(
    tables: Sequence[_Table], roles: Roles, *, names: tuple[str, ...] | None, metric: str | None
) -> Source:
    for table in tables:
        _check_columns(table.columns, (*roles.text, roles.label), table.where)
    match roles.kind:
        case "words":
            sets = [
                tagged_set(table.columns, words=roles.text[0], tags=roles.label, where=table.where)
                for table in tables
            ]
            return tagged_source(sets, names=names, text_columns=roles.text)
        case "questions":
            return question_source(
                [
                    table_questions(
                        table.columns, text=roles.text, answers=roles.label, where=table.where
                    )
                    for table in tables
                ]
            )
        case "texts":
            parts = [
                _part(table.columns, text=roles.text, label=roles.label, where=table.where)
                for table in tables
            ]
            return _to_source(parts, names=names, text=roles.text, metric=metric)
        case _:
            assert_never(roles.kind)


def _part(
    columns: Mapping[str, Sequence[object]], *, text: Sequence[str], label: str, where: str
) -> _Part:
    """Picks the columns of texts and labels.

    Raises:
        DataError: If a text is not text.
    """
    return _Part(
        texts=_texts(columns, text=text, where=where),
        labels=columns[label],
        where=f"{where}, column {label!r}",
    )


def _texts(columns: Mapping[str, Sequence[object]], *, text: Sequence[str], where: str) -> Examples:
    _check_columns(columns, text, where)
    texts = [_checked_texts(columns[name], where=f"{where}, column {name!r}") for name in text]
    return Examples(text_a=texts[0], text_b=texts[1] if len(texts) > 1 else None)


def _check_columns(
    columns: Mapping[str, Sequence[object]], needed: Sequence[str], where: str
) -> None:
    for name in needed:
        if name not in columns:
            raise DataError(
                f"{where} has no column {name!r}; its columns are "
                f"{', '.join(repr(present) for present in columns)}"
            )


def _to_source(
    parts: Sequence[_Part],
    *,
    names: tuple[str, ...] | None,
    text: tuple[str, ...],
    metric: str | None,
) -> Source:
    if are_label_sets(parts[0].labels):
        kind: TaskKind = "multi_label"
        label_names, encoded = _encode_sets(parts, names)
    else:
        label_names, encoded = _encode_single(parts, names, metric)
        kind = "classes" if label_names else "scores"
    datasets = [
        replace(part.texts, labels=labels).to_dataset(label_names)
        for part, labels in zip(parts, encoded, strict=True)
    ]
    if len(datasets) == 1:
        count = usual_count(len(datasets[0]))
        datasets = list(
            hold_out(datasets[0], count=count, stratified=kind != "scores", seed=DEV_SEED)
        )
    return Source(
        label_names=label_names,
        metrics=USUAL_METRICS[kind],
        train=datasets[0],
        dev=datasets[1],
        text_columns=text,
    )


def _encode_sets(
    parts: Sequence[_Part], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[EncodedLabels]]:
    raw = [check_label_sets(part.labels, where=part.where) for part in parts]
    names = names or label_set_names(raw[0])
    if not names:
        raise DataError(f"{parts[0].where}: every list is empty; a task needs examples of classes")
    return names, [
        encode_label_sets(labels, names, where=part.where)
        for part, labels in zip(parts, raw, strict=True)
    ]


def _encode_single(
    parts: Sequence[_Part], names: tuple[str, ...] | None, metric: str | None
) -> tuple[tuple[str, ...], list[EncodedLabels]]:
    """Encodes labels of one class or number an example; without names they are numbers."""
    raw = [_present_scalars(part) for part in parts]
    if names is None and are_numbers(raw[0], metric):
        numbers = [
            encode_numbers(labels, where=part.where)
            for part, labels in zip(parts, raw, strict=True)
        ]
        return (), [*numbers]
    names = names or class_names(raw[0])
    return names, [
        encode_classes(labels, names, where=part.where)
        for part, labels in zip(parts, raw, strict=True)
    ]


def _present_scalars(part: _Part) -> list[RawLabel]:
    labels = list(_scalars(part.labels, part.where))
    check_present(labels, where=part.where)
    return labels


def _checked_texts(values: Sequence[object], *, where: str) -> list[str]:
    texts = []
    for row, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise DataError(
                f"{where}, example {row}: {value!r} is not a text; remove the example or name "
                "another column"
            )
        texts.append(value)
    empty = sum(not value.strip() for value in texts)
    if empty:
        _logger.warning("%s: %d of %d texts are empty", where, empty, len(texts))
    return texts


def _scalars(values: Sequence[object], where: str) -> Iterable[RawLabel]:
    for row, value in enumerate(values, start=1):
        if value is not None and not isinstance(value, str | int | float):
            raise DataError(
                f"{where}: label {value!r} of example {row} is neither a text nor a number; name "
                "a column with one label an example"
            )
        yield value
