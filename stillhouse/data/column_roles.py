"""Which columns of a table hold what, and so which kind of task it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stillhouse.errors import DataError

DEFAULT_TEXT = ("text",)
DEFAULT_LABEL = "label"
TEXT_LISTS = ("tokens", "words")
"""Usual names of a column of lists of words."""
TAG_LISTS = (
    *("ner_tags", "pos_tags", "chunk_tags", "upos_tags", "xpos_tags", "tags", "labels"),
    *("ner", "pos", "upos", "xpos", "deprel", "chunk", "ner_tag", "tag", "label"),
)
"""Usual names of a column of lists of tags."""
QUESTION_TEXT = ("question", "context")
QUESTION_LABEL = "answers"
QUESTION_EXTRAS = ("id", "is_impossible")

Columns: TypeAlias = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The columns of a task.

    Attributes:
        kind: Whether an example is a text or two, a list of words, or a question on a passage.
        text: Columns of the texts, of the words, or of question and passage.
        label: Column of labels, of lists of tags, or of answers.
    """

    kind: Literal["texts", "words", "questions"]
    text: tuple[str, ...]
    label: str


def wanted_columns(text: Sequence[str], label: str | None) -> frozenset[str]:
    """Lists the columns of which some are needed, whatever the kind of task turns out to be."""
    wanted = {*text, *QUESTION_EXTRAS}
    if not text:
        wanted |= {*DEFAULT_TEXT, *TEXT_LISTS, *QUESTION_TEXT}
    if label is None:
        wanted |= {DEFAULT_LABEL, *TAG_LISTS, QUESTION_LABEL}
    else:
        wanted.add(label)
    return frozenset(wanted)


def find_roles(columns: Columns, *, text: Sequence[str], label: str | None, where: str) -> Roles:
    """Tells the kind of task from the columns of its training set.

    Lists in the column of texts make a tagging task, answers with their places questions. Without
    names of the user's own, `text` and `label` are taken, else `tokens` or `words` and the only
    column of tags, else `question`, `context` and `answers`.

    Args:
        columns: The training set; of those that are not wanted the values may be missing.
        text: The user's text columns; none leaves them to be found.
        label: The user's label column; `None` leaves it to be found.
        where: What messages call the training set.

    Raises:
        DataError: If there are words, but not one column alone that may hold their tags.
    """
    text = tuple(text)
    if _are_questions(columns, text, label):
        return Roles(kind="questions", text=text or QUESTION_TEXT, label=label or QUESTION_LABEL)
    words = _words_column(columns, text)
    if words is not None:
        tags = label or _only_tags(columns, words, where)
        return Roles(kind="words", text=(words,), label=tags)
    return Roles(kind="texts", text=text or DEFAULT_TEXT, label=label or DEFAULT_LABEL)


def holds_lists(values: Sequence[object] | None) -> bool:
    """Tells whether a column's values are lists."""
    return values is not None and any(isinstance(value, list) for value in values)


def _are_questions(columns: Columns, text: tuple[str, ...], label: str | None) -> bool:
    answers = label or QUESTION_LABEL
    if answers not in columns or any(name not in columns for name in text or QUESTION_TEXT):
        return False
    if text:
        return len(text) == len(QUESTION_TEXT) and any(map(_is_answer, columns[answers]))
    return answers == QUESTION_LABEL and DEFAULT_TEXT[0] not in columns


def _is_answer(value: object) -> bool:
    if isinstance(value, list):
        return any(isinstance(one, Mapping) for one in value)
    return isinstance(value, Mapping) and "text" in value


def _words_column(columns: Columns, text: tuple[str, ...]) -> str | None:
    if not text and DEFAULT_TEXT[0] not in columns:
        text = tuple(name for name in TEXT_LISTS if name in columns)[:1]
    return text[0] if len(text) == 1 and holds_lists(columns.get(text[0])) else None


def _only_tags(columns: Columns, words: str, where: str) -> str:
    names = (name for name in TAG_LISTS if name in columns and name != words)
    found = [name for name in names if holds_lists(columns[name])]
    if len(found) != 1:
        listed = ", ".join(repr(name) for name in columns)
        raise DataError(
            f"{where} has words in column {words!r}, but "
            + (f"several columns of tags: {', '.join(map(repr, found))}" if found else "no column ")
            + ("" if found else "that is known to hold their tags")
            + f"; its columns are {listed}. Name the column of tags (--label, task.label)"
        )
    return found[0]
