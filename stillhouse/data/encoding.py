"""Tokenised examples, kept as flat arrays."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from stillhouse.data.answers import AnswerSheet, SpanGold, TagGold
from stillhouse.data.examples import label_array
from stillhouse.data.question_windows import USUAL_STRIDE, cut_windows
from stillhouse.data.word_pieces import cut_words
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from stillhouse.data.answers import Gold
    from stillhouse.data.examples import LabelArray

TEXTS_AT_ONCE = 8_192
NO_CLASS = -100
"""Class of an unlabelled example; PyTorch's cross-entropy leaves it out."""
UNKNOWN_TAG = -1
"""Tag of a word that has one which nobody knows: a teacher may be asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedSet:
    """N tokenised examples, one after the other without padding.

    Attributes:
        input_ids: Token numbers of all examples, int32.
        token_type_ids: Text (0 or 1) that each token belongs to, int8.
        offsets: `[N + 1]` int64; example i holds the tokens `offsets[i]:offsets[i + 1]`.
        labels: Classes, sets of classes, numbers or spans, see `LabelArray`; `None` without labels,
            and for tags.
        tags: `[P]` int64 tag of every one of the P tokens: `NO_CLASS` where none is asked (special
            tokens, and all pieces of a word but its first), `UNKNOWN_TAG` at the first piece of a
            word whose tag nobody knows; `None` for other tasks.
        tag_names: Name of every tag number; empty for other tasks.
        sheet: What turns marked spans into answers; `None` for other tasks than questions.
        pad_id: Token number to pad with.
        longest: Tokens of the longest example.
    """

    input_ids: NDArray[np.int32]
    token_type_ids: NDArray[np.int8]
    offsets: NDArray[np.int64]
    labels: LabelArray | None = None
    tags: NDArray[np.int64] | None = None
    tag_names: tuple[str, ...] = ()
    sheet: AnswerSheet | None = None
    pad_id: int = 0
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        """Checks that the arrays belong together.

        Raises:
            DataError: If their lengths disagree.
        """
        examples, tokens = len(self.offsets) - 1, len(self.input_ids)
        if (
            examples < 0
            or self.offsets[-1] != tokens
            or len(self.token_type_ids) != tokens
            or (self.labels is not None and len(self.labels) != examples)
            or (self.tags is not None and len(self.tags) != tokens)
            or (self.sheet is not None and not self.sheet.fits(examples, tokens))
        ):
            raise DataError(
                f"an encoded set of {examples} examples and {tokens} tokens needs as many labels, "
                "token types, tags and a last offset of the number of tokens"
            )
        object.__setattr__(self, "longest", int(self.lengths.max(initial=0)))

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[N]` tokens of every example."""
        return np.diff(self.offsets)

    @property
    def classes(self) -> LabelArray | None:
        """Labels by which examples can be drawn in proportion; none where they are no classes."""
        return None if self.sheet is not None else self.labels

    @property
    def gold(self) -> Gold:
        """What the answers of a model are scored against.

        Raises:
            DataError: If nothing is known of the examples but their texts.
        """
        if self.sheet is not None:
            return SpanGold(offsets=self.offsets, sheet=self.sheet)
        if self.tags is not None and self.tag_names:
            return TagGold(offsets=self.offsets, tags_P=self.tags, names=self.tag_names)
        if self.labels is None:
            raise DataError("examples without labels cannot be scored; give labelled ones")
        return self.labels

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> EncodedSet:
        """Copies the given examples, in the given order.

        Args:
            indices: Positions of examples, 0 to N - 1.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[chosen]
        offsets = _to_offsets(lengths)
        tokens = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths)
        return EncodedSet(
            input_ids=self.input_ids[tokens],
            token_type_ids=self.token_type_ids[tokens],
            offsets=offsets,
            labels=None if self.labels is None else self.labels[chosen],
            tags=None if self.tags is None else self.tags[tokens],
            tag_names=self.tag_names,
            sheet=None if self.sheet is None else self.sheet.select(chosen, tokens),
            pad_id=self.pad_id,
        )

    def fingerprint(self) -> str:
        """Gives the SHA-256, in hexadecimal, of every array, and of names and questions."""
        digest = hashlib.sha256(f"pad {self.pad_id}".encode())
        arrays: list[NDArray[Any] | None] = [
            self.input_ids, self.token_type_ids, self.offsets, self.labels
        ]  # fmt: skip
        if self.tags is not None:
            arrays.append(self.tags)
            digest.update(json.dumps(self.tag_names).encode())
        if self.sheet is not None:
            arrays += [self.sheet.question_of_N, self.sheet.characters_P2]
            digest.update(self.sheet.fingerprint().encode())
        for array in arrays:
            if array is None:
                digest.update(b"none")
                continue
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    stride: int = USUAL_STRIDE,
) -> EncodedSet:
    """Tokenises every example.

    Args:
        dataset: Columns `text_a`, perhaps `text_b`, perhaps `label`; or `words`, perhaps `tags`; or
            those of questions, see `questions.py`.
        tokenizer: A tokeniser; token types of one without them are 0.
        max_length: Most tokens of an example, special ones included; the tokeniser's own limit
            holds as well. The longer text of a pair is cut first, words beyond it are left out,
            and contexts of questions are cut into windows, each an example.
        stride: Tokens that neighbouring windows share, at most half of those of the context.

    Raises:
        DataError: If words or questions cannot be told apart in the tokens, or there is no room for
            them.
    """
    plain = dataset.with_format(None)
    limit = min(max_length, tokenizer.model_max_length)
    if "words" in plain.column_names:
        return _encode_words(plain, tokenizer, limit)
    if "question" in plain.column_names:
        return _encode_questions(plain, tokenizer, limit, stride)
    parts = [
        _encode_texts(plain[start : start + TEXTS_AT_ONCE], tokenizer, limit)
        for start in range(0, len(plain), TEXTS_AT_ONCE)
    ]
    lengths = _joined([lengths for _, _, lengths in parts], np.int64)
    return EncodedSet(
        input_ids=_joined([ids for ids, _, _ in parts], np.int32),
        token_type_ids=_joined([types for _, types, _ in parts], np.int8),
        offsets=_to_offsets(lengths),
        labels=label_array(plain) if "label" in plain.column_names else None,
        pad_id=tokenizer.pad_token_id or 0,
    )


def concatenate(sets: Sequence[EncodedSet]) -> EncodedSet:
    """Joins sets, one after the other.

    Examples of a set without labels get -100 (classes) or NaN (numbers, and every class of a
    multi-label task) where another set has labels; tags of words stay unknown.

    Args:
        sets: At least one set.

    Raises:
        DataError: If there is no set, or the sets are padded or labelled in different ways.
    """
    if not sets:
        raise DataError("there is no encoded set to join; give at least one")
    kinds = {(part.labels.shape[1:], part.labels.dtype) for part in sets if part.labels is not None}
    tag_names = {part.tag_names for part in sets if part.tag_names}
    looks = {(part.pad_id, part.tags is None, part.sheet is None) for part in sets}
    if max(len(kinds), len(tag_names), len(looks)) > 1:
        raise DataError(
            "encoded sets with unlike labels, or of different tokenisers, cannot be joined; encode "
            "them alike"
        )
    kind = kinds.pop() if kinds else None
    tags = [part.tags for part in sets if part.tags is not None]
    sheets = [part.sheet for part in sets if part.sheet is not None]
    return EncodedSet(
        input_ids=np.concatenate([part.input_ids for part in sets]),
        token_type_ids=np.concatenate([part.token_type_ids for part in sets]),
        offsets=_to_offsets(np.concatenate([part.lengths for part in sets])),
        labels=None
        if kind is None
        else np.concatenate([_labels_or_filler(part, *kind) for part in sets]),
        tags=np.concatenate(tags) if tags else None,
        tag_names=tag_names.pop() if tag_names else (),
        sheet=AnswerSheet.join(sheets) if sheets else None,
        pad_id=sets[0].pad_id,
    )


def _encode_words(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int) -> EncodedSet:
    columns = dataset[:]
    pieces = cut_words(columns["words"], tokenizer, limit)
    begins_P = pieces.words >= 0
    tags_P = np.where(begins_P, UNKNOWN_TAG, NO_CLASS).astype(np.int64)
    names: tuple[str, ...] = ()
    if "tags" in columns:
        names = tuple(dataset.features["tags"].feature.names)
        numbers = np.fromiter(chain.from_iterable(columns["tags"]), dtype=np.int64)
        tags_P[begins_P] = numbers[pieces.words[begins_P]]
    return EncodedSet(
        input_ids=pieces.input_ids,
        token_type_ids=pieces.token_type_ids,
        offsets=_to_offsets(pieces.lengths),
        tags=tags_P,
        tag_names=names,
        pad_id=tokenizer.pad_token_id or 0,
    )


def _encode_questions(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int, stride: int
) -> EncodedSet:
    windows = cut_windows(dataset[:], tokenizer, limit, stride)
    return EncodedSet(
        input_ids=windows.input_ids,
        token_type_ids=windows.token_type_ids,
        offsets=_to_offsets(windows.lengths),
        labels=windows.labels,
        sheet=windows.sheet,
        pad_id=tokenizer.pad_token_id or 0,
    )


def _encode_texts(
    columns: dict[str, list[str]], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.int64]]:
    encoding = tokenizer(
        columns["text_a"],
        columns.get("text_b"),
        truncation=True,
        max_length=limit,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids="token_type_ids" in tokenizer.model_input_names,
    )
    rows: list[list[int]] = encoding["input_ids"]
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    tokens = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=tokens)
    if "token_type_ids" not in encoding:
        return ids, np.zeros(tokens, dtype=np.int8), lengths
    types = chain.from_iterable(encoding["token_type_ids"])
    return ids, np.fromiter(types, dtype=np.int8, count=tokens), lengths


def _labels_or_filler(
    part: EncodedSet, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    if part.labels is not None:
        return part.labels
    filler = np.nan if dtype.kind == "f" else NO_CLASS
    return np.full((len(part), *shape), filler, dtype=dtype)


def _to_offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _joined(arrays: list[NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
