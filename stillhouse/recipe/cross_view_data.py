"""What a tagger of words learns from: sentences with tags, text without, and word vectors.

Letters in names: D numbers of a vector.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.answers import TagGold
from stillhouse.data.bioes import TagCode, tag_code
from stillhouse.data.lexicon import Lexicon, build_lexicon, lookup_form, word_counts
from stillhouse.data.splits import split_task
from stillhouse.data.task import SHUFFLE_SEED
from stillhouse.data.word_batches import (
    MOST_WORDS_OF_UNLABELLED,
    UsableText,
    WordSet,
    encode_words,
    usable_text,
)
from stillhouse.errors import DataError, SettingsError
from stillhouse.files import hash_file
from stillhouse.model.word_vectors import read_word_vectors

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from stillhouse.data.task import Task
    from stillhouse.run.cross_view_settings import CrossViewSettings
    from stillhouse.run.settings import RunSettings

FEWEST_LABELLED = 2
"""One to learn from, and one to choose by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingSet:
    """Sentences to be scored on.

    Attributes:
        words: The sentences.
        gold: Their tags in the task's numbers.
    """

    words: WordSet
    gold: TagGold


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerData:
    """Everything that a tagger of words is made from.

    Attributes:
        name: Of the task.
        metrics: Of the task, primary first.
        code: How the tagger writes the task's tags.
        lexicon: The words and characters that have rows.
        vectors: Of the user's file, by looked-up form; empty without a file.
        labelled: Sentences with tags to learn from.
        validation: Sentences with tags to choose by.
        dev: The task's own, for reports.
        text: The text without tags, and what was left out of it.
        unlabelled: The same as numbers; `None` where there is none or none is asked for.
        fingerprint: SHA-256 of the task and of the file of vectors.
        dev_sha256: The same of the sentences for reports.
    """

    name: str
    metrics: tuple[str, ...]
    code: TagCode
    lexicon: Lexicon
    vectors: dict[str, NDArray[np.float32]]
    labelled: WordSet
    validation: TaggingSet
    dev: TaggingSet
    text: UsableText
    unlabelled: WordSet | None
    fingerprint: str
    dev_sha256: str

    @property
    def words_with_vectors(self) -> int:
        """Words that begin with a vector of the user's file."""
        return sum(word in self.vectors for word in self.lexicon.words)

    def vector_rows(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns rows of the table of words, and the vectors `[R, D]` that they begin with."""
        known = [word for word in self.lexicon.words if word in self.vectors]
        rows = np.array([self.lexicon.word_number(word) for word in known], dtype=np.int64)
        return rows, np.stack([self.vectors[word] for word in known])

    def told(self) -> list[str]:
        """Says what was read."""
        lines = [
            f"{len(self.labelled):,} sentences with tags to learn from, "
            f"{len(self.validation.gold):,} to choose by; {len(self.text.sentences):,} without "
            "tags."
        ]
        if self.text.too_long or self.text.empty:
            lines.append(
                f"Of the text without tags {self.text.too_long:,} sentences of more than "
                f"{MOST_WORDS_OF_UNLABELLED} words and {self.text.empty:,} without a word are left "
                "out."
            )
        if self.vectors:
            lines.append(
                f"{self.words_with_vectors:,} of {len(self.lexicon.words):,} words begin with a "
                "vector of the file."
            )
        return lines


def read_tagger_data(task: Task, settings: RunSettings, *, word_size: int) -> TaggerData:
    """Parts, counts and numbers the sentences of a task.

    Args:
        task: A task of tags.
        settings: The run's.
        word_size: Numbers of a word's vector.

    Raises:
        SettingsError: If the task is of another kind, or there is no text without tags.
        DataError: If sentences are too few, or the file of vectors is unusable.
    """
    if task.kind != "tags":
        raise SettingsError(
            f"cross-view training is for tags of words, and the task {task.name} has none: give a "
            "file of words and tags (conll:PATH, .conllu) or a table with a column of tags"
        )
    wanted = settings.cross_view
    part, others = labelled_part(task.train, wanted.labels_fraction)
    splits = split_task(replace(task, train=part), settings.seed)
    train = splits.train.with_format(None)[:]
    text = _unlabelled_text(task, others, wanted)
    if wanted.unlabelled_weight > 0 and not text.sentences:
        raise SettingsError(
            "cross-view training learns from text without tags, and there is no sentence of it: "
            "give a file with --unlabelled (task.unlabelled), or cross_view.labels_fraction below "
            "1, or train on the tags alone with cross_view.unlabelled_weight 0"
        )
    counts = word_counts(train["words"]), word_counts(text.sentences)
    vectors = _read_vectors(wanted, counts, word_size)
    lexicon = build_lexicon(*counts, vectors=vectors, most_words=wanted.most_words)
    if vectors and not any(word in vectors for word in lexicon.words):
        raise DataError(
            f"{wanted.vectors} has a vector for none of the {len(lexicon.words):,} words that the "
            "tagger knows: give vectors of the language and the spelling of its texts, or more "
            "words (cross_view.most_words)"
        )
    code = tag_code(train["tags"], task.label_names, where=f"training set of {task.name}")
    return TaggerData(
        name=task.name,
        metrics=task.metrics,
        code=code,
        lexicon=lexicon,
        vectors=vectors,
        labelled=encode_words(
            train["words"], lexicon, tags=[code.encode(row) for row in train["tags"]]
        ),
        validation=_tagging_set(splits.validation, lexicon, task.label_names),
        dev=_tagging_set(splits.dev, lexicon, task.label_names),
        text=text,
        unlabelled=encode_words(text.sentences, lexicon) if text.sentences else None,
        fingerprint=_fingerprint(task, wanted.vectors),
        dev_sha256=task.dev_fingerprint(),
    )


def labelled_part(train: Dataset, fraction: float) -> tuple[Dataset, Dataset]:
    """Draws the sentences whose tags are read, those that `task.max_train` would draw.

    Args:
        train: All training sentences.
        fraction: Share that is drawn, above 0 and at most 1.

    Returns:
        The drawn ones and the others.

    Raises:
        DataError: If fewer than two are drawn.
    """
    if fraction == 1:
        return train, train.select([])
    count = round(fraction * len(train))
    if count < FEWEST_LABELLED:
        raise DataError(
            f"cross_view.labels_fraction {fraction:g} leaves {count} of {len(train)} sentences "
            "with tags; raise it, so that there is one to learn from and one to choose by"
        )
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(train))
    return train.select(order[:count]), train.select(order[count:])


def _unlabelled_text(task: Task, others: Dataset, wanted: CrossViewSettings) -> UsableText:
    """Gathers text without tags: training sentences whose tags are not read, then the user's."""
    if wanted.unlabelled_weight == 0:
        return UsableText([], 0, 0)
    parts = [others] if task.unlabelled is None else [others, task.unlabelled]
    sentences = chain.from_iterable(part.with_format(None)[:]["words"] for part in parts)
    return usable_text(list(sentences))


def _read_vectors(
    wanted: CrossViewSettings, counts: tuple[Counter[str], Counter[str]], width: int
) -> dict[str, NDArray[np.float32]]:
    if wanted.vectors is None:
        return {}
    path = Path(wanted.vectors).expanduser()
    forms = frozenset(map(lookup_form, chain(*counts)))
    vectors = read_word_vectors(path, wanted=forms, others=wanted.most_words)
    found = len(next(iter(vectors.values())))
    if found != width:
        raise DataError(
            f"{path} has vectors of {found} numbers, but the words of this tagger have {width}: "
            f"set cross_view.word_size to {found}, or give another file"
        )
    return vectors


def _tagging_set(part: Dataset, lexicon: Lexicon, names: tuple[str, ...]) -> TaggingSet:
    columns = part.with_format(None)[:]
    words = encode_words(columns["words"], lexicon)
    tags_W = np.fromiter(chain.from_iterable(columns["tags"]), dtype=np.int64)
    return TaggingSet(words=words, gold=TagGold(offsets=words.offsets, tags_P=tags_W, names=names))


def _fingerprint(task: Task, vectors: str | None) -> str:
    if vectors is None:
        return task.fingerprint()
    both = f"{task.fingerprint()} {hash_file(Path(vectors).expanduser())}"
    return hashlib.sha256(both.encode()).hexdigest()
