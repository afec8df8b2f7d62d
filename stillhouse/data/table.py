"""Tasks from the user's own tables: CSV and TSV files, or datasets already loaded.

A `.csv` file has commas between its fields and quotes around those that need them; in a `.tsv`
file tabs part the fields and quotes are ordinary characters, as in GLUE. Both begin with a header
and are UTF-8.
"""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import ClassLabel

from stillhouse.data.examples import Examples, Source
from stillhouse.data.labels import (
    are_numbers,
    check_present,
    class_names,
    encode_classes,
    encode_numbers,
)
from stillhouse.data.splits import hold_out, usual_count
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from datasets import Dataset

    from stillhouse.data.labels import RawLabel

TABLE_SUFFIXES = (".csv", ".tsv")
DEFAULT_TEXT = ("text",)
DEFAULT_LABEL = "label"
DEV_SEED = 0

_logger = logging.getLogger(__name__)


def read_lines(path: Path) -> list[str]:
    """Reads a UTF-8 file's lines; only line feeds, with or without carriage return, end a line.

    Raises:
        DataError: If the file is missing or not UTF-8.
    """
    return [line.removesuffix("\r") for line in _read_text(path).removesuffix("\n").split("\n")]


def read_table(path: Path) -> dict[str, list[str]]:
    """Reads a CSV or TSV file with a header.

    Args:
        path: File whose name ends in `.csv` or `.tsv`.

    Returns:
        The columns by name, every field as text.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, or a row has too few or many fields.
    """
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _tsv_rows(path)
    if not rows:
        raise DataError(f"{path} is empty; it needs a header line and examples")
    (_, header), body = rows[0], rows[1:]
    names = [name.strip() for name in header]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has several columns named {repeated[0]!r}; rename all but one")
    if not body:
        raise DataError(f"{path} is empty below its header; it needs examples")
    for line, row in body:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(row)} fields where the header has {len(names)}; "
                "put quotes around texts with commas or line breaks, and use .csv for quoted files"
            )
    columns = zip(*(row for _, row in body), strict=True)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def load_table(
    path: Path, *, dev: Path | None, text: Sequence[str], label: str | None, metric: str | None
) -> Source:
    """Loads a task from tables.

    Args:
        path: Table of training examples.
        dev: Table of dev examples; without it 10 % of the training examples are held out.
        text: One or two columns of texts; none means `text`.
        label: Column of labels; none means `label`.
        metric: The user's metric; decides between classes and numbers where it is given.

    Raises:
        DataError: If a file, a column or a label is missing or unusable.
    """
    text = tuple(text) or DEFAULT_TEXT
    label = label or DEFAULT_LABEL
    train, train_labels = pick_columns(read_table(path), text=text, label=label, where=str(path))
    parts = [(train, train_labels, str(path))]
    if dev is not None:
        columns = read_table(dev)
        parts.append((*pick_columns(columns, text=text, label=label, where=str(dev)), str(dev)))
    return _to_source(parts, names=None, text=text, metric=metric)


def load_columns(
    train: Dataset, dev: Dataset | None, *, text: Sequence[str], label: str, metric: str | None
) -> Source:
    """Makes a task's source from datasets.

    Args:
        train: Training examples.
        dev: Dev examples; without them 10 % of the training examples are held out.
        text: One or two columns of texts.
        label: Column of labels; a `ClassLabel` column keeps its names and their order.
        metric: The user's metric; decides between classes and numbers where it is given.

    Raises:
        DataError: If a column or a label is missing or unusable.
    """
    parts = []
    for where, dataset in (("train", train), ("dev", dev)):
        if dataset is None:
            continue
        if len(dataset) == 0:
            raise DataError(f"{where} is empty; it needs examples")
        columns = _named_columns(dataset, text=text, label=label)
        parts.append((*pick_columns(columns, text=text, label=label, where=where), where))
    feature = train.features[label]
    names = (
        tuple(name.strip() for name in feature.names) if isinstance(feature, ClassLabel) else None
    )
    return _to_source(parts, names=names, text=tuple(text), metric=metric)


