"""The special tokens that a tokeniser puts around one or two texts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

_PROBE = "a"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """Special tokens before, between and after texts.

    Attributes:
        gaps: Special tokens before the first text, after it, and so on, int32; one gap more than
            there are texts.
        gap_types: Token types of each gap, int8.
        text_types: Token type of each text.
    """

    gaps: tuple[NDArray[np.int32], ...]
    gap_types: tuple[NDArray[np.int8], ...]
    text_types: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of special tokens."""
        return sum(map(len, self.gaps))


def frame_of(tokenizer: PreTrainedTokenizerBase, texts: int) -> Frame:
    """Finds the special tokens around texts by tokenising some.

    Args:
        tokenizer: Any with a fast backend, which tells what every token belongs to.
        texts: 1 or 2.

    Raises:
        DataError: If the tokeniser has no fast backend.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"{type(tokenizer).__name__} has no fast backend (of the library tokenizers) to tell "
            "which tokens a word or an answer became; take a checkpoint that has a tokenizer.json"
        )
    has_types = "token_type_ids" in tokenizer.model_input_names
    encoding = tokenizer(*[_PROBE] * texts, return_token_type_ids=has_types)
    ids: list[int] = encoding["input_ids"]
    types: list[int] = encoding["token_type_ids"] if has_types else [0] * len(ids)
    gaps: list[list[int]] = [[]]
    text_types = []
    for text, run in groupby(range(len(ids)), key=encoding.sequence_ids(0).__getitem__):
        places = list(run)
        if text is None:
            gaps[-1] = places
        else:
            text_types.append(types[places[0]])
            gaps.append([])
    if len(text_types) != texts:
        raise DataError(
            f"{type(tokenizer).__name__} makes no token of {_PROBE!r}; take another checkpoint"
        )
    return Frame(
        gaps=tuple(np.array([ids[place] for place in gap], dtype=np.int32) for gap in gaps),
        gap_types=tuple(np.array([types[place] for place in gap], dtype=np.int8) for gap in gaps),
        text_types=tuple(text_types),
    )
