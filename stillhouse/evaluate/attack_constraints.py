"""What an attack may not replace, and by what: stop words, parts of speech, similarity.

Letters in names: B batch, T tokens, D hidden, S swaps that are judged at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.data.table_files import read_lines
from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.synonyms import Synonym, core_of, put_in_place, read_parts
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.checkpoint_heads import load_headed
from stillhouse.model.encoders import load_encoder
from stillhouse.model.heads import outputs_of
from stillhouse.model.inputs import input_names, model_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stillhouse.model.encoders import Encoder

Tagger: TypeAlias = Callable[[Sequence[tuple[str, ...]]], Sequence[Sequence[str]]]
"""Gives for the words of every text as many universal parts of speech (NOUN, VERB, ADJ, ...)."""

STOP_WORDS: frozenset[str] = ENGLISH_STOP_WORDS
"""scikit-learn's 318 English words. Of the 266 of the official code it holds 210; it lacks parts of
contractions (`didn`, `ll`) and `just`, `theirs`, `unless` and `used`, and has 108 more, among them
`full`, `interest`, `serious` and `well`, so that a few words fewer are attacked."""
USUAL_WINDOW = 15
USUAL_SIMILARITY = 0.7
"""Both are defaults of the official code."""
SHORT_SIMILARITY = 0.1
"""Of texts that are shorter than the window; likewise."""
TAGGED_AROUND = 4
"""Words on each side with which a synonym is tagged in texts of more than `TAGGED_WHOLE`."""
TAGGED_WHOLE = 10
TEXTS_AT_ONCE = 64
COSINE_DECIMALS = 5
"""What lies behind depends on the other texts of a batch."""
WORD_CLASSES = {"NOUN": "n", "PROPN": "n", "VERB": "v", "AUX": "v", "ADJ": "a", "ADV": "r"}
"""The letters of synonym files for universal parts of speech."""
_FOLDED = {"v": "n", "VERB": "NOUN", "AUX": "NOUN", "PROPN": "NOUN", "s": "a"}
"""Noun and verb may stand for each other, as in the official code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """A word that might be replaced.

    Attributes:
        original: Words of the text before the attack.
        words: Words of the text as it stands, earlier replacements made.
        position: Place of the word.
        synonym: What might replace it.
    """

    original: tuple[str, ...]
    words: tuple[str, ...]
    position: int
    synonym: Synonym

    @property
    def swapped(self) -> tuple[str, ...]:
        """The words of the text with the replacement."""
        new = put_in_place(self.original[self.position], self.synonym.word)
        return (*self.words[: self.position], new, *self.words[self.position + 1 :])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What a constraint says of S swaps.

    Attributes:
        allowed: `[S]` whether each may be made.
        similarity: `[S]` how near each leaves the text to what it was, higher nearer; `None` of a
            constraint that does not compare.
    """

    allowed: NDArray[np.bool_]
    similarity: NDArray[np.float64] | None = None


class Constraint(Protocol):
    """What decides which words may replace others."""

    @property
    def told(self) -> str:
        """What it does and how that differs from the published attack, for reports."""
        ...

    def judge(self, swaps: Sequence[Swap]) -> Verdict:
        """Judges swaps, also of different texts; each alike whichever others are judged with it.

        Args:
            swaps: S at least 1.
        """
        ...


def judge_all(constraints: Iterable[Constraint], swaps: Sequence[Swap]) -> Verdict:
    """Asks one constraint after the other about the swaps that those before it allow.

    Args:
        constraints: The similarity of the last that has one counts.
        swaps: S swaps.

    Returns:
        `similarity` is 0 for all where no constraint compares.
    """
    allowed_S = np.ones(len(swaps), dtype=np.bool_)
    similarity_S = np.zeros(len(swaps))
    for constraint in constraints:
        left = np.flatnonzero(allowed_S)
        if not left.size:
            break
        verdict = constraint.judge([swaps[place] for place in left.tolist()])
        allowed_S[left] = verdict.allowed
        if verdict.similarity is not None:
            similarity_S[left] = verdict.similarity
    return Verdict(allowed=allowed_S, similarity=similarity_S)


def read_stop_words(path: Path) -> frozenset[str]:
    """Reads words that are never replaced, one a line.

    Raises:
        DataError: If the file is missing or holds no word.
    """
    words = frozenset(line.strip().lower() for line in read_lines(path) if line.strip())
    if not words:
        raise DataError(f"{path} holds no stop word; write one a line, or leave the file out")
    return words


class ListedParts:
    """Allows a synonym where a table gives it and the word a part of speech in common.

    Words that the table lacks, such as most inflected forms in WordNet, are allowed.
    """

    def __init__(self, path: Path) -> None:
        """Reads the table.

        Args:
            path: A `.tsv` file of synonyms.

        Raises:
            DataError: If it is missing or broken.
        """
        parts = read_parts(path)
        self._parts = {word: _folded(known) for word, known in parts.items()}
        self._path = path

    @property
    def told(self) -> str:
        """Which table it is, and what the official code does."""
        return (
            f"part of speech: word and synonym share one in {self._path.name} (noun and verb count "
            "as one; words that it lacks are allowed), where the official code tags both in their "
            "text with NLTK"
        )

    def judge(self, swaps: Sequence[Swap]) -> Verdict:
        """Looks words and synonyms up."""
        return Verdict(allowed=np.array([self._agree(swap) for swap in swaps], dtype=np.bool_))

    def _agree(self, swap: Swap) -> bool:
        old = self._parts.get(core_of(swap.original[swap.position]).lower())
        new = self._parts.get(swap.synonym.word.lower())
        return old is None or new is None or bool(old & new)


class TaggedParts:
    """Allows a synonym that has the part of speech of the word in its text.

    The word's is that in the text before the attack. The synonym's is what the synonym file says
    of it, or else what the tagger makes of it among the words around it.
    """

    def __init__(self, tagger: Tagger, name: str) -> None:
        """Keeps the tagger.

        Args:
            tagger: Any callable that tags words.
            name: What reports call it.
        """
        self._tagger = tagger
        self._name = name
        self._known: dict[tuple[str, ...], Sequence[str]] = {}

    @property
    def told(self) -> str:
        """Which tagger it is, and what the official code does."""
        return (
            f"part of speech: as tagged by {self._name} (noun and verb count as one; a synonym's "
            "is that of the synonym file where it tells), where the official code uses NLTK"
        )

    def judge(self, swaps: Sequence[Swap]) -> Verdict:
        """Tags every text once, and the surroundings of every synonym without a part."""
        self._tag({swap.original: None for swap in swaps})
        contexts = {
            place: _context(swap) for place, swap in enumerate(swaps) if not swap.synonym.parts
        }
        unique = list(dict.fromkeys(words for words, _ in contexts.values()))
        tags = dict(zip(unique, self._tagger(unique) if unique else (), strict=True))
        allowed = []
        for place, swap in enumerate(swaps):
            old = self._known[swap.original][swap.position]
            if swap.synonym.parts:
                agree = bool(_folded([WORD_CLASSES.get(old, old)]) & _folded(swap.synonym.parts))
            else:
                words, position = contexts[place]
                agree = _folded([old]) == _folded([tags[words][position]])
            allowed.append(agree)
        return Verdict(allowed=np.array(allowed, dtype=np.bool_))

    def _tag(self, texts: Iterable[tuple[str, ...]]) -> None:
        new = [words for words in texts if words not in self._known]
        if new:
            self._known.update(zip(new, self._tagger(new), strict=True))


class CheckpointTagger:
    """A tagger that is a token classifier with universal parts of speech as labels.

    Args:
        name: Hub id or folder.

    Raises:
        TeacherError: If it cannot be loaded.
        SettingsError: If it is no such tagger.
    """

    def __init__(self, name: str) -> None:
        """Loads the model."""
        loaded = load_headed(name)
        labels = [label.upper() for label in label_names(loaded.model.config)]
        missing = sorted({"NOUN", "VERB", "ADJ", "ADV"} - set(labels))
        if loaded.head != "tagger" or missing:
            what = f"a {loaded.head}" if loaded.head != "tagger" else f"labels {labels[:6]}"
            raise SettingsError(
                f"{name} tags no universal parts of speech (NOUN, VERB, ADJ, ADV, ...): it has "
                f"{what}. Give a token classifier that was fine-tuned on a UD treebank's UPOS"
            )
        self._labels = labels
        self._model: PreTrainedModel = _placed(loaded.model)
        self._inputs = input_names(loaded.model.config)
        self._tokenizer: PreTrainedTokenizerBase = loaded.tokenizer

    @torch.inference_mode()
    def __call__(self, texts: Sequence[tuple[str, ...]]) -> list[list[str]]:
        """Tags words by their first token; one without a token, as of a text cut short, is `X`."""
        tags: list[list[str]] = []
        limit = min(self._tokenizer.model_max_length, usable_positions(self._model.config))
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[start : start + TEXTS_AT_ONCE]
            encoded = self._tokenizer(
                [" ".join(words) for words in part],
                truncation=True,
                max_length=limit,
                padding=True,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            spans_BT2 = encoded.pop("offset_mapping").numpy()
            encoded = encoded.to(self._model.device)
            inputs = {name: encoded[name] for name in self._inputs if name in encoded}
            labels_BT = outputs_of(self._model(**inputs)).argmax(dim=-1).cpu().numpy()
            for words, spans_T2, labels_T in zip(part, spans_BT2, labels_BT, strict=True):
                tags.append(self._of_words(words, spans_T2, labels_T))
        return tags

    def _of_words(
        self, words: tuple[str, ...], spans_T2: NDArray[np.int64], labels_T: NDArray[np.int64]
    ) -> list[str]:
        ends = np.cumsum([len(word) + 1 for word in words])
        found = ["X"] * len(words)
        for (start, end), label in reversed(list(zip(spans_T2, labels_T, strict=True))):
            if end > start:  # special tokens stand nowhere
                found[int(np.searchsorted(ends, end, side="left"))] = self._labels[int(label)]
        return found


class EncoderSimilarity:
    """Allows a synonym that leaves the words around it near to what they were.

    Similarity is 1 less the angle, in radians, between the mean-pooled encodings of a window
    around the word as it stands and with the synonym.
    """

    def __init__(
        self, name: str, *, threshold: float = USUAL_SIMILARITY, window: int = USUAL_WINDOW
    ) -> None:
        """Loads the encoder.

        Args:
            name: Hub id or folder; a head is left out.
            threshold: Least similarity, at most 1; that of texts shorter than the window is 0.1.
            window: Words that are compared, odd.

        Raises:
            SettingsError: If a number is impossible.
            TeacherError: If the encoder cannot be loaded.
        """
        if not threshold <= 1:
            raise SettingsError(f"a similarity is at most 1, but the least one is {threshold}")
        if window < 1 or not window % 2:
            raise SettingsError(f"a window around a word has an odd number of words, got {window}")
        self._encoder: Encoder = load_encoder(name)
        _placed(self._encoder.model)
        self._threshold, self._window = threshold, window

    @property
    def told(self) -> str:
        """Which encoder it is, and what the official code does."""
        return (
            f"similarity: at least {self._threshold:g} (1 less the angle, in radians) in a window "
            f"of {self._window} words by {self._encoder.name}, mean-pooled; at least "
            f"{SHORT_SIMILARITY:g} in shorter texts. The official code has the same numbers and "
            "the Universal Sentence Encoder"
        )

    def judge(self, swaps: Sequence[Swap]) -> Verdict:
        """Encodes every window once."""
        windows = [self._windows(swap) for swap in swaps]
        unique = {text: row for row, text in enumerate(dict.fromkeys(sum(windows, ())))}
        vectors_ND = self._encode(list(unique))
        before_SD, after_SD = (
            vectors_ND[[unique[pair[side]] for pair in windows]] for side in (0, 1)
        )
        cosine_S = np.einsum("sd,sd->s", before_SD, after_SD).round(COSINE_DECIMALS)
        similarity_S = 1 - np.arccos(cosine_S.clip(-1, 1))
        short_S = np.array([len(swap.words) < self._window for swap in swaps])
        least_S = np.where(short_S, min(SHORT_SIMILARITY, self._threshold), self._threshold)
        return Verdict(allowed=similarity_S >= least_S, similarity=similarity_S)

    def _windows(self, swap: Swap) -> tuple[str, str]:
        """Cuts the words as they stand and with the synonym, around it as far as the text goes."""
        last = max(0, len(swap.words) - self._window)
        start = min(max(0, swap.position - self._window // 2), last)
        part = slice(start, start + self._window)
        return " ".join(swap.words[part]), " ".join(swap.swapped[part])

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns `[N, D]` vectors of length 1."""
        model, tokenizer = self._encoder.model, self._encoder.tokenizer
        encoded = encode(
            Examples(text_a=texts).to_dataset(()),
            tokenizer,
            max_length=usable_positions(model.config),
        )
        vectors_ND = np.empty((len(texts), model.config.hidden_size))
        for indices in plan_ordered(encoded.lengths, batch_size=TEXTS_AT_ONCE):
            batch = collate(encoded, indices).to(model.device)
            hidden_BTD = model(**model_inputs(model.config, batch)).last_hidden_state.double()
            mask_BT = batch.attention_mask.double()
            sums_BD = torch.einsum("btd,bt->bd", hidden_BTD, mask_BT)
            vectors_ND[indices] = (sums_BD / mask_BT.sum(dim=1, keepdim=True)).cpu().numpy()
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return vectors_ND


def _context(swap: Swap) -> tuple[tuple[str, ...], int]:
    """Returns the words that a synonym is tagged with, and its place among them."""
    words = swap.swapped
    if len(words) <= TAGGED_WHOLE:
        return words, swap.position
    start = max(0, swap.position - TAGGED_AROUND)
    return words[start : swap.position + TAGGED_AROUND + 1], swap.position - start


def _folded(parts: Iterable[str]) -> frozenset[str]:
    return frozenset(_FOLDED.get(part, part) for part in parts)


def _placed(model: PreTrainedModel) -> PreTrainedModel:
    module: torch.nn.Module = model
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return model
