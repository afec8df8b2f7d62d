"""Sentences of words as numbers, and batches of them.

A word is spelt out once however often it occurs: sentences point at forms, and a batch holds the
spelling of each of its forms once.

Letters in names: N sentences, W words of all sentences in a row, F forms, J characters of a form,
B sentences of a batch, T words of the longest, U forms of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from stillhouse.data.encoding import NO_CLASS
from stillhouse.data.lexicon import MOST_CHARACTERS, PADDING
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stillhouse.data.lexicon import Lexicon

MOST_WORDS_OF_UNLABELLED = 100
"""As in CVT's code: longer sentences without tags are left out."""


class UsableText(NamedTuple):
    """Sentences without tags that can be learnt from.

    Attributes:
        sentences: Their words.
        too_long: Sentences that were left out for their length.
        empty: Sentences that were left out because they have no word.
    """

    sentences: list[list[str]]
    too_long: int
    empty: int


def usable_text(sentences: Sequence[Sequence[str]]) -> UsableText:
    """Leaves out sentences without a word and those of more than 100 words, and counts them."""
    lengths = [len(words) for words in sentences]
    usable = [
        list(words)
        for words, length in zip(sentences, lengths, strict=True)
        if 0 < length <= MOST_WORDS_OF_UNLABELLED
    ]
    empty = lengths.count(0)
    return UsableText(usable, len(lengths) - empty - len(usable), empty)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordSet:
    """N sentences of words as numbers, one after the other without padding.

    Attributes:
        forms_W: Number of the form of every word.
        offsets: `[N + 1]` sentence i holds the words `offsets[i]:offsets[i + 1]`.
        words_F: Row of every form in the table of words.
        spellings_FJ: Characters of every form, padded.
        tags_W: Tag of every word, as the tagger numbers it; `None` without tags.
    """

    forms_W: NDArray[np.int32]  # noqa: N815
    offsets: NDArray[np.int64]
    words_F: NDArray[np.int64]  # noqa: N815
    spellings_FJ: NDArray[np.int32]  # noqa: N815
    tags_W: NDArray[np.int64] | None = None  # noqa: N815

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[N]` words of every sentence."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordBatch:
    """Padded sentences.

    Attributes:
        words_BT: Rows in the table of words.
        forms_BT: Which of the batch's spellings a word has.
        spellings_UJ: Characters of the batch's forms.
        mask_BT: True for words, False for padding.
        lengths_B: Words of every sentence, on the processor, as packed sequences want them.
        tags_BT: Tags as int64, -100 for padding; `None` without tags.
    """

    words_BT: Tensor  # noqa: N815
    forms_BT: Tensor  # noqa: N815
    spellings_UJ: Tensor  # noqa: N815
    mask_BT: Tensor  # noqa: N815
    lengths_B: Tensor  # noqa: N815
    tags_BT: Tensor | None = None  # noqa: N815

    def to(self, device: torch.device | str) -> WordBatch:
        """Moves every tensor but the lengths to a device."""
        return WordBatch(
            words_BT=self.words_BT.to(device),
            forms_BT=self.forms_BT.to(device),
            spellings_UJ=self.spellings_UJ.to(device),
            mask_BT=self.mask_BT.to(device),
            lengths_B=self.lengths_B,
            tags_BT=None if self.tags_BT is None else self.tags_BT.to(device),
        )


def encode_words(
    sentences: Sequence[Sequence[str]],
    lexicon: Lexicon,
    *,
    tags: Sequence[Sequence[int]] | None = None,
) -> WordSet:
    """Numbers the words of sentences.

    Args:
        sentences: At least one word each.
        lexicon: What is known.
        tags: Of every word, as the tagger numbers them.

    Raises:
        DataError: If there is no sentence, one is empty, or one has not as many tags as words.
    """
    lengths = [len(words) for words in sentences]
    if not lengths or not all(lengths):
        raise DataError(
            f"a tagger reads sentences of at least one word, but {lengths.count(0)} of "
            f"{len(lengths)} have none; leave empty sentences out"
        )
    if tags is not None and [len(row) for row in tags] != lengths:
        raise DataError("sentences need a tag for each of their words; give as many tags as words")
    numbers: dict[str, int] = {}
    forms_W = np.fromiter(
        (numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(sentences)),
        dtype=np.int32,
        count=sum(lengths),
    )
    longest = min(MOST_CHARACTERS, max(map(len, numbers)))
    spellings_FJ = np.full((len(numbers), max(1, longest)), PADDING, dtype=np.int32)
    for number, form in enumerate(numbers):
        spelling = lexicon.spelling(form)
        spellings_FJ[number, : len(spelling)] = spelling
    return WordSet(
        forms_W=forms_W,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
        words_F=np.array([lexicon.word_number(form) for form in numbers], dtype=np.int64),
        spellings_FJ=spellings_FJ,
        tags_W=None if tags is None else np.fromiter(chain.from_iterable(tags), dtype=np.int64),
    )


def collate_words(encoded: WordSet, indices: NDArray[np.int64]) -> WordBatch:
    """Pads the given sentences to the longest of them.

    Args:
        encoded: N sentences.
        indices: B positions of sentences.
    """
    starts_B = encoded.offsets[indices]
    lengths_B = encoded.offsets[indices + 1] - starts_B
    place_T = np.arange(lengths_B.max())
    mask_BT = place_T < lengths_B[:, None]
    words = (starts_B[:, None] + place_T)[mask_BT]
    forms_U, own = np.unique(encoded.forms_W[words], return_inverse=True)
    spellings_UJ = encoded.spellings_FJ[forms_U]
    longest = int((spellings_UJ != PADDING).sum(axis=1).max())

    def padded(values: NDArray[np.int64], filler: int) -> Tensor:
        padded_BT = np.full(mask_BT.shape, filler, dtype=np.int64)
        padded_BT[mask_BT] = values
        return torch.from_numpy(padded_BT)

    return WordBatch(
        words_BT=padded(encoded.words_F[encoded.forms_W[words]], PADDING),
        forms_BT=padded(own, 0),
        spellings_UJ=torch.from_numpy(spellings_UJ[:, : max(1, longest)].astype(np.int64)),
        mask_BT=torch.from_numpy(mask_BT),
        lengths_B=torch.from_numpy(lengths_B.copy()),
        tags_BT=None if encoded.tags_W is None else padded(encoded.tags_W[words], NO_CLASS),
    )
