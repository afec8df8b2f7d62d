"""Questions with their contexts as tokens; long contexts are cut into windows that overlap.

Letters in names: N windows, P tokens of all windows in a row, T tokens of one context.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stillhouse.data.answers import AnswerSheet, Question
from stillhouse.data.frame import frame_of
from stillhouse.data.questions import NOWHERE
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from stillhouse.data.frame import Frame

USUAL_STRIDE = 128
"""BERT's `doc_stride`, which there is the way from window to window; here, as in transformers,
what two windows share."""
MOST_QUESTION_TOKENS = 64
"""BERT's `max_query_length`."""
TEXTS_AT_ONCE = 2_048
_IS_SPACE = np.array([chr(code).isspace() for code in range(0x3002)])
"""Of every character up to the last one that is white space, and of the next, which is none."""

_logger = logging.getLogger(__name__)


class Windows(NamedTuple):
    """Tokens of N windows.

    Attributes:
        input_ids: `[P]` token numbers.
        token_type_ids: `[P]` their types.
        lengths: `[N]` tokens of every window.
        labels: `[N, 2]` first and last token of the answer, see `LabelArray`.
        sheet: The questions.
    """

    input_ids: NDArray[np.int32]
    token_type_ids: NDArray[np.int8]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]
    sheet: AnswerSheet


