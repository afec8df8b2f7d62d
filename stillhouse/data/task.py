"""A task: two labelled sets of texts, their classes and their metrics, and how to load one."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, assert_never

import numpy as np

from stillhouse.data.examples import is_multi_label
from stillhouse.data.label_sets import check_label_set_classes
from stillhouse.data.labels import check_classes
from stillhouse.data.metric_names import TaskKind, metric_name, order_metrics
from stillhouse.data.question_windows import USUAL_STRIDE
from stillhouse.data.sources import load_more, load_source
from stillhouse.data.table import load_columns
from stillhouse.data.tag_files import file_path
from stillhouse.data.tagging import check_tags
from stillhouse.data.task_names import (
    IN_MEMORY,
    check_source,
    check_text_columns,
    form_of,
    says_questions,
)
from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from stillhouse.data.examples import Source

__all__ = [
    "IN_MEMORY",
    "Task",
    "TaskSettings",
    "load_task",
    "task_from_dataset",
    "usual_length",
]

FEWEST_TOKENS = 8
SHUFFLE_SEED = 0
USUAL_LENGTH = 128
QUESTION_LENGTH = 384
"""As BERT's own runs of SQuAD."""

_logger = logging.getLogger(__name__)


def usual_length(kind: TaskKind) -> int:
    """Gives the most tokens of an example where the user says nothing: 384 of questions."""
    return QUESTION_LENGTH if kind == "spans" else USUAL_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """What the user says about the task.

    Attributes:
        name: `embedded`, `glue/<task>`, `squad`, `squad-v2`, or a file: a table (`.csv`, `.tsv`,
            `.jsonl`, `.parquet`), words and tags in CoNLL columns (`.conll`, `.iob`, `.iob2`,
            `.bio`, `.col`, or `conll:PATH` for another name) or in `.conllu`, questions in SQuAD's
            form (`.json`); or `hf:NAME`, `hf:OWNER/NAME` or `hf:./FOLDER` (each perhaps with
            `:CONFIG`) for a dataset of the hub or of a folder; or `in-memory`.
        text: Of a table or dataset one or two text columns, a column of lists of words, or the
            columns of questions and contexts; none means `text`, else `tokens` or `words`, else
            `question` and `context`. In CoNLL columns the number of the column of words, from 1.
        label: Of a table or dataset the label column; none means `label`, beside words the only
            column of tags, beside questions `answers`. Beside texts a column of lists makes a
            multi-label task. In CoNLL columns the number of the column of tags, none means the last
            one; in CoNLL-U `upos` (meant by none), `xpos` or `deprel`.
        dev: Path of a dev set, a file of the training set's kind; none holds 10 % of the training
            set out. Of a dataset the split; none takes `validation`, else `test`, else holds 10 %
            of `train` out.
        metric: Metric to put first.
        unlabelled: Path of more texts without labels: one a line, or a table. For a tagging task
            the words of a line are parted by white space, and CoNLL files are taken as well; for
            questions there are none.
        max_length: Most tokens of an example; 0 becomes the usual number, 384 if the settings say
            that the task is one of questions, else 128. Words of a tagging task beyond it are not
            scored; contexts of questions are cut into windows.
        stride: Tokens that neighbouring windows of a context share, at most half of those of the
            context that a window has room for.
        min_length: Fewest tokens of an example, special ones included, that students learn from or
            are chosen on; for a training set that holds fragments of what is served. The teacher
            learns from all, and reports are of the whole dev set. Not for questions.
        directory: Folder with the original GLUE folders, or the original files of SQuAD.
        max_train: Most training examples; drawn by chance with a fixed seed.
    """

    name: str = "embedded"
    text: tuple[str, ...] = ()
    label: str | None = None
    dev: str | None = None
    metric: str | None = None
    unlabelled: str | None = None
    max_length: int = 0
    stride: int = USUAL_STRIDE
    min_length: int = 0
    directory: str | None = None
    max_train: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings against each other, and fills in the usual length.

        Raises:
            SettingsError: If a value is impossible or does not go with the kind of task.
        """
        check_source(self)
        check_text_columns(self.text)
        if self.metric is not None:
            metric_name(self.metric)
        asks = says_questions(self)
        if self.max_length == 0:
            object.__setattr__(self, "max_length", usual_length("spans" if asks else "classes"))
        self._check_lengths()
        if asks:
            _check_question_settings(self)
        if self.max_train is not None and self.max_train < 1:
            raise SettingsError(f"max_train is at least 1, but is {self.max_train}")

    def _check_lengths(self) -> None:
        if self.max_length < FEWEST_TOKENS:
            raise SettingsError(f"max_length is at least {FEWEST_TOKENS}, but is {self.max_length}")
        if not 0 <= self.min_length < self.max_length:
            raise SettingsError(
                f"min_length is from 0 to below max_length ({self.max_length}), but is "
                f"{self.min_length}"
            )
        if self.stride < 0:
            raise SettingsError(f"stride is at least 0, but is {self.stride}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task on texts or pairs of texts, on words, or on questions.

    Every set of texts has the columns `text_a`, for pairs `text_b`, and `label` (not in
    `unlabelled`): a class number, a list of them (`List(ClassLabel)`), or a real number. Sets of a
    tagging task have the columns `words` and `tags` (not in `unlabelled`), those of questions
    `key`, `question`, `context`, `answers` and `answer_starts`.

    Attributes:
        name: What reports call the task.
        metrics: Names of the metrics, primary first.
        label_names: Name of every class or tag number; empty for regression and for questions.
        train: Examples to learn from and to choose by.
        dev: Examples to report on.
        unlabelled: More texts to distil on, without labels.
    """

    name: str
    metrics: tuple[str, ...]
    label_names: tuple[str, ...]
    train: Dataset
    dev: Dataset
    unlabelled: Dataset | None = None

    @property
    def kind(self) -> TaskKind:
        """What a label is, told from the columns of the training set."""
        columns = self.train.column_names
        if "words" in columns:
            return "tags"
        if "question" in columns:
            return "spans"
        if not self.label_names:
            return "scores"
        return "multi_label" if is_multi_label(self.train) else "classes"

    @property
    def output_count(self) -> int:
        """Outputs that a model of the task has.

        One a class, one for a score; of each token one a tag, or the two for the start and the end
        of an answer.
        """
        return 2 if self.kind == "spans" else max(1, len(self.label_names))

    @property
    def is_regression(self) -> bool:
        """Whether labels are real numbers rather than classes."""
        return self.kind == "scores"

    def fingerprint(self) -> str:
        """Gives the SHA-256, in hexadecimal, of the classes and of every example in order."""
        return self._hash(self.train, self.dev, self.unlabelled)

    def dev_fingerprint(self) -> str:
        """Gives the SHA-256, in hexadecimal, of the classes and of the examples for reports."""
        return self._hash(self.dev)

    def _hash(self, *parts: Dataset | None) -> str:
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        for part in parts:
            columns = {} if part is None else part.with_format(None)[:]
            digest.update(json.dumps(columns, sort_keys=True).encode())
        return digest.hexdigest()


