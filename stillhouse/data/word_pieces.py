"""Sentences of words as tokens, with the token at which each word begins.

Letters in names: N sentences, P tokens of all sentences in a row, Q pieces of all before they are
cut and get special tokens.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stillhouse.data.frame import frame_of
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from stillhouse.data.frame import Frame

SENTENCES_AT_ONCE = 8_192

_logger = logging.getLogger(__name__)


class WordPieces(NamedTuple):
    """Tokens of N sentences.

    Attributes:
        input_ids: `[P]` token numbers.
        token_type_ids: `[P]` their types.
        lengths: `[N]` tokens of every sentence.
        words: `[P]` number of the word, counted through all sentences, whose first piece a token
            is; -1 of all other tokens.
    """

    input_ids: NDArray[np.int32]
    token_type_ids: NDArray[np.int8]
    lengths: NDArray[np.int64]
    words: NDArray[np.int64]


def cut_words(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, limit: int
) -> WordPieces:
    """Tokenises sentences word by word; what is too long is cut off, with a warning.

    A word of which the tokeniser leaves nothing, such as a zero-width space, becomes its unknown
    token. Byte-level tokenisers such as RoBERTa's get every word with a space before it, as with
    `add_prefix_space`.

    Args:
        sentences: Words of every sentence.
        tokenizer: A tokeniser with a fast backend.
        limit: Most tokens of a sentence, special ones included.

    Raises:
        DataError: If the tokeniser has no fast backend, does not keep words apart, or the limit has
            no room for a word.
    """
    frame = frame_of(tokenizer, texts=1)
    room = limit - frame.count
    if room < 1:
        raise DataError(f"{limit} tokens have no room for a word; raise task.max_length")
    mark = _word_mark(tokenizer)
    batches = [
        _read(sentences[first : first + SENTENCES_AT_ONCE], tokenizer, mark)
        for first in range(0, len(sentences), SENTENCES_AT_ONCE)
    ]
    ids, words, counts = (
        np.fromiter(chain.from_iterable(column), dtype=np.int64)
        for column in (zip(*batches, strict=True) if batches else ([], [], []))
    )
    sizes = np.array([len(sentence) for sentence in sentences], dtype=np.int64)
    pieces = _Pieces(ids=ids, words=words, counts=counts, sizes=sizes)
    _warn_of_cut(pieces, room, limit)
    return _framed(pieces, frame, room)


class _Pieces(NamedTuple):
    """Pieces of sentences without special tokens.

    Attributes:
        ids: `[Q]` token numbers.
        words: `[Q]` number of the word in its sentence that a piece is of.
        counts: `[N]` pieces of every sentence.
        sizes: `[N]` words of every sentence.
    """

    ids: NDArray[np.int64]
    words: NDArray[np.int64]
    counts: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def sentences(self) -> NDArray[np.int64]:
        """`[Q]` sentence of every piece."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def places(self) -> NDArray[np.int64]:
        """`[Q]` place of every piece in its sentence."""
        starts_N = np.cumsum(self.counts) - self.counts
        return np.arange(len(self.ids)) - np.repeat(starts_N, self.counts)

    def are_first(self) -> NDArray[np.bool_]:
        """`[Q]` whether a piece is the first of its word."""
        goes_on: NDArray[np.bool_] = (self.places() > 0) & (self.words == np.roll(self.words, 1))
        return ~goes_on


def _framed(pieces: _Pieces, frame: Frame, room: int) -> WordPieces:
    """Cuts every sentence to `room` pieces and puts the special tokens around it."""
    before, after = frame.gaps
    lengths_N = np.minimum(pieces.counts, room) + frame.count
    ends_N = np.cumsum(lengths_N)
    starts_N = ends_N - lengths_N
    sentence_Q, place_Q = pieces.sentences(), pieces.places()
    kept_Q = place_Q < room
    token_Q = (starts_N[sentence_Q] + len(before) + place_Q)[kept_Q]
    first_word_N = np.cumsum(pieces.sizes) - pieces.sizes
    word_Q = np.where(pieces.are_first(), first_word_N[sentence_Q] + pieces.words, -1)
    input_ids = np.empty(lengths_N.sum(), dtype=np.int32)
    token_type_ids = np.full(len(input_ids), frame.text_types[0], dtype=np.int8)
    words = np.full(len(input_ids), -1, dtype=np.int64)
    input_ids[token_Q], words[token_Q] = pieces.ids[kept_Q], word_Q[kept_Q]
    for place_N, gap, types in zip(
        (starts_N, ends_N - len(after)), frame.gaps, frame.gap_types, strict=True
    ):
        tokens = place_N[:, None] + np.arange(len(gap))
        input_ids[tokens], token_type_ids[tokens] = gap, types
    return WordPieces(input_ids, token_type_ids, lengths_N, words)


def _warn_of_cut(pieces: _Pieces, room: int, limit: int) -> None:
    first_Q = pieces.are_first()
    cut_Q = first_Q & (pieces.places() >= room)
    if cut_Q.any():
        _logger.warning(
            "%d words of %d sentences are beyond task.max_length (%d tokens) and not scored",
            cut_Q.sum(),
            len(np.unique(pieces.sentences()[cut_Q])),
            limit,
        )
    vanished = int(pieces.sizes.sum() - first_Q.sum())
    if vanished:
        _logger.warning(
            "%d words are nothing to the tokeniser, which has no unknown token, and not scored",
            vanished,
        )


def _read(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, mark: str
) -> tuple[list[int], list[int], list[int]]:
    """Tokenises sentences whole.

    Returns:
        The pieces of all, the word that each is of, and the number of pieces of every sentence.
    """
    rows = [[mark + word for word in sentence] for sentence in sentences]
    read = _tokenise(rows, tokenizer)
    short = [number for number, row in enumerate(rows) if len(set(read[number].words)) < len(row)]
    if short and tokenizer.unk_token is not None:
        for number in short:
            known = set(read[number].words)
            rows[number] = [
                word if place in known else tokenizer.unk_token
                for place, word in enumerate(rows[number])
            ]
        again = _tokenise([rows[number] for number in short], tokenizer)
        for number, sentence in zip(short, again, strict=True):
            read[number] = sentence
    return (
        list(chain.from_iterable(sentence.ids for sentence in read)),
        list(chain.from_iterable(sentence.words for sentence in read)),
        [len(sentence.ids) for sentence in read],
    )


class _Sentence(NamedTuple):
    ids: list[int]
    words: list[int]


def _tokenise(rows: Sequence[list[str]], tokenizer: PreTrainedTokenizerBase) -> list[_Sentence]:
    encoding = tokenizer(
        rows,
        is_split_into_words=True,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # of sentences that are cut only later
    )
    return [_Sentence(each.ids, each.word_ids) for each in encoding.encodings]


def _word_mark(tokenizer: PreTrainedTokenizerBase) -> str:
    """Finds what to put before a word, so that it becomes what it is within a text.

    Raises:
        DataError: If nothing does.
    """
    text = tokenizer("a a", add_special_tokens=False, return_offsets_mapping=True)
    spans = zip(text["input_ids"], text["offset_mapping"], strict=True)
    within = [token for token, (start, _) in spans if start > 0]
    for mark in ("", " "):
        second = _tokenise([[f"{mark}a", f"{mark}a"]], tokenizer)[0]
        if within == [i for i, word in zip(second.ids, second.words, strict=True) if word == 1]:
            return mark
    raise DataError(
        f"{type(tokenizer).__name__} makes other tokens of single words than of words in a text; "
        "take a checkpoint whose tokeniser does not"
    )