class _Text(NamedTuple):
    """A text's tokens, `[T]`, and of each the first character and the one after its last."""

    ids: NDArray[np.int32]
    characters: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """How windows are laid out.

    Attributes:
        frame: The special tokens.
        limit: Most tokens of a window.
        stride: Tokens that two windows of a context share, at most.
    """

    frame: Frame
    limit: int
    stride: int

    @property
    def question(self) -> int:
        """Most tokens of a question: 64, but not more than half of what there is room for."""
        return min(MOST_QUESTION_TOKENS, (self.limit - self.frame.count) // 2)

    def spans(self, question: int, context: int) -> Iterator[tuple[int, int]]:
        """Yields the first token of each window's part of a context, and the one after its last."""
        room = self.limit - self.frame.count - question
        step = room - min(self.stride, room // 2)
        start = 0
        while start + room < context:
            yield start, start + room
            start += step
        yield start, context


def cut_windows(
    columns: Mapping[str, Sequence[Any]],
    tokenizer: PreTrainedTokenizerBase,
    limit: int,
    stride: int,
) -> Windows:
    """Tokenises questions with their contexts.

    Questions are cut to 64 tokens, with a warning. A window is labelled with the first answer that
    occurs in the context, if it holds all of it.

    Args:
        columns: Of a data set of questions, see `questions.py`.
        tokenizer: A tokeniser with a fast backend.
        limit: Most tokens of a window, special ones included.
        stride: Tokens that neighbouring windows of a context share; at most half of those of the
            context that a window has room for.

    Raises:
        DataError: If the tokeniser has no fast backend, or the limit has no room for a question.
    """
    frame = frame_of(tokenizer, texts=2)
    room = _Room(frame=frame, limit=limit, stride=stride)
    if room.question < 1:
        raise DataError(
            f"{limit} tokens have no room for a question and its context; raise task.max_length"
        )
    questions = list(_questions(columns))
    contexts = _tokenise({one.context for one in questions}, tokenizer)
    asked = _tokenise({one.text for one in questions}, tokenizer)
    _warn_of_cut([len(asked[one.text].ids) for one in questions], room.question)
    builder = _Builder(room)
    for number, (question, answer) in enumerate(
        zip(questions, _first_answers(columns), strict=True)
    ):
        ids = asked[question.text].ids[: room.question]
        builder.add(number, ids, contexts[question.context], answer)
    return builder.windows(tuple(questions))


class _Builder:
    """Collects windows."""

    def __init__(self, room: _Room) -> None:
        self.room = room
        self.ids: list[NDArray[np.int32]] = []
        self.types: list[NDArray[np.int8]] = []
        self.characters: list[NDArray[np.int32]] = []
        self.lengths: list[int] = []
        self.labels: list[tuple[int, int]] = []
        self.numbers: list[int] = []

    def add(
        self, number: int, question: NDArray[np.int32], context: _Text, answer: tuple[int, int]
    ) -> None:
        """Adds the windows of a question.

        Args:
            number: Of the question.
            question: Its tokens.
            context: Its context.
            answer: First character of the answer and the one after its last; -1 and -1 for none.
        """
        frame = self.room.frame
        before, between, after = frame.gaps
        types_before, types_between, types_after = frame.gap_types
        of_question = np.full(len(question), frame.text_types[0], dtype=np.int8)
        head = np.concatenate([before, question, between])
        head_types = np.concatenate([types_before, of_question, types_between])
        first, last = _answer_tokens(context.characters, answer)
        for start, end in self.room.spans(len(question), len(context.ids)):
            of_context = np.full(end - start, frame.text_types[1], dtype=np.int8)
            self.ids.append(np.concatenate([head, context.ids[start:end], after]))
            self.types.append(np.concatenate([head_types, of_context, types_after]))
            characters = np.full((len(self.ids[-1]), 2), -1, dtype=np.int32)
            characters[len(head) : len(head) + end - start] = context.characters[start:end]
            self.characters.append(characters)
            self.lengths.append(len(characters))
            self.numbers.append(number)
            holds = start <= first <= last < end
            to = len(head) - start
            self.labels.append((first + to, last + to) if holds else (0, 0))

    def windows(self, questions: tuple[Question, ...]) -> Windows:
        """Joins what was added."""
        no_place = np.empty((0, 2), dtype=np.int32)
        return Windows(
            input_ids=np.concatenate([np.empty(0, np.int32), *self.ids]),
            token_type_ids=np.concatenate([np.empty(0, np.int8), *self.types]),
            lengths=np.array(self.lengths, dtype=np.int64),
            labels=np.array(self.labels, dtype=np.int64).reshape(-1, 2),
            sheet=AnswerSheet(
                questions=questions,
                question_of_N=np.array(self.numbers, dtype=np.int64),
                characters_P2=np.concatenate([no_place, *self.characters]),
                may_lack_answers=any(not question.answers for question in questions),
            ),
        )


def _questions(columns: Mapping[str, Sequence[Any]]) -> Iterator[Question]:
    seen: dict[str, str] = {}  # one object for a context, however many questions have it
    names = ("key", "question", "context", "answers")
    rows = zip(*(columns[name] for name in names), strict=True)
    for key, text, context, answers in rows:
        yield Question(
            key=key, text=text, context=seen.setdefault(context, context), answers=tuple(answers)
        )


def _first_answers(columns: Mapping[str, Sequence[Any]]) -> Iterator[tuple[int, int]]:
    """Gives the characters of the first answer of each question that occurs in its context."""
    for texts, starts in zip(columns["answers"], columns["answer_starts"], strict=True):
        placed = (
            (start, start + len(text))
            for text, start in zip(texts, starts, strict=True)
            if start != NOWHERE
        )
        yield next(placed, (-1, -1))


def _answer_tokens(characters_T2: NDArray[np.int32], answer: tuple[int, int]) -> tuple[int, int]:
    """Finds the first and the last token of an answer; the first comes after the last for none."""
    start, end = answer
    if start < 0:
        return 0, -1
    first = np.searchsorted(characters_T2[:, 1], start, side="right")
    last = np.searchsorted(characters_T2[:, 0], end, side="left") - 1
    return int(first), int(last)


def _tokenise(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, _Text]:
    """Tokenises texts whole, without special tokens."""
    listed = sorted(texts)
    found = {}
    for start in range(0, len(listed), TEXTS_AT_ONCE):
        part = listed[start : start + TEXTS_AT_ONCE]
        encoding = tokenizer(
            part,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # of contexts that are cut only later
        )
        for text, each in zip(part, encoding.encodings, strict=True):
            spans = np.fromiter(chain.from_iterable(each.offsets), dtype=np.int32).reshape(-1, 2)
            found[text] = _Text(np.array(each.ids, dtype=np.int32), _trimmed(spans, text))
    return found


def _trimmed(characters_T2: NDArray[np.int32], text: str) -> NDArray[np.int32]:
    """Takes white space away from both ends of tokens, which some tokenisers count to the next."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    is_space = _IS_SPACE[np.minimum(codes, len(_IS_SPACE) - 1)]
    starts, ends = characters_T2.T
    touched = (np.minimum(starts, len(text) - 1), np.maximum(ends - 1, 0))
    if not any(is_space[places].any() for places in touched):
        return characters_T2
    solid = np.flatnonzero(~is_space)
    after = np.append(solid, len(text))[np.searchsorted(solid, starts)]
    before = np.append(solid, -1)[np.searchsorted(solid, ends) - 1] + 1
    new_starts = np.minimum(after, ends)
    return np.stack([new_starts, np.maximum(before, new_starts)], axis=1).astype(np.int32)


def _warn_of_cut(lengths: Sequence[int], most: int) -> None:
    count = sum(length > most for length in lengths)
    if count:
        _logger.warning(
            "%d of %d questions have more than %d tokens; the rest of each is cut off",
            count,
            len(lengths),
            most,
        )
