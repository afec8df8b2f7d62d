"""Tagging tasks: sentences of words, a tag for each.

Their datasets have the columns `words` and `tags`; unlabelled ones `words` alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from datasets import ClassLabel, Dataset, Features, List, Value

from stillhouse.data.column_roles import TEXT_LISTS, holds_lists
from stillhouse.data.examples import Source
from stillhouse.data.labels import abbreviated, class_name, class_names, is_missing
from stillhouse.data.metric_names import USUAL_METRICS
from stillhouse.data.splits import hold_out, usual_count
from stillhouse.data.table_files import TABLE_KINDS, TABLE_SUFFIXES, read_lines, read_table
from stillhouse.data.tag_files import (
    CONLLU_SUFFIX,
    file_path,
    is_column_file,
    read_columns,
    read_conllu,
)
from stillhouse.data.tag_schemes import TagSet, are_chunk_tags, check_names, check_schemes
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stillhouse.data.labels import RawLabel
    from stillhouse.data.tag_files import TaggedSentence

DEV_SEED = 0
MOST_UNKNOWN_FRACTION = 0.01
"""More words with tags that no training sentence has are tagged by another rule book."""
SHOWN_WORDS = 8

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedSet:
    """Sentences as they were read.

    Attributes:
        words: The words of every sentence.
        tags: The tags of every sentence, as many as it has words.
        where: What messages call the sentences.
    """

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[RawLabel]]
    where: str


class _Sentence(NamedTuple):
    words: list[str]
    tags: list[RawLabel]


def load_tagged_files(
    name: str, *, dev: str | None, text: Sequence[str], label: str | None
) -> Source:
    """Loads a tagging task from CoNLL or CoNLL-U files.

    Args:
        name: Path of the training sentences, of CoNLL columns perhaps with `COLUMN_PREFIX`.
        dev: The same of dev sentences; without them 10 % of the training sentences are held out.
        text: Number of the column of words of a CoNLL file, from 1; none means the first.
        label: Number of its column of tags, none means the last; of CoNLL-U one of `CONLLU_TAGS`,
            none means `upos`.

    Raises:
        DataError: If a file is missing or broken, or its tags are unusable.
    """
    parts = []
    for file in (name, dev):
        if file is not None:
            sentences = _read(file, text=text, label=label)
            if not any(sentence.tags for sentence in sentences):
                raise DataError(f"{file} has words alone; it needs a column of tags as well")
            words, tags = zip(*sentences, strict=True)
            parts.append(TaggedSet(words=words, tags=tags, where=str(file_path(file))))
    return tagged_source(parts, names=None, text_columns=tuple(text))


def tagged_set(
    columns: Mapping[str, Sequence[object]], *, words: str, tags: str, where: str
) -> TaggedSet:
    """Reads the sentences of a table; empty ones are left out, with a warning.

    Args:
        columns: The table.
        words: Column of lists of words.
        tags: Column of lists of tags.
        where: What messages call the table.

    Raises:
        DataError: If a word or tag is none, or a sentence has not as many of either.
    """
    read = [
        _sentence(these, those, f"{where}, sentence {number}", (words, tags))
        for number, (these, those) in enumerate(
            zip(columns[words], columns[tags], strict=True), start=1
        )
    ]
    kept = [sentence for sentence in read if sentence.words]
    _warn_of_empty(len(read) - len(kept), len(read), where)
    if not kept:
        raise DataError(f"{where}: every sentence is empty; a task needs words with tags")
    return TaggedSet(
        words=[sentence.words for sentence in kept],
        tags=[sentence.tags for sentence in kept],
        where=where,
    )


def tagged_source(
    parts: Sequence[TaggedSet], *, names: tuple[str, ...] | None, text_columns: tuple[str, ...]
) -> Source:
    """Makes a task's source from training and perhaps dev sentences.

    Dev tags that no training sentence has get names of their own, and count as mistakes, where they
    are rare.

    Args:
        parts: Training sentences, and dev sentences unless 10 % are to be held out.
        names: Names of the tags, where the training set brings them; `None` takes those that occur.
        text_columns: As in `Source`.

    Raises:
        DataError: If many dev tags are unknown, or chunks are marked by no scheme, or by another
            one in each set.
    """
    train, *others = parts
    names = _own_names(train) if names is None else names
    check_names(names, where=train.where)
    for other in others:
        names = (*names, *_unseen(other, names))
    encoded = [_encoded(part, names) for part in parts]
    are_chunks = are_chunk_tags(names)
    if are_chunks:
        check_schemes(encoded[0], encoded[1:], names)
    for other in others:
        _check_known(other, train)
        check_names(names, where=other.where)
    datasets = [
        to_dataset(part.words, tags=tags.tags, names=names)
        for part, tags in zip(parts, encoded, strict=True)
    ]
    if len(datasets) == 1:
        count = usual_count(len(datasets[0]))
        datasets = list(hold_out(datasets[0], count=count, stratified=False, seed=DEV_SEED))
    return Source(
        label_names=names,
        metrics=USUAL_METRICS["tags"] if are_chunks else ("tag_accuracy",),
        train=datasets[0],
        dev=datasets[1],
        text_columns=text_columns,
    )


def load_unlabelled_words(name: str, *, text: Sequence[str]) -> Dataset:
    """Loads sentences without tags.

    Args:
        name: Path of a text file with a sentence a line, whose words are parted by white space, of
            a table with a column of lists of words, or of a CoNLL or CoNLL-U file.
        text: Column of a table, by its name, or of a CoNLL file, by its number; what names a
            column of the other kind is passed over.

    Raises:
        DataError: If the file is missing, broken or empty, or lacks the column.
    """
    path = file_path(name)
    suffix = path.suffix.lower()
    if is_column_file(name) or suffix == CONLLU_SUFFIX:
        sentences = [one.words for one in _read(name, text=text, label=None)]
    elif suffix in TABLE_SUFFIXES:
        sentences = _table_words(path, [one for one in text if not one.isdecimal()] or TEXT_LISTS)
    else:
        sentences = [line.split() for line in read_lines(path)]
    kept = [words for words in sentences if words]
    if not kept:
        raise DataError(f"{name} holds no word; it needs a sentence a line")
    return to_dataset(kept)


def check_tags(dataset: Dataset, names: Sequence[str], *, where: str) -> None:
    """Refuses a training set of one tag, and warns of tags that a single word has.

    Raises:
        DataError: If fewer than two tags occur.
    """
    counts = Counter(chain.from_iterable(dataset[:]["tags"]))
    if len(counts) <= 1:
        only = ", ".join(repr(names[number]) for number in counts) or "none"
        raise DataError(
            f"{where}: a tagging task needs at least two tags, but the only one is {only}; name "
            "the column of tags"
        )
    single = [names[number] for number, count in sorted(counts.items()) if count == 1]
    if single:
        _logger.warning(
            "%s: %d tag(s) have only one word, which cannot be learnt and judged: %s",
            where,
            len(single),
            abbreviated(single),
        )


def to_dataset(
    words: Sequence[Sequence[str]],
    *,
    tags: Sequence[Sequence[int]] | None = None,
    names: tuple[str, ...] = (),
) -> Dataset:
    """Makes a dataset with the columns `words` and, where there are any, `tags`.

    Args:
        words: The words of every sentence.
        tags: Numbers of their tags.
        names: Name of every tag number.
    """
    columns: dict[str, list[object]] = {"words": [list(row) for row in words]}
    features = {"words": List(Value("string"))}
    if tags is not None:
        columns["tags"] = [list(row) for row in tags]
        features["tags"] = List(ClassLabel(names=list(names)))
    return Dataset.from_dict(columns, features=Features(features))


def _read(name: str, *, text: Sequence[str], label: str | None) -> list[TaggedSentence]:
    path = file_path(name)
    if not is_column_file(name):
        return read_conllu(path, tag=label or "upos")
    word = next((int(one) for one in text if one.isdecimal()), 1)
    return read_columns(path, word=word, tag=None if label is None else int(label))


def _sentence(words: object, tags: object, where: str, columns: tuple[str, str]) -> _Sentence:
    words, tags = (
        _listed(value, f"{where}, column {name!r}")
        for value, name in zip((words, tags), columns, strict=True)
    )
    if len(words) != len(tags):
        raise DataError(
            f"{where}: {len(words)} words, but {len(tags)} tags: {_shown(words)}; every word needs "
            "one tag"
        )
    for number, (word, tag) in enumerate(zip(words, tags, strict=True), start=1):
        if not isinstance(word, str):
            raise DataError(
                f"{where}: word {number} is {word!r}, which is no text: {_shown(words)}"
            )
        if not isinstance(tag, str | int) or is_missing(tag):
            raise DataError(
                f"{where}: the tag of word {number}, {word!r}, is {tag!r}, which is neither a text "
                "nor a whole number; correct it, or give such sentences as `unlabelled`"
            )
    return _Sentence(words, tags)


def _listed(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise DataError(
            f"{where}: {value!r} is no list; a tagging task has a list of words and a list of tags "
            "for every sentence"
        )
    return value


def _shown(words: Sequence[object]) -> str:
    shown = " ".join(str(word) for word in words[:SHOWN_WORDS])
    return repr(f"{shown} ..." if len(words) > SHOWN_WORDS else shown)


def _own_names(train: TaggedSet) -> tuple[str, ...]:
    tags = list(chain.from_iterable(train.tags))
    if all(isinstance(tag, int) for tag in tags):
        _logger.warning(
            "%s: the tags are numbers without names, and are called by their numbers; write texts, "
            "or a ClassLabel column, to score chunks such as B-PER and to read reports",
            train.where,
        )
    return class_names(tags)


def _unseen(part: TaggedSet, names: Sequence[str]) -> tuple[str, ...]:
    occurring = {class_name(tag) for tag in chain.from_iterable(part.tags)}
    return tuple(sorted(occurring - set(names)))


def _check_known(dev: TaggedSet, train: TaggedSet) -> None:
    """Refuses a dev set many of whose words have tags that no training sentence has."""
    known = {class_name(tag) for tag in chain.from_iterable(train.tags)}
    tags = [class_name(tag) for tag in chain.from_iterable(dev.tags)]
    unknown = Counter(tag for tag in tags if tag not in known)
    if not unknown:
        return
    told = (
        f"{dev.where}: {unknown.total()} of {len(tags)} words have {len(unknown)} tag(s) that no "
        f"training sentence has: {abbreviated(sorted(unknown))}"
    )
    if unknown.total() > MOST_UNKNOWN_FRACTION * len(tags):
        raise DataError(f"{told}; known are {abbreviated(sorted(known))}. Correct or remove them")
    _logger.warning("%s; no model learns them, and these words count as mistakes", told)


def _encoded(part: TaggedSet, names: Sequence[str]) -> TagSet:
    numbers = {name: number for number, name in enumerate(names)}
    return TagSet(
        tags=[[numbers[class_name(tag)] for tag in row] for row in part.tags], where=part.where
    )


def _table_words(path: Path, names: Sequence[str]) -> list[list[str]]:
    columns = read_table(path, names)
    name = next((name for name in names if name in columns), None)
    if name is None or not holds_lists(columns[name]):
        raise DataError(
            f"{path} has no column of lists of words called {' or '.join(map(repr, names))}; its "
            f"columns are {', '.join(map(repr, columns))}. Give a {TABLE_KINDS} file with such a "
            "column, or a text file with a sentence a line"
        )
    sentences = []
    for number, row in enumerate(columns[name], start=1):
        if not isinstance(row, list) or not all(isinstance(word, str) for word in row):
            raise DataError(f"{path}, sentence {number}: {row!r} is no list of words; correct it")
        sentences.append(row)
    return sentences


def _warn_of_empty(count: int, total: int, where: str) -> None:
    if count:
        _logger.warning("%s: left out %d of %d sentences without a word", where, count, total)