def load_unlabelled(path: Path, *, text: Sequence[str], pairs: bool) -> Dataset:
    """Loads texts without labels from a table, or from a text file with one text a line.

    Args:
        path: A `.csv` or `.tsv` file with the text columns, or a text file.
        text: The one or two text columns of a table.
        pairs: Whether the task's examples are pairs of texts.

    Raises:
        DataError: If the file is missing or empty, lacks a column, or holds no pairs.
    """
    if path.suffix.lower() in TABLE_SUFFIXES:
        examples, _ = pick_columns(read_table(path), text=text, label=None, where=str(path))
        return examples.to_dataset(())
    if pairs:
        raise DataError(
            f"{path}: the task's examples are pairs of texts, which a text file cannot hold; give "
            f"a .csv file with the columns {', '.join(text)}"
        )
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty; it needs one text a line")
    return Examples(text_a=lines).to_dataset(())


def pick_columns(
    columns: Mapping[str, Sequence[object]], *, text: Sequence[str], label: str | None, where: str
) -> tuple[Examples, list[RawLabel]]:
    """Picks the columns of texts and labels, and checks that both are there.

    Args:
        columns: Every column by name.
        text: One or two columns of texts.
        label: Column of labels; `None` where there are none.
        where: What the columns belong to, for messages.

    Returns:
        The texts, and the raw labels (empty without a label column).

    Raises:
        DataError: If a column is missing, a text is not text, or a label is missing.
    """
    for name in (*text, *([] if label is None else [label])):
        if name not in columns:
            raise DataError(
                f"{where} has no column {name!r}; its columns are "
                f"{', '.join(repr(present) for present in columns)}"
            )
    texts = [_checked_texts(columns[name], where=f"{where}, column {name!r}") for name in text]
    labels: list[RawLabel] = [] if label is None else list(_scalars(columns[label], where))
    check_present(labels, where=where)
    return Examples(text_a=texts[0], text_b=texts[1] if len(texts) > 1 else None), labels


def _to_source(
    parts: Sequence[tuple[Examples, list[RawLabel], str]],
    *,
    names: tuple[str, ...] | None,
    text: tuple[str, ...],
    metric: str | None,
) -> Source:
    train_labels = parts[0][1]
    numbers = names is None and are_numbers(train_labels, metric)
    label_names = () if numbers else names or class_names(train_labels)
    datasets = []
    for examples, raw, where in parts:
        labels = (
            encode_numbers(raw, where=where)
            if numbers
            else encode_classes(raw, label_names, where=where)
        )
        whole = Examples(text_a=examples.text_a, text_b=examples.text_b, labels=labels)
        datasets.append(whole.to_dataset(label_names))
    if len(datasets) == 1:
        count = usual_count(len(datasets[0]))
        datasets = list(hold_out(datasets[0], count=count, stratified=not numbers, seed=DEV_SEED))
    return Source(
        label_names=label_names,
        metrics=("pearson", "spearman") if numbers else ("accuracy", "f1_macro"),
        train=datasets[0],
        dev=datasets[1],
        text_columns=text,
    )


def _named_columns(
    dataset: Dataset, *, text: Sequence[str], label: str
) -> Mapping[str, Sequence[object]]:
    """Reads a dataset's columns with class numbers replaced by their names."""
    wanted = [name for name in dataset.column_names if name in (*text, label)]
    columns: dict[str, Sequence[object]] = {name: [] for name in dataset.column_names}
    columns.update(dataset.with_format(None).select_columns(wanted)[:])
    feature = dataset.features.get(label)
    if isinstance(feature, ClassLabel):
        names = dict(enumerate(feature.names))
        columns[label] = [
            names.get(number) if isinstance(number, int) else None for number in columns[label]
        ]
    return columns


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


def _read_text(path: Path) -> str:
    try:
        # newline="" keeps carriage returns inside texts from being read as line ends.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}; in a .csv file a quote inside a quoted "
            "text is doubled"
        ) from error


def _tsv_rows(path: Path) -> list[tuple[int, list[str]]]:
    return [
        (number, line.split("\t"))
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    ]
