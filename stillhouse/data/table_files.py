"""The columns of table files: CSV, TSV, JSON lines and Parquet.

A `.csv` file has commas between its fields and quotes around those that need them; in a `.tsv`
file tabs part the fields and quotes are ordinary characters, as in GLUE. Both begin with a header
and hold text alone. A `.jsonl` file holds one JSON object a line, and like a `.parquet` file keeps
the types of its values. All but Parquet are UTF-8.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from datasets import ClassLabel, Dataset, LargeList, List
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
TABLE_KINDS = ".csv, .tsv, .jsonl (one JSON object a line) or .parquet"


def read_text(path: Path) -> str:
    """Reads a UTF-8 file whole.

    Raises:
        DataError: If the file is missing or not UTF-8.
    """
    try:
        # newline="" keeps carriage returns inside texts from being read as line ends.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def read_lines(path: Path) -> list[str]:
    """Reads a UTF-8 file's lines; only line feeds, with or without carriage return, end a line.

    Raises:
        DataError: If the file is missing or not UTF-8.
    """
    return [line.removesuffix("\r") for line in read_text(path).removesuffix("\n").split("\n")]


def read_table(path: Path, wanted: Collection[str]) -> Mapping[str, Sequence[object]]:
    """Reads a table file.

    Args:
        path: File whose name ends in one of `TABLE_SUFFIXES`.
        wanted: Columns whose values are needed; others may come empty.

    Returns:
        The columns by name. Fields of CSV and TSV are text; values of the other two keep their
        types, and what a JSON object lacks is `None`.

    Raises:
        DataError: If the file is missing, empty or broken.
    """
    match path.suffix.lower():
        case ".jsonl":
            return _json_columns(path)
        case ".parquet":
            return _parquet_columns(path, wanted)
        case suffix:
            return _text_columns(path, _csv_rows(path) if suffix == ".csv" else _tsv_rows(path))


def named_columns(dataset: Dataset, wanted: Collection[str]) -> dict[str, Sequence[object]]:
    """Reads a dataset's columns with class numbers replaced by their names.

    Args:
        dataset: Any columns.
        wanted: Columns to read, as far as present; the others come empty.
    """
    present = [name for name in dataset.column_names if name in wanted]
    columns: dict[str, Sequence[object]] = {name: [] for name in dataset.column_names}
    columns.update(dataset.with_format(None).select_columns(present)[:] if present else {})
    for name in present:
        classes = class_feature(dataset.features[name])
        if classes is not None:
            names = dict(enumerate(classes.names))
            columns[name] = [_named(value, names) for value in columns[name]]
    return columns


def class_feature(feature: object) -> ClassLabel | None:
    """Returns the classes of a column of classes, or of a column of lists of classes."""
    inner = feature.feature if isinstance(feature, List | LargeList) else feature
    return inner if isinstance(inner, ClassLabel) else None


def _named(value: object, names: Mapping[int, str]) -> object:
    if isinstance(value, list):
        return [_named(entry, names) for entry in value]
    return names.get(value) if isinstance(value, int) else None


def _text_columns(path: Path, rows: list[tuple[int, list[str]]]) -> dict[str, list[str]]:
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


def _json_columns(path: Path) -> dict[str, list[object]]:
    rows = list(_json_rows(path))
    if not rows:
        raise DataError(f"{path} is empty; it needs one JSON object a line")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _json_rows(path: Path) -> Iterator[dict[str, object]]:
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if "\\u" in line:  # half of a surrogate pair, as cutting a text leaves it, is no text
                json.dumps(row, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: {error}; a .jsonl file holds one whole JSON object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number} holds no JSON object; write one a line, such as "
                '{"text": "...", "label": "..."}, and no array around them'
            )
        yield row


def _parquet_columns(path: Path, wanted: Collection[str]) -> dict[str, Sequence[object]]:
    try:
        with ParquetFile(path) as file:
            names: list[str] = file.schema_arrow.names
            table = file.read(columns=[name for name in names if name in wanted])
        columns = named_columns(Dataset(table), wanted)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error
    except (ArrowException, ValueError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error
    if not table.num_rows and table.num_columns:
        raise DataError(f"{path} is empty; it needs examples")
    return {name: columns.get(name, []) for name in names}


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
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
