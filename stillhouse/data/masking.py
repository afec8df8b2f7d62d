"""Which tokens of a sequence are hidden, and what stands in their place.

Letters in names: B sequences, T tokens, N chosen tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.encoding import NO_CLASS
from stillhouse.errors import DataError, SettingsError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

MASK_FRACTION = 0.8
"""Of the chosen tokens, become the mask token; Devlin et al. 2019, section 3.1."""
RANDOM_FRACTION = 0.1
"""Of the chosen tokens, become another token; the rest stay as they are."""

_CONTINUES = "##"
_BEGINS = ("Ġ", "▁", "Ċ")
"""Begin a token of a byte-level or SentencePiece vocabulary that begins a word or a line."""
_STREAM = 0x6D61736B
"""Keeps these draws apart from others of the same seed and step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskingRule:
    """How tokens are chosen.

    Attributes:
        probability: Of each token, or of each word, to be chosen.
        whole_word: Whether all pieces of a word are chosen together.
    """

    probability: float = 0.15
    whole_word: bool = False

    def __post_init__(self) -> None:
        """Refuses what is no probability, or chooses nothing."""
        if not 0 < self.probability < 1:
            raise SettingsError(
                f"the probability to mask a token is above 0 and below 1, but is "
                f"{self.probability:g}; 0.15 is usual"
            )


class Masker:
    """Hides tokens of sequences as BERT's training does.

    Tokens, or words, are chosen independently of each other; where none of a sequence is, the one
    that was nearest to it is. Of the chosen tokens 80 % become the mask token, 10 % a random one
    and 10 % stay, drawn for each piece of a word by itself. Special tokens are neither chosen nor
    put in.

    Source: Devlin et al. 2019, section 3.1. Their code chooses 15 % of each sequence exactly; ours
    draws each token, as that of RoBERTa does nearly, so that no sorting is needed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rule: MaskingRule) -> None:
        """Reads the vocabulary.

        Raises:
            DataError: If the tokeniser has no mask token, or no other token.
        """
        if tokenizer.mask_token_id is None:
            raise DataError(
                f"masking needs a mask token, but {type(tokenizer).__name__} has none; take the "
                "tokeniser of an encoder that was trained on masked words"
            )
        self.rule = rule
        self._mask_id = int(tokenizer.mask_token_id)
        vocabulary = tokenizer.get_vocab()
        self._is_special_V = np.zeros(max(vocabulary.values()) + 1, bool)
        self._is_special_V[_special_ids(tokenizer)] = True
        known = np.array(sorted(set(vocabulary.values())), np.int64)
        self._ordinary = known[~self._is_special_V[known]]
        if not len(self._ordinary):
            raise DataError("masking needs words, but the tokeniser has special tokens alone")
        self._continues_V = _continuations(vocabulary, len(self._is_special_V))

    def mask(
        self, ids_BT: NDArray[Any], *, seed: int, step: int
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Hides tokens; a function of its arguments alone.

        Args:
            ids_BT: Token numbers, of any integer type; they stay as they are.
            seed: Of the training, at least 0.
            step: Another number, at least 0, gives other choices.

        Returns:
            The token numbers to read, and those to tell: −100 where none was chosen.
        """
        generator = np.random.default_rng([_STREAM, seed, step])
        chosen_BT = self._choose(ids_BT, generator)
        labels_BT = np.where(chosen_BT, ids_BT, NO_CLASS).astype(np.int64)
        masked_BT = ids_BT.copy()
        before_N = ids_BT[chosen_BT]
        fate_N = generator.random(len(before_N))
        random_N = generator.choice(self._ordinary, size=len(before_N))
        masked_BT[chosen_BT] = np.select(
            [fate_N < MASK_FRACTION, fate_N < MASK_FRACTION + RANDOM_FRACTION],
            [self._mask_id, random_N],
            default=before_N,
        )
        return masked_BT, labels_BT

    def _choose(self, ids_BT: NDArray[Any], generator: np.random.Generator) -> NDArray[np.bool_]:
        is_open_BT = ~self._is_special_V[ids_BT]
        draw_BT = generator.random(ids_BT.shape)
        if self.rule.whole_word:
            draw_BT = np.take_along_axis(draw_BT, self._first_pieces(ids_BT, is_open_BT), axis=1)
        draw_BT = np.where(is_open_BT, draw_BT, np.inf)
        least_B1 = draw_BT.min(axis=1, keepdims=True)
        is_drawn_BT = (draw_BT < self.rule.probability) | (draw_BT == least_B1)
        chosen_BT: NDArray[np.bool_] = is_open_BT & is_drawn_BT
        return chosen_BT

    def _first_pieces(
        self, ids_BT: NDArray[Any], is_open_BT: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Tells for each token the place of its word's first piece in this sequence."""
        begins_BT = ~self._continues_V[ids_BT] | ~is_open_BT
        begins_BT[:, 1:] |= ~is_open_BT[:, :-1]
        begins_BT[:, :1] = True
        places_BT = np.where(begins_BT, np.arange(ids_BT.shape[1]), 0)
        first_BT: NDArray[np.int64] = np.maximum.accumulate(places_BT, axis=1)
        return first_BT


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    added = tokenizer.added_tokens_decoder.items()
    return sorted({*tokenizer.all_special_ids, *(index for index, word in added if word.special)})


def _continuations(vocabulary: dict[str, int], size: int) -> NDArray[np.bool_]:
    """Tells which tokens go on with a word, by the mark that the vocabulary uses more often."""
    continuing = [index for word, index in vocabulary.items() if word.startswith(_CONTINUES)]
    beginning = [index for word, index in vocabulary.items() if word.startswith(_BEGINS)]
    marks_begin = len(beginning) > len(continuing)
    continues_V = np.full(size, marks_begin)
    continues_V[beginning if marks_begin else continuing] = not marks_begin
    return continues_V
