"""What a model's answers are scored against, where that is more than a label an example.

Letters in names: N examples, P tokens of all examples in a row, Q questions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stillhouse.data.examples import LabelArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question on a passage.

    Attributes:
        key: Its id in the data.
        text: The question.
        context: The passage.
        answers: Every accepted answer; none where the passage does not tell.
    """

    key: str
    text: str
    context: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerSheet:
    """How tokens that are marked as first and last of an answer become its text.

    A passage that is too long is cut into windows that overlap, so that a question may have
    several examples.

    Attributes:
        questions: Q questions.
        question_of_N: Number of the question that each example (a window) belongs to.
        characters_P2: First character of each token in its question's context and the one after its
            last, int32; -1 and -1 of tokens that are not of the context.
        may_lack_answers: Whether questions without an answer are part of the task (SQuAD 2.0).
    """

    questions: tuple[Question, ...]
    question_of_N: NDArray[np.int64]  # noqa: N815
    characters_P2: NDArray[np.int32]  # noqa: N815
    may_lack_answers: bool

    def select(self, examples: NDArray[np.int64], tokens: NDArray[np.int64]) -> AnswerSheet:
        """Keeps the given examples, with their tokens; all questions stay listed."""
        return replace(
            self,
            question_of_N=self.question_of_N[examples],
            characters_P2=self.characters_P2[tokens],
        )

    def fits(self, examples: int, tokens: int) -> bool:
        """Tells whether there are as many examples and tokens."""
        return len(self.question_of_N) == examples and len(self.characters_P2) == tokens

    def fingerprint(self) -> str:
        """Gives the SHA-256, in hexadecimal, of the questions, their contexts and answers."""
        rows = [(one.key, one.text, one.context, one.answers) for one in self.questions]
        return hashlib.sha256(json.dumps([self.may_lack_answers, rows]).encode()).hexdigest()

    @staticmethod
    def join(sheets: Sequence[AnswerSheet]) -> AnswerSheet:
        """Lists the questions of all sheets, one sheet after the other.

        Args:
            sheets: At least one.
        """
        firsts = np.cumsum([0, *(len(sheet.questions) for sheet in sheets)])
        numbers = [
            sheet.question_of_N + first for sheet, first in zip(sheets, firsts[:-1], strict=True)
        ]
        return AnswerSheet(
            questions=tuple(chain.from_iterable(sheet.questions for sheet in sheets)),
            question_of_N=np.concatenate(numbers),
            characters_P2=np.concatenate([sheet.characters_P2 for sheet in sheets]),
            may_lack_answers=any(sheet.may_lack_answers for sheet in sheets),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SpanGold:
    """Gold answers of questions; logits beside it are `[P, 2]`: start and end of every token.

    Attributes:
        offsets: `[N + 1]` example i holds the tokens `offsets[i]:offsets[i + 1]`.
        sheet: The questions, and where their tokens stand.
        threshold: A question counts as without an answer where the score of none exceeds that of
            the best span by more than this (logits). `None` takes the one that suits these very
            examples best, as SQuAD 2.0's "best" figures do.
    """

    offsets: NDArray[np.int64]
    sheet: AnswerSheet
    threshold: float | None = None

    def __len__(self) -> int:
        """The number of questions that have an example here."""
        return len(np.unique(self.sheet.question_of_N))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TagGold:
    """Gold tags of words; logits beside it are `[P, C]`, a class for every token.

    Attributes:
        offsets: `[N + 1]` sentence i holds the tokens `offsets[i]:offsets[i + 1]`.
        tags_P: Tag number of every token; those below 0 are not scored.
        names: Name of every tag number, such as `B-NP` or `NOUN`.
    """

    offsets: NDArray[np.int64]
    tags_P: NDArray[np.int64]  # noqa: N815
    names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.offsets) - 1


Gold: TypeAlias = "LabelArray | TagGold | SpanGold"
"""Labels of examples, tags of words, or answers to questions."""