def load_task(settings: TaskSettings) -> Task:
    """Loads the task that the settings name.

    Raises:
        SettingsError: If the task or its metric does not exist or does not fit.
        DataError: If a file, a column or a label is missing or unusable.
    """
    source = load_source(settings)
    is_file = form_of(settings.name) in ("table", "columns", "conllu", "questions")
    task = _to_task(
        source,
        name=file_path(settings.name).name if is_file else settings.name,
        metric=settings.metric,
        unlabelled=load_more(settings, source),
        max_train=settings.max_train,
    )
    if task.kind == "spans":
        _check_question_settings(settings)
        if settings.max_length == USUAL_LENGTH and not says_questions(settings):
            _logger.warning(
                "%s: contexts are cut into windows of %d tokens (task.max_length), usual for "
                "questions are %d",
                task.name,
                USUAL_LENGTH,
                QUESTION_LENGTH,
            )
    return task


def task_from_dataset(
    train: Dataset,
    dev: Dataset | None = None,
    *,
    text: str | Sequence[str],
    label: str,
    metric: str | None = None,
    name: str = "dataset",
) -> Task:
    """Makes a task from datasets that are already loaded.

    Args:
        train: Training examples.
        dev: Dev examples; without them 10 % of the training examples are held out.
        text: One text column, or two for pairs; a column of lists of words; or the columns of
            questions and contexts.
        label: Column of labels, of lists of tags, or of answers; a `ClassLabel` column, or one of
            lists of it, keeps its names and their order.
        metric: Metric to put first.
        name: What reports call the task.

    Raises:
        SettingsError: If the metric does not exist or does not fit.
        DataError: If a column or a label is missing or unusable.
    """
    columns = (text,) if isinstance(text, str) else tuple(text)
    if not columns:
        raise SettingsError("text names no column; name one text column, or two for pairs")
    check_text_columns(columns)
    source = load_columns(train, dev, text=columns, label=label, metric=metric)
    return _to_task(source, name=name, metric=metric, unlabelled=None, max_train=None)


def _to_task(
    source: Source,
    *,
    name: str,
    metric: str | None,
    unlabelled: Dataset | None,
    max_train: int | None,
) -> Task:
    train = source.train
    if max_train is not None and max_train < len(train):
        order = np.random.default_rng(SHUFFLE_SEED).permutation(len(train))
        train = train.select(order[:max_train])
    task = Task(
        name=name,
        metrics=source.metrics,
        label_names=source.label_names,
        train=train,
        dev=source.dev,
        unlabelled=unlabelled,
    )
    where = f"training set of {name}"
    match task.kind:
        case "classes":
            check_classes(train[:]["label"], task.label_names, where=where)
        case "multi_label":
            check_label_set_classes(train[:]["label"], task.label_names, where=where)
        case "tags":
            check_tags(train, task.label_names, where=where)
        case "scores" | "spans":
            pass
        case _:
            assert_never(task.kind)
    ordered = order_metrics(source.metrics, metric, kind=task.kind, classes=len(source.label_names))
    return replace(task, metrics=ordered)


def _check_question_settings(settings: TaskSettings) -> None:
    if settings.min_length:
        raise SettingsError(
            f"min_length is not for questions, whose contexts are cut into windows, but is "
            f"{settings.min_length}; remove it"
        )
