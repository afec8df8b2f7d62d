"""The TextFooler attack: synonyms for the most important words until a model changes its answer.

Source: Jin et al. 2020, "Is BERT Really Robust?", https://arxiv.org/abs/1907.11932, and its code,
whose order of decisions and count of queries are followed. A word is blanked with the tokeniser's
unknown token, where that code writes `<oov>`, which a BERT reads as several pieces of words.

Letters in names: C classes, S synonyms of a word, W words of a text that have synonyms.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from stillhouse.errors import TrainingError
from stillhouse.evaluate.attack_constraints import STOP_WORDS, Constraint, Swap, Verdict, judge_all
from stillhouse.evaluate.synonyms import Synonym, Synonyms, core_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Answer: TypeAlias = "Callable[[Sequence[tuple[str, ...]]], NDArray[np.float64]]"
"""Gives for N texts, or pairs of texts, `[N, C]` probabilities; those of a text are the same
whichever others are asked for with it, or an attack on many texts is not that on each."""

TEXTS_AT_ONCE = 64
"""Texts that are attacked together, so that their queries fill batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A text, or a pair of texts, to attack.

    Attributes:
        key: Number of the example.
        texts: One or two; of a pair only the second is changed.
        label: True class.
    """

    key: int
    texts: tuple[str, ...]
    label: int

    @property
    def words(self) -> tuple[str, ...]:
        """What stands between white space in the text that is changed."""
        return tuple(self.texts[-1].split())

    def with_words(self, words: Sequence[str]) -> tuple[str, ...]:
        """Returns the texts with other words."""
        return (*self.texts[:-1], " ".join(words))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """How texts are attacked.

    Attributes:
        synonyms: What may replace words.
        unknown: What the model reads in the place of a word whose importance is asked for.
        constraints: What restricts replacements, cheap ones first.
        stop_words: In lower case; never replaced.
    """

    synonyms: Synonyms
    unknown: str
    constraints: tuple[Constraint, ...] = ()
    stop_words: frozenset[str] = STOP_WORDS

    def synonyms_of(self, word: str) -> tuple[Synonym, ...]:
        """Returns what may replace a word of a text; nothing for a stop word."""
        if not self.stop_words.isdisjoint((word.lower(), core_of(word).lower())):
            return ()
        return self.synonyms.of(word)

    def can_change(self, target: Target) -> bool:
        """Tells whether any word of a text has a synonym."""
        return any(self.synonyms_of(word) for word in target.words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attack on a text ended.

    Attributes:
        key: Number of the example.
        label: True class.
        predicted: The model's answer before.
        final: Its answer to the text as the attack left it.
        queries: As the official code counts: the text, each word blanked, and every synonym of
            each word that was tried. What can decide nothing is counted but not computed: words
            without a synonym, and synonyms that a constraint forbids. 1 where the first answer was
            wrong: the text is not attacked.
        original: Words before.
        words: Words as the attack left them.
    """

    key: int
    label: int
    predicted: int
    final: int
    queries: int
    original: tuple[str, ...]
    words: tuple[str, ...]

    @property
    def is_correct(self) -> bool:
        """Whether the model was right before the attack."""
        return self.predicted == self.label

    @property
    def is_robust(self) -> bool:
        """Whether it was right before and after."""
        return self.is_correct and self.final == self.label

    @property
    def is_fooled(self) -> bool:
        """Whether it was right before and wrong after."""
        return self.is_correct and self.final != self.label

    @property
    def changed(self) -> tuple[int, ...]:
        """Places of the replaced words."""
        pairs = zip(self.original, self.words, strict=True)
        return tuple(place for place, (old, new) in enumerate(pairs) if old != new)

    @property
    def changed_fraction(self) -> float:
        """Share of the words that were replaced."""
        return len(self.changed) / max(1, len(self.original))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """Texts whose probabilities are wanted."""

    texts: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Swaps whose verdict is wanted."""

    swaps: Sequence[Swap]


_Search: TypeAlias = Generator[_Ask | _Judge, Any, Outcome]


def attack_targets(
    targets: Iterable[Target], answer: Answer, attack: Attack, *, at_once: int = TEXTS_AT_ONCE
) -> Iterator[Outcome]:
    """Attacks texts, many at once: what their searches want to know is asked for together.

    Args:
        targets: The texts.
        answer: The model.
        attack: How they are attacked.
        at_once: Most texts whose attack is under way; decides the speed, not the outcomes.

    Yields:
        The outcomes, in the order in which the attacks end.

    Raises:
        TrainingError: If the model's answers are not numbers.
    """
    waiting = (_Running(_search(target, attack)) for target in targets)
    running = list(islice(waiting, at_once))
    while running:
        turn = [one for one in running if isinstance(one.wants, _Judge)] or running
        for one, reply in zip(turn, _replies(turn, answer, attack), strict=True):
            one.go_on(reply)
        yield from (one.outcome for one in running if one.outcome is not None)
        running = [one for one in running if one.outcome is None]
        running += islice(waiting, at_once - len(running))


class _Running:
    """A search that waits for a reply."""

    def __init__(self, search: _Search) -> None:
        """Begins the search."""
        self._search = search
        self.outcome: Outcome | None = None
        self.wants: _Ask | _Judge = next(search)

    def go_on(self, reply: object) -> None:
        """Gives the search what it wants."""
        try:
            self.wants = self._search.send(reply)
        except StopIteration as stop:
            self.outcome = stop.value


def _replies(turn: Sequence[_Running], answer: Answer, attack: Attack) -> Iterator[object]:
    """Yields the reply to each search, all of which want the same kind of thing."""
    wishes = [one.wants for one in turn]
    start = 0
    if isinstance(wishes[0], _Ask):
        probabilities_NC = _asked(
            answer, [text for wish in wishes if isinstance(wish, _Ask) for text in wish.texts]
        )
        for wish in wishes:
            assert isinstance(wish, _Ask)
            yield probabilities_NC[start : start + len(wish.texts)]
            start += len(wish.texts)
        return
    swaps = [swap for wish in wishes if isinstance(wish, _Judge) for swap in wish.swaps]
    verdict = judge_all(attack.constraints, swaps)
    assert verdict.similarity is not None
    for wish in wishes:
        assert isinstance(wish, _Judge)
        part = slice(start, start + len(wish.swaps))
        yield Verdict(allowed=verdict.allowed[part], similarity=verdict.similarity[part])
        start += len(wish.swaps)


def _asked(answer: Answer, texts: Sequence[tuple[str, ...]]) -> NDArray[np.float64]:
    probabilities_NC = answer(texts)
    if not np.isfinite(probabilities_NC).all():
        raise TrainingError(
            "the model answers with NaN or infinity, so that it cannot be attacked: its training "
            "diverged, or its file is damaged"
        )
    return probabilities_NC


def _search(target: Target, attack: Attack) -> _Search:
    """Attacks one text; yields what it wants to know."""
    words = target.words
    first_C = (yield _Ask(texts=[target.with_words(words)]))[0]
    predicted = int(first_C.argmax())
    current, final, queries = words, predicted, 1
    if predicted == target.label:
        current, final, queries = yield from _replace_words(target, attack, first_C)
    return Outcome(
        key=target.key,
        label=target.label,
        predicted=predicted,
        final=final,
        queries=queries,
        original=words,
        words=current,
    )


def _replace_words(
    target: Target, attack: Attack, first_C: NDArray[np.float64]
) -> Generator[_Ask | _Judge, Any, tuple[tuple[str, ...], int, int]]:
    """Replaces words of a text that is answered right until it is not.

    Returns:
        The words, the model's last answer and the count of queries.
    """
    words, current, label = target.words, target.words, target.label
    queries = 1 + len(words)
    found = {place: attack.synonyms_of(word) for place, word in enumerate(words)}
    places = [place for place, synonyms in found.items() if synonyms]
    if not places:
        return words, label, queries
    blanked = [(*words[:i], attack.unknown, *words[i + 1 :]) for i in places]
    probabilities_WC = yield _Ask(texts=[target.with_words(text) for text in blanked])
    for number in _by_importance(first_C, probabilities_WC, label):
        place = places[number]
        queries += len(found[place])
        swaps = [
            Swap(original=words, words=current, position=place, synonym=one) for one in found[place]
        ]
        current, final = yield from _replace(target, swaps, first_C[label])
        if final != label:
            return current, final, queries
    return current, label, queries


def _by_importance(
    first_C: NDArray[np.float64], blanked_WC: NDArray[np.float64], label: int
) -> list[int]:
    """Sorts words by what their absence costs, most first, equals as in the text.

    It costs the drop of the true class, and where the answer changes the gain of the new one.
    """
    new_W = blanked_WC.argmax(axis=1)
    gain_W = blanked_WC.max(axis=1) - first_C[new_W]
    importance_W = first_C[label] - blanked_WC[:, label] + np.where(new_W != label, gain_W, 0)
    order: list[int] = np.argsort(-importance_W, kind="stable").tolist()
    return order


def _replace(
    target: Target, swaps: Sequence[Swap], first: float
) -> Generator[_Ask | _Judge, Any, tuple[tuple[str, ...], int]]:
    """Tries all synonyms of a word.

    Args:
        target: The text as it was.
        swaps: One for each synonym, best first.
        first: Probability of the true class before the attack.

    Returns:
        The words with the most similar synonym that changes the answer, and that answer; without
        one those with the synonym that leaves the true class the least probability, if that is
        below `first`, and the true class.
    """
    label = target.label
    verdict: Verdict = yield _Judge(swaps=swaps)
    kept = np.flatnonzero(verdict.allowed)
    if not kept.size:
        return swaps[0].words, label
    assert verdict.similarity is not None
    texts = [swaps[place].swapped for place in kept.tolist()]
    probabilities_SC = yield _Ask(texts=[target.with_words(words) for words in texts])
    answers_S = probabilities_SC.argmax(axis=1)
    changes_S = answers_S != label
    if changes_S.any():
        best = int(np.where(changes_S, verdict.similarity[kept], -np.inf).argmax())
        return texts[best], int(answers_S[best])
    lowest = int(probabilities_SC[:, label].argmin())
    if probabilities_SC[lowest, label] < first:
        return texts[lowest], label
    return swaps[0].words, label
