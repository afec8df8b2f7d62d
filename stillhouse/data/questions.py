"""Questions on passages, which a part of the passage answers, or nothing.

Their datasets have the columns `key`, `question`, `context`, `answers` (every accepted text) and
`answer_starts` (the character of the context at which each begins; -1 where it does not occur).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from datasets import Dataset, Features, List, Value

from stillhouse.data.column_roles import QUESTION_EXTRAS
from stillhouse.data.examples import Source
from stillhouse.data.metric_names import USUAL_METRICS
from stillhouse.data.splits import hold_out, usual_count
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEV_SEED = 0
NOWHERE = -1
"""Start of an answer that does not occur in its context."""

_logger = logging.getLogger(__name__)


class RawAnswer(NamedTuple):
    """An answer's text and the character at which it is said to begin, if that is said."""

    text: str
    start: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawQuestion:
    """A question as it was read.

    Attributes:
        key: Its id.
        question: The question.
        context: The passage.
        answers: The accepted answers; none where the passage has none.
    """

    key: str
    question: str
    context: str
    answers: tuple[RawAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """Questions as they were read, and what messages call them."""

    questions: Sequence[RawQuestion]
    where: str


def table_questions(
    columns: Mapping[str, Sequence[object]], *, text: Sequence[str], answers: str, where: str
) -> QuestionSet:
    """Reads the questions of a table.

    Args:
        columns: The table; an `id` column gives the keys, else rows are numbered, and where a
            column `is_impossible` says so a question has no answer.
        text: Columns of the questions and of the contexts.
        answers: Column of answers, see `read_answers`.
        where: What messages call the table.

    Raises:
        DataError: If a value is unusable.
    """
    rows = zip(columns[text[0]], columns[text[1]], columns[answers], strict=True)
    keys, impossible = (columns.get(name) for name in QUESTION_EXTRAS)
    questions = []
    for number, (question, context, accepted) in enumerate(rows, start=1):
        here = f"{where}, example {number}"
        lacks_answer = impossible is not None and bool(impossible[number - 1])
        questions.append(
            RawQuestion(
                key=str(number if keys is None or keys[number - 1] is None else keys[number - 1]),
                question=checked_text(question, f"{here}, column {text[0]!r}"),
                context=checked_text(context, f"{here}, column {text[1]!r}"),
                answers=() if lacks_answer else read_answers(accepted, f"{here}, {answers!r}"),
            )
        )
    return QuestionSet(questions=questions, where=where)


def read_answers(value: object, where: str) -> tuple[RawAnswer, ...]:
    """Reads the answers to a question.

    Args:
        value: `{"text": [...], "answer_start": [...]}`, or a list of
            `{"text": ..., "answer_start": ...}`; nothing in it where there is no answer.
        where: For messages.

    Raises:
        DataError: If it is neither.
    """
    if value is None:
        return ()
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if isinstance(texts, str):
            texts, starts = [texts], [starts]
        if isinstance(texts, list):
            starts = [None] * len(texts) if starts is None else starts
            if isinstance(starts, list) and len(starts) == len(texts):
                return tuple(map(_answer, texts, starts, [where] * len(texts)))
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        return tuple(_answer(one.get("text"), one.get("answer_start"), where) for one in value)
    raise DataError(
        f"{where}: {value!r} is no set of answers; write it as "
        '{"text": ["..."], "answer_start": [0]}, with empty lists where there is no answer'
    )


def checked_text(value: object, where: str) -> str:
    """Returns a text.

    Raises:
        DataError: If it is none.
    """
    if not isinstance(value, str):
        raise DataError(f"{where}: {value!r} is no text; correct or remove the question")
    return value


def question_source(parts: Sequence[QuestionSet]) -> Source:
    """Makes a task's source from training and perhaps dev questions.

    Without dev questions, 10 % of the training questions are held out, by whole contexts.

    Args:
        parts: Training questions, and dev questions unless some are to be held out.

    Raises:
        DataError: If keys repeat, or no question with an answer is left.
    """
    datasets = [_to_dataset(_usable(part, learn=number == 0)) for number, part in enumerate(parts)]
    if len(datasets) == 1:
        count = usual_count(len(datasets[0]))
        datasets = list(hold_out(datasets[0], count=count, stratified=False, seed=DEV_SEED))
    return Source(
        label_names=(),
        metrics=USUAL_METRICS["spans"],
        train=datasets[0],
        dev=datasets[1],
        text_columns=(),
    )


def _answer(text: object, start: object, where: str) -> RawAnswer:
    if not isinstance(text, str):
        raise DataError(f"{where}: answer {text!r} is no text; correct or remove the question")
    if start is not None and (isinstance(start, bool) or not isinstance(start, int)):
        raise DataError(
            f"{where}: answer_start {start!r} of {text!r} is no whole number; write the place of "
            "the answer's first character in the context, from 0"
        )
    return RawAnswer(text, start)


def _usable(part: QuestionSet, *, learn: bool) -> list[RawQuestion]:
    """Leaves out what cannot be asked, and puts every answer where it stands.

    Args:
        part: The questions.
        learn: Whether they are learnt from; answers outside their contexts can only be scored.

    Raises:
        DataError: If keys repeat, or no question with an answer is left.
    """
    _check_keys(part)
    asked = [
        _stripped(one) for one in part.questions if one.question.strip() and one.context.strip()
    ]
    _warn(part, len(part.questions) - len(asked), "questions without a text or without a context")
    placed = [_placed(one) for one in asked]
    moved = sum(map(_count_moved, asked, placed))
    if moved:
        _logger.warning(
            "%s: %d answers do not stand at their answer_start; the nearest place in the context "
            "that reads so is taken",
            part.where,
            moved,
        )
    lost = [one for one in placed if one.answers and not _occurs(one)]
    if lost and learn:
        placed = [one for one in placed if not one.answers or _occurs(one)]
        _warn(part, len(lost), "questions whose answers do not occur in their contexts")
    elif lost:
        _logger.warning(
            "%s: the answers to %d of %d questions do not occur in their contexts; they are scored "
            "all the same",
            part.where,
            len(lost),
            len(part.questions),
        )
    if not any(one.answers for one in placed):
        raise DataError(
            f"{part.where}: none of {len(part.questions)} questions has a usable answer; give "
            "questions with answers"
        )
    return placed


def _check_keys(part: QuestionSet) -> None:
    repeated = [key for key, count in Counter(q.key for q in part.questions).items() if count > 1]
    if repeated:
        raise DataError(
            f"{part.where}: {len(repeated)} ids stand at several questions, the first is "
            f"{repeated[0]!r}; give every question an id of its own"
        )


def _warn(part: QuestionSet, count: int, what: str) -> None:
    if count:
        _logger.warning(
            "%s: left out %d of %d questions: %s", part.where, count, len(part.questions), what
        )


def _occurs(question: RawQuestion) -> bool:
    return any(answer.start != NOWHERE for answer in question.answers)


def _stripped(question: RawQuestion) -> RawQuestion:
    """Takes away answers without a text, which some data sets write for none."""
    return replace(question, answers=tuple(one for one in question.answers if one.text.strip()))


def _placed(question: RawQuestion) -> RawQuestion:
    """Puts every answer at its nearest place."""
    answers = (
        RawAnswer(answer.text, _nearest(question.context, answer)) for answer in question.answers
    )
    return replace(question, answers=tuple(answers))


def _count_moved(given: RawQuestion, placed: RawQuestion) -> int:
    return sum(
        found.start not in (NOWHERE, said.start) and said.start is not None
        for said, found in zip(given.answers, placed.answers, strict=True)
    )


def _nearest(context: str, answer: RawAnswer) -> int:
    start = max(0, answer.start or 0)
    if context.startswith(answer.text, start):
        return start
    before = context.rfind(answer.text, 0, start + len(answer.text))
    after = context.find(answer.text, start)
    if NOWHERE in (before, after):
        return max(before, after)
    return before if start - before <= after - start else after


def _to_dataset(questions: Iterable[RawQuestion]) -> Dataset:
    questions = list(questions)
    columns: dict[str, list[object]] = {
        "key": [one.key for one in questions],
        "question": [one.question for one in questions],
        "context": [one.context for one in questions],
        "answers": [[answer.text for answer in one.answers] for one in questions],
        "answer_starts": [[answer.start for answer in one.answers] for one in questions],
    }
    text = Value("string")
    features = {"key": text, "question": text, "context": text, "answers": List(text)}
    features["answer_starts"] = List(Value("int64"))
    return Dataset.from_dict(columns, features=Features(features))
