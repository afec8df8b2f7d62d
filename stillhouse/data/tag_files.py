"""Tagged sentences from files: CoNLL columns and CoNLL-U.

In a CoNLL file a word is a line of columns, parted by tabs if every line has one, else by blanks
and tabs, and a blank line ends a sentence. Left out are lines with `-DOCSTART-`, and comments:
lines that begin with `#` and have another number of columns than the rest, or read
`# key = value`. In CoNLL-U (https://universaldependencies.org/format.html) left out are comments,
the ranges of multiword tokens (`1-2`) and empty nodes (`1.1`). Both are UTF-8.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stillhouse.data.table_files import read_lines
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLUMN_PREFIX = "conll:"
"""Before the path of a CoNLL file whose name does not tell."""
COLUMN_SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".col")
CONLLU_SUFFIX = ".conllu"
CONLLU_TAGS = {"upos": 3, "xpos": 4, "deprel": 7}
"""Columns of CoNLL-U that hold tags, counted from 0."""
CONLLU_COLUMNS = 10
_FORM = 1
_DOCUMENT = "-DOCSTART-"
_NOTE = re.compile(r"#\s*\S+\s*=")
_WORD_ID = re.compile(r"\d+")
_SKIPPED_ID = re.compile(r"\d+(-|\.)\d+")


class TaggedSentence(NamedTuple):
    """The words of a sentence, and their tags where there are any."""

    words: list[str]
    tags: list[str]


def is_column_file(name: str) -> bool:
    """Tells whether a name is that of a file in CoNLL columns."""
    return name.startswith(COLUMN_PREFIX) or name.lower().endswith(COLUMN_SUFFIXES)


def file_path(name: str) -> Path:
    """Gives the path that a name stands for, which perhaps begins with `COLUMN_PREFIX`."""
    return Path(name.removeprefix(COLUMN_PREFIX)).expanduser()


def read_columns(path: Path, *, word: int = 1, tag: int | None = None) -> list[TaggedSentence]:
    """Reads a CoNLL file.

    Args:
        path: The file.
        word: Column of the words, from 1.
        tag: Column of the tags, from 1; `None` takes the last one.

    Returns:
        The sentences, none of them empty; without tags if the file has no other column.

    Raises:
        DataError: If the file is missing, empty or not UTF-8, has no such column, or lines have
            different numbers of columns.
    """
    rows = _rows(path)
    columns = max(map(len, rows))
    place = columns - 1 if tag is None else tag - 1
    for name, number in (("words", word), ("tags", place + 1)):
        if number > columns:
            raise DataError(
                f"{path} has {columns} column(s), but {name} are looked for in column {number}; "
                "set task.text to the number of the column of words, task.label to that of tags"
            )
    sentences = []
    for part in _sentences(rows):
        words = [fields[word - 1] for fields in part]
        tags = [] if place == word - 1 else [fields[place] for fields in part]
        sentences.append(TaggedSentence(words, tags))
    return sentences


def read_conllu(path: Path, *, tag: str = "upos") -> list[TaggedSentence]:
    """Reads a CoNLL-U file.

    Args:
        path: The file.
        tag: One of `CONLLU_TAGS`.

    Returns:
        The sentences, none of them empty.

    Raises:
        DataError: If the file is missing, empty, not UTF-8, or no CoNLL-U.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = [] if not line.strip() else line.split("\t")
        if line.startswith("#"):
            continue
        if fields and len(fields) != CONLLU_COLUMNS:
            raise DataError(
                f"{path}, line {number}: {len(fields)} columns where CoNLL-U has "
                f"{CONLLU_COLUMNS}, parted by tabs; name a file in other columns as "
                f"{COLUMN_PREFIX}PATH"
            )
        if not fields or _WORD_ID.fullmatch(fields[0]):
            rows.append(fields)
        elif not _SKIPPED_ID.fullmatch(fields[0]):
            raise DataError(
                f"{path}, line {number}: {fields[0]!r} is no number of a word, as CoNLL-U's first "
                f"column has; name a file in other columns as {COLUMN_PREFIX}PATH"
            )
    column = CONLLU_TAGS[tag]
    sentences = [
        TaggedSentence([fields[_FORM] for fields in part], [fields[column] for fields in part])
        for part in _sentences(rows)
    ]
    if not sentences:
        raise DataError(f"{path} holds no word; it needs sentences in the columns of CoNLL-U")
    return sentences


def _rows(path: Path) -> list[list[str]]:
    """Parts a CoNLL file into rows of equally many columns, none where a sentence ends.

    Raises:
        DataError: If the file has no word, or rows have different numbers of columns.
    """
    lines = read_lines(path)
    words = [line for line in lines if line.strip() and not line.startswith(("#", _DOCUMENT))]
    if not words:
        raise DataError(f"{path} holds no word; it needs a word and its tag on each line")
    by_tabs = all("\t" in line for line in words)
    columns = Counter(len(_fields(line, by_tabs=by_tabs)) for line in words).most_common(1)[0][0]
    rows = []
    for number, line in enumerate(lines, start=1):
        fields = _fields(line, by_tabs=by_tabs)
        is_usual = len(fields) == columns
        if line.startswith("#") and (not is_usual or _NOTE.match(line)):
            continue
        if line.startswith(_DOCUMENT) or _DOCUMENT in fields:
            fields = []
        if fields and not is_usual:
            raise DataError(
                f"{path}, line {number}: {len(fields)} column(s) where most lines have {columns}; "
                "write every word with its tag on a line of its own"
            )
        rows.append(fields)
    return rows


def _fields(line: str, *, by_tabs: bool) -> list[str]:
    if not line.strip():
        return []
    # Not str.split(), which would also part words at no-break spaces.
    return line.split("\t") if by_tabs else re.split(r"[ \t]+", line.strip(" \t"))


def _sentences(rows: Iterable[list[str]]) -> Iterable[Sequence[list[str]]]:
    """Groups the rows between empty ones."""
    return (list(part) for is_word, part in groupby(rows, key=bool) if is_word)
