"""The words and characters that a tagger of words knows.

Words are looked up in lower case and with every digit as 0, as CVT's code does; characters as they
stand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

PADDING = 0
UNKNOWN = 1
_FIRST = 2
"""Number of the first word, and of the first character, that is known."""
MOST_CHARACTERS = 40
"""Of a word; what follows is not read."""
FEWEST_OCCURRENCES = 2
"""Of a word with a row of its own: those that occur once teach what an unknown word is."""
_DIGIT = re.compile(r"\d")


def lookup_form(word: str) -> str:
    """Gives the form under which a word is looked up."""
    return _DIGIT.sub("0", word.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Numbers of words and of characters; 0 is padding, 1 is whatever is unknown.

    Attributes:
        words: Looked-up forms of the known words, numbered from 2.
        characters: The known characters, numbered from 2.
    """

    words: tuple[str, ...]
    characters: tuple[str, ...]
    _word_numbers: dict[str, int] = field(init=False, repr=False, compare=False)
    _character_numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Numbers both."""
        for name, known in (("_word_numbers", self.words), ("_character_numbers", self.characters)):
            object.__setattr__(self, name, {one: place for place, one in enumerate(known, _FIRST)})

    @property
    def word_count(self) -> int:
        """Rows of a table of words."""
        return len(self.words) + _FIRST

    @property
    def character_count(self) -> int:
        """Rows of a table of characters."""
        return len(self.characters) + _FIRST

    def word_number(self, word: str) -> int:
        """Numbers a word as it stands in a text."""
        return self._word_numbers.get(lookup_form(word), UNKNOWN)

    def spelling(self, word: str) -> list[int]:
        """Numbers the first characters of a word."""
        return [self._character_numbers.get(one, UNKNOWN) for one in word[:MOST_CHARACTERS]]


def word_counts(sentences: Iterable[Sequence[str]]) -> Counter[str]:
    """Counts words as they stand in sentences."""
    return Counter(chain.from_iterable(sentences))


def build_lexicon(
    labelled: Counter[str], unlabelled: Counter[str], *, vectors: Collection[str], most_words: int
) -> Lexicon:
    """Chooses the words that get a row: of training sentences, then of other text, then of a file.

    Words of text have one if they occur twice or stand in the file; of each kind the most frequent
    come first.

    Args:
        labelled: Words of the sentences with tags, as they stand there.
        unlabelled: Those of the text without tags.
        vectors: Looked-up forms of the words of the user's file, the most frequent first.
        most_words: Words, at most.
    """
    first, second = _looked_up(labelled), _looked_up(unlabelled)
    total = first + second
    in_file = frozenset(vectors)
    texts = (word for part in (first, second) for word in _by_frequency(part))
    known = (one for one in texts if total[one] >= FEWEST_OCCURRENCES or one in in_file)
    words = dict.fromkeys(chain(known, vectors))
    characters = Counter[str]()
    for word, count in chain(labelled.items(), unlabelled.items()):
        for character in word[:MOST_CHARACTERS]:
            characters[character] += count
    return Lexicon(
        words=tuple(islice(words, most_words)),
        characters=tuple(
            sorted(one for one, count in characters.items() if count >= FEWEST_OCCURRENCES)
        ),
    )


def _looked_up(counts: Counter[str]) -> Counter[str]:
    looked_up = Counter[str]()
    for word, count in counts.items():
        looked_up[lookup_form(word)] += count
    return looked_up


def _by_frequency(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))
