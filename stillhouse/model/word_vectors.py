"""Word vectors from a user's file: a word and its numbers a line, as GloVe and word2vec write them.

Letters in names: D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.lexicon import lookup_form
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_FIELDS = 2
"""word2vec begins with a line that tells how many words and numbers follow."""


def read_word_vectors(
    path: Path, *, wanted: Collection[str], others: int
) -> dict[str, NDArray[np.float32]]:
    """Reads the vectors of some words; of those that are looked up alike the first one counts.

    Args:
        path: The file, in UTF-8.
        wanted: Looked-up forms of words whose vectors are read wherever they stand.
        others: How many of the first of the other words are read as well.

    Returns:
        Vectors `[D]` by looked-up form, in the file's order, which is that of frequency in the
        usual files.

    Raises:
        DataError: If the file is missing or holds no vector, a line has another number of numbers
            than the first one, or what should be a number is none.
    """
    vectors: dict[str, NDArray[np.float32]] = {}
    width, room = 0, others
    for number, fields in _lines(path):
        width = width or len(fields) - 1
        word = _word_of(fields, width, path, number)
        form = lookup_form(word)
        if form in vectors or (form not in wanted and room <= 0):
            continue
        room -= form not in wanted
        vectors[form] = _numbers(fields[len(fields) - width :], path, number)
    if not width:
        raise DataError(
            f"{path} holds no word vector; it needs a word and its numbers on each line, parted by "
            "blanks"
        )
    return vectors


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the fields of every line but the header, with the line's number."""
    try:
        # Some published files have words that are cut within a character.
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                fields = line.rstrip("\r\n ").split(" ")
                is_header = number == 1 and len(fields) == HEADER_FIELDS
                if line.strip() and not (is_header and all(one.isdecimal() for one in fields)):
                    yield number, fields
    except OSError as error:
        raise DataError(f"word vectors {path}: {error.strerror}") from error


def _word_of(fields: list[str], width: int, path: Path, number: int) -> str:
    """Returns what stands before the numbers, which may have blanks in it.

    Raises:
        DataError: If there are not as many numbers as in the first line.
    """
    extra = fields[1 : len(fields) - width]
    if width < 1 or len(fields) <= width or (extra and all(map(_is_number, extra))):
        raise DataError(
            f"{path}, line {number}: {len(fields) - 1} numbers where the first line has {width}; "
            "every line is a word and as many numbers, parted by one blank"
        )
    return " ".join(fields[: len(fields) - width])


def _numbers(fields: list[str], path: Path, number: int) -> NDArray[np.float32]:
    try:
        vector = np.array(fields, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: {error}; correct the line") from error
    if not np.isfinite(vector).all():
        raise DataError(f"{path}, line {number}: a number is not finite; correct the line")
    return vector


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
