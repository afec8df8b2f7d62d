"""What a text corpus is read from: files, a dataset of the hub, or the embedded texts.

A `.txt` file holds one paragraph a line, and blank lines between documents; blank lines at its ends
part nothing, and a file without any other holds one document a line. A `.jsonl` file, a `.parquet`
file and a dataset of the hub hold one document a row. All are UTF-8.
"""

from __future__ import annotations

import codecs
import glob
import json
import platform
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import datasets
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from stillhouse.data.embedded import load_embedded
from stillhouse.data.hub import HUB_PREFIX, TRAIN_SPLIT
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EMBEDDED = "embedded"
TEXT_SUFFIX = ".txt"
SUFFIXES = (TEXT_SUFFIX, ".jsonl", ".parquet")

LINE_BYTES = 1 << 20
"""A longer line is read in parts."""
ROWS_AT_ONCE = 256
PARQUET_BUFFER_BYTES = 1 << 20


class Document(NamedTuple):
    """A document's text in parts, and how much of the corpus is read up to it, 0..1."""

    parts: Iterable[str]
    done_fraction: float


def read_documents(name: str, column: str) -> Iterator[Document]:
    """Reads a corpus as a stream.

    Args:
        name: What `CorpusSettings.name` may be.
        column: Text column of all but `.txt` files.

    Returns:
        The documents; the parts of each have to be read before the next one is asked for.

    Raises:
        DataError: If the corpus is missing or unusable; of a part of it, when that is reached.
    """
    if name == EMBEDDED:
        texts = load_embedded().train["text_a"]
        return (Document([text], index / len(texts)) for index, text in enumerate(texts))
    if name.startswith(HUB_PREFIX):
        return _hub_documents(name, column)
    return _file_documents(_files(name), column)


def source_state(name: str) -> list[list[Any]]:
    """Tells cheaply whether a corpus has changed: names, sizes and times of its files.

    Raises:
        DataError: If there is no such corpus.
    """
    if name == EMBEDDED:
        return [["Python", platform.python_version()]]
    if not name.startswith(HUB_PREFIX):
        return [_file_state(path) for path in _files(name)]
    folder = Path(name.removeprefix(HUB_PREFIX).partition(":")[0]).expanduser()
    return [_file_state(path) for path in sorted(folder.rglob("*")) if path.is_file()] or [[name]]


def _file_state(path: Path) -> list[Any]:
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path") from error
    return [str(path), state.st_size, state.st_mtime_ns]


def _files(name: str) -> list[Path]:
    """Finds the files of a corpus, in the order of their names."""
    path = Path(name).expanduser()
    kinds = ", ".join(SUFFIXES)
    if path.is_dir():
        below = (file for file in path.rglob("*") if not file.name.startswith("."))
        found = [file for file in below if file.suffix.lower() in SUFFIXES and file.is_file()]
        missing = f"{path} holds no file of the kinds {kinds}"
    else:
        matches = [path] if path.exists() else map(Path, glob.glob(str(path), recursive=True))
        found = [file for file in matches if file.is_file()]
        missing = f"there is no corpus {name}"
    if not found:
        raise DataError(
            f"{missing}; give such a file, a folder of them, a pattern such as texts/*.txt, "
            f"hf:OWNER/NAME or {EMBEDDED}"
        )
    strange = [file for file in found if file.suffix.lower() not in SUFFIXES]
    if strange:
        raise DataError(f"{strange[0]} is none of the kinds {kinds} that a corpus may have")
    return sorted(found)


def _file_documents(files: list[Path], column: str) -> Iterator[Document]:
    sizes = [max(1, file.stat().st_size) for file in files]
    before, total = 0, sum(sizes)
    for file, size in zip(files, sizes, strict=True):
        match file.suffix.lower():
            case ".jsonl":
                documents = _json_documents(file, column)
            case ".parquet":
                documents = _parquet_documents(file, column)
            case _:
                documents = _text_documents(file)
        for parts, done in documents:
            yield Document(parts, (before + done * size) / total)
        before += size


class _Line(NamedTuple):
    """A line, or a part of a long one.

    Attributes:
        number: Counts lines, from 1.
        text: With the line end.
        blank: Whether the line is nothing but white space; a part of a longer one never is.
        done_fraction: Where in its file it ends, 0..1.
    """

    number: int
    text: str
    blank: bool
    done_fraction: float


