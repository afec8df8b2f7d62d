"""How tags mark chunks of words: the schemes IOB1, IOB2, IOBES, BILOU and BMES.

A chunk tag is a mark and, after a hyphen, the chunk's type (`B-NP`); `O` is outside of chunks. In
IOB2 `B` begins every chunk, in IOB1 only one right after another of its type. The other three
mark begin, inside and end of a chunk, and a chunk of one word, by their own letters.

Letters in names: W words of all sentences in a row.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np

from stillhouse.data.labels import abbreviated
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

Scheme: TypeAlias = Literal["IOB2", "IOB1", "IOBES", "BILOU", "BMES"]

OUTSIDE = "O"
MOST_BROKEN_FRACTION = 0.05
"""Corpora have slips; of two schemes the wrong one is broken by most chunks."""
_SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
_LETTERS: dict[Scheme, tuple[str, str, str, str]] = {
    "IOBES": ("B", "I", "E", "S"),
    "BILOU": ("B", "I", "L", "U"),
    "BMES": ("B", "M", "E", "S"),
}
"""Marks of begin, inside, end and of a single word."""
_CHUNK_TAG = re.compile(r"[BIESLUM](-.*)?")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSet:
    """The tags of some sentences.

    Attributes:
        tags: Numbers of the tags of every sentence's words.
        where: What messages call the sentences.
    """

    tags: Sequence[Sequence[int]]
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slips:
    """The words that break a scheme, of those in chunks."""

    scheme: Scheme
    broken_W: NDArray[np.bool_]  # noqa: N815
    chunked: int

    @property
    def count(self) -> int:
        return int(self.broken_W.sum())

    @property
    def are_many(self) -> bool:
        return self.count > MOST_BROKEN_FRACTION * self.chunked


def are_chunk_tags(names: Sequence[str]) -> bool:
    """Tells whether tags mark chunks of words, as `B-NP`, `I-NP` and `O` do."""
    marked = [name for name in names if name != OUTSIDE]
    return bool(marked) and all(_CHUNK_TAG.fullmatch(name) for name in marked)


def check_names(names: Sequence[str], *, where: str) -> None:
    """Refuses names of which most are of chunks, but some are not.

    Raises:
        DataError: Naming those that are not.
    """
    strange = [name for name in names if name != OUTSIDE and not _CHUNK_TAG.fullmatch(name)]
    if strange and OUTSIDE in names and any(name[:2] in ("B-", "I-") for name in names):
        raise DataError(
            f"{where}: tags such as 'B-NP' and 'O' mark chunks, but {abbreviated(strange)} beside "
            f"them is of none of the schemes {', '.join(_SCHEMES)}; correct these tags"
        )


def check_schemes(train: TagSet, others: Sequence[TagSet], names: Sequence[str]) -> Scheme:
    """Finds the scheme of chunk tags; a training set with a few slips gives a warning.

    Args:
        train: Tags to learn from.
        others: Tags to be scored on.
        names: Names of the tags, all of them of chunks.

    Returns:
        The scheme that the training set breaks least, IOB2 first.

    Raises:
        DataError: If more than 5 % of the words in chunks break every scheme, or in `others` that
            of the training set.
    """
    slips = _nearest(train, names)
    if slips.are_many:
        raise DataError(
            f"{train.where}: the tags follow none of the schemes {', '.join(_SCHEMES)}: "
            f"{_told(slips, train, names)}; correct them"
        )
    if slips.count:
        _logger.warning("%s: %s; they stay as they are", train.where, _told(slips, train, names))
    for other in others:
        found = _slips(slips.scheme, other, names)
        if not found.are_many:
            continue
        own = _nearest(other, names)
        if own.are_many:
            raise DataError(
                f"{other.where}: the tags follow none of the schemes {', '.join(_SCHEMES)}: "
                f"{_told(own, other, names)}; correct them"
            )
        raise DataError(
            f"{other.where} is tagged in {own.scheme}, but {train.where} in {slips.scheme} "
            f"({_told(found, other, names)}); convert one of them, so that both mark chunks alike"
        )
    return slips.scheme


def _nearest(tags: TagSet, names: Sequence[str]) -> _Slips:
    return min((_slips(scheme, tags, names) for scheme in _SCHEMES), key=lambda one: one.count)


def _told(slips: _Slips, tags: TagSet, names: Sequence[str]) -> str:
    word = int(slips.broken_W.argmax())
    sentence = int(np.searchsorted(np.cumsum([len(row) for row in tags.tags]), word, "right"))
    tag = names[list(chain.from_iterable(tags.tags))[word]]
    return (
        f"{slips.count} of {slips.chunked} words in chunks break {slips.scheme}, the first by "
        f"{tag!r} in sentence {sentence + 1}"
    )


def _slips(scheme: Scheme, tags: TagSet, names: Sequence[str]) -> _Slips:
    numbers_W = np.fromiter(chain.from_iterable(tags.tags), dtype=np.int64)
    marks = np.array([name[0] for name in names])[numbers_W]
    kinds_of_names = {name[1:]: number for number, name in enumerate(names)}
    kinds = np.array([kinds_of_names[name[1:]] for name in names])[numbers_W]
    sentence = np.repeat(np.arange(len(tags.tags)), [len(row) for row in tags.tags])
    # Whether a word and the next one are of one sentence and of one type of chunk.
    joined = (kinds[1:] == kinds[:-1]) & (sentence[1:] == sentence[:-1])
    before, after = _shifted(marks, joined)
    chunked = marks != OUTSIDE
    if scheme in ("IOB1", "IOB2"):
        needs_one_before = marks == ("I" if scheme == "IOB2" else "B")
        broken = (chunked & ~np.isin(marks, ["B", "I"])) | (
            needs_one_before & ~np.isin(before, ["B", "I"])
        )
    else:
        begin, inside, end, single = _LETTERS[scheme]
        broken = (
            (chunked & ~np.isin(marks, [begin, inside, end, single]))
            | (np.isin(marks, [inside, end]) & ~np.isin(before, [begin, inside]))
            | (np.isin(marks, [begin, inside]) & ~np.isin(after, [inside, end]))
        )
    return _Slips(scheme=scheme, broken_W=broken, chunked=int(chunked.sum()))


def _shifted(
    marks: NDArray[np.str_], joined: NDArray[np.bool_]
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Gives the marks of the words before and after each, `O` where another chunk stands there."""
    before, after = np.full_like(marks, OUTSIDE), np.full_like(marks, OUTSIDE)
    before[1:][joined] = marks[:-1][joined]
    after[:-1][joined] = marks[1:][joined]
    return before, after