def _text_documents(path: Path) -> Iterator[Document]:
    parted = _has_gap(path)

    def document_of(line: _Line) -> tuple[bool, int]:
        return line.blank, 0 if parted else line.number

    for (blank, _), lines in groupby(_lines(path), document_of):
        if not blank:
            first = next(lines)
            rest = (line.text for line in lines)
            yield Document(chain([first.text], rest), first.done_fraction)


def _has_gap(path: Path) -> bool:
    """Tells whether a file has a blank line between two others."""
    runs = groupby(line.blank for line in _lines(path))
    return len(list(islice((blank for blank, _ in runs if not blank), 2))) > 1


def _lines(path: Path) -> Iterator[_Line]:
    """Reads a UTF-8 file; only line feeds, with or without carriage return, end a line."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, number, begins = 0, 1, True
    try:
        with path.open("rb") as file:
            size = max(1, path.stat().st_size)
            while part := file.readline(LINE_BYTES):
                text = _decoded(decoder, part, path, position).replace("\r\n", "\n")
                if position == 0:
                    text = text.removeprefix("\ufeff")
                position += len(part)
                ends = part.endswith(b"\n") or len(part) < LINE_BYTES
                blank = begins and ends and not text.strip()
                yield _Line(number, text, blank, position / size)
                number, begins = number + ends, ends
            _decoded(decoder, b"", path, position)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror}); check the path") from error


def _decoded(decoder: codecs.IncrementalDecoder, part: bytes, path: Path, position: int) -> str:
    kept = len(decoder.getstate()[0])
    nul = part.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{path} is no text: byte {position + nul} is NUL; give files of plain UTF-8 text"
        )
    try:
        return decoder.decode(part, final=not part)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {position - kept + error.start} does not belong there "
            f"({error.reason}); save it as UTF-8"
        ) from error


def _json_documents(path: Path, column: str) -> Iterator[Document]:
    for number, lines in groupby(_lines(path), lambda line: line.number):
        parts = list(lines)
        source = "".join(part.text for part in parts)
        if not source.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(source)
            text = _text_of(row, column, where)
            if "\\u" in source:  # half of a surrogate pair, as cutting a text leaves it, is no text
                text.encode()
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{where}: {error}; a .jsonl file holds one whole JSON object a line"
            ) from error
        yield Document([text], parts[-1].done_fraction)


def _parquet_documents(path: Path, column: str) -> Iterator[Document]:
    number = 0
    try:
        with ParquetFile(path, buffer_size=PARQUET_BUFFER_BYTES) as file:
            _check_column(column, file.schema_arrow.names, str(path))
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
                for row in batch.to_pylist():
                    number += 1
                    text = _text_of(row, column, f"{path}, row {number}")
                    yield Document([text], number / total)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error
    except (ArrowException, ValueError) as error:
        raise DataError(f"{path} is no Parquet file that can be read: {error}") from error


def _hub_documents(name: str, column: str) -> Iterator[Document]:
    dataset, _, config = name.removeprefix(HUB_PREFIX).partition(":")
    try:
        splits = datasets.load_dataset(dataset, config or None, streaming=True)
        if TRAIN_SPLIT not in splits:
            raise DataError(
                f"{name} has no split {TRAIN_SPLIT!r}, only {', '.join(map(repr, splits))}; name "
                "another dataset or configuration"
            )
        rows = splits[TRAIN_SPLIT]
        if column in (rows.column_names or ()):
            rows = rows.select_columns([column])
        for number, row in enumerate(rows, start=1):
            yield Document([_text_of(row, column, f"{name}, row {number}")], 0.0)
    except (
        OSError, ValueError, RuntimeError, StopIteration, datasets.exceptions.DatasetsError
    ) as error:  # fmt: skip
        raise DataError(
            f"cannot read {name} ({error}); check the name, go online, or give a folder that "
            "`datasets` can read as hf:./FOLDER"
        ) from error


def _text_of(row: Mapping[str, object], column: str, where: str) -> str:
    """Takes the text out of a row; null is no text."""
    if not isinstance(row, dict):
        raise DataError(
            f'{where} holds no JSON object; write one a line, such as {{"text": "..."}}'
        )
    _check_column(column, row, where)
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(
            f"{where}: column {column!r} holds {str(text)[:40]!r}, which is no text; name another "
            "column with corpus.text"
        )
    return text


def _check_column(column: str, names: Iterable[str], where: str) -> None:
    if column not in names:
        raise DataError(
            f"{where} has no column {column!r}, only {', '.join(map(repr, names))}; name one with "
            "corpus.text"
        )
