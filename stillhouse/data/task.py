"""A task: two labelled sets of texts, their classes and their metrics, and how to load one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np

from stillhouse.data.embedded import load_embedded
from stillhouse.data.examples import is_multi_label
from stillhouse.data.glue import GLUE_TASKS, load_glue
from stillhouse.data.hub import HUB_PREFIX, check_hub_name, load_hub
from stillhouse.data.label_sets import check_label_set_classes
from stillhouse.data.labels import check_classes
from stillhouse.data.metric_names import TaskKind, metric_name, order_metrics
from stillhouse.data.table import load_columns, load_table, load_unlabelled
from stillhouse.data.table_files import TABLE_KINDS, TABLE_SUFFIXES
from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

    from stillhouse.data.examples import Source

FEWEST_TOKENS = 8
MOST_TEXTS = 2
SHUFFLE_SEED = 0
IN_MEMORY = "in-memory"
"""Name of a task that is handed over as an object, so that no settings can load it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """What the user says about the task.

    Attributes:
        name: `embedded`, `glue/<task>`, the path of a `.csv`, `.tsv`, `.jsonl` or `.parquet`
            file, `hf:NAME`, `hf:OWNER/NAME` or `hf:./FOLDER` (each perhaps with `:CONFIG`) for a
            dataset of the hub or of a folder, or `in-memory`.
        text: One or two text columns of a table or dataset; none means `text`.
        label: Label column of a table or dataset; none means `label`. A column of lists makes a
            multi-label task.
        dev: Path of a table's dev set; none holds 10 % of the table out. Of a dataset the split;
            none takes `validation`, else `test`, else holds 10 % of `train` out.
        metric: Metric to put first.
        unlabelled: Path of more texts without labels: one a line, or a table.
        max_length: Most tokens of an example.
        min_length: Fewest tokens of an example, special ones included, that students learn from or
            are chosen on; for a training set that holds fragments of what is served. The teacher
            learns from all, and reports are of the whole dev set.
        directory: Folder with the original GLUE folders.
        max_train: Most training examples; drawn by chance with a fixed seed.
    """

    name: str = "embedded"
    text: tuple[str, ...] = ()
    label: str | None = None
    dev: str | None = None
    metric: str | None = None
    unlabelled: str | None = None
    max_length: int = 128
    min_length: int = 0
    directory: str | None = None
    max_train: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings against each other.

        Raises:
            SettingsError: If a value is impossible or does not go with the kind of task.
        """
        self._check_source()
        _check_text_columns(self.text)
        if self.metric is not None:
            metric_name(self.metric)
        if self.max_length < FEWEST_TOKENS:
            raise SettingsError(f"max_length is at least {FEWEST_TOKENS}, but is {self.max_length}")
        if not 0 <= self.min_length < self.max_length:
            raise SettingsError(
                f"min_length is from 0 to below max_length ({self.max_length}), but is "
                f"{self.min_length}"
            )
        if self.max_train is not None and self.max_train < 1:
            raise SettingsError(f"max_train is at least 1, but is {self.max_train}")

    @property
    def is_hub(self) -> bool:
        """Whether the task is a dataset of the hub, or of a folder like one."""
        return self.name.startswith(HUB_PREFIX)

    @property
    def is_table(self) -> bool:
        """Whether the task is read from the user's own table."""
        return not self.is_hub and self.name.lower().endswith(TABLE_SUFFIXES)

    def _check_source(self) -> None:
        if self.is_hub:
            check_hub_name(self.name, called="task.name")
        elif self.is_table:
            if self.dev is not None and not self.dev.lower().endswith(TABLE_SUFFIXES):
                raise SettingsError(f"dev is a {TABLE_KINDS} file, but is {self.dev!r}")
        elif self.name not in ("embedded", IN_MEMORY, *_glue_names()):
            raise SettingsError(
                f"there is no task {self.name!r}; name a {TABLE_KINDS} file, a dataset of the "
                f"Hugging Face hub as hf:OWNER/NAME, or one of embedded, {', '.join(_glue_names())}"
            )
        elif self.text or self.label or self.dev:
            raise SettingsError(
                f"task {self.name!r} brings its own columns and dev set; remove text, label and dev"
            )
        if self.directory is not None and self.name not in _glue_names():
            raise SettingsError(f"directory is for GLUE tasks, but the task is {self.name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task on texts or pairs of texts.

    Every set has the columns `text_a`, for pairs `text_b`, and `label` (not in `unlabelled`): a
    class number, a list of them (`List(ClassLabel)`), or a real number.

    Attributes:
        name: What reports call the task.
        metrics: Names of the metrics, primary first.
        label_names: Name of every class number; empty for regression.
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
        """What a label is: one class, any number of classes, or a score."""
        if not self.label_names:
            return "scores"
        return "multi_label" if is_multi_label(self.train) else "classes"

    @property
    def output_count(self) -> int:
        """Outputs that a model of the task has: one a class, or one for a score."""
        return max(1, len(self.label_names))

    @property
    def is_regression(self) -> bool:
        """Whether labels are real numbers rather than classes."""
        return not self.label_names

    def fingerprint(self) -> str:
        """Gives the SHA-256, in hexadecimal, of the classes and of every example in order."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        for part in (self.train, self.dev, self.unlabelled):
            columns = {} if part is None else part.with_format(None)[:]
            digest.update(json.dumps(columns, sort_keys=True).encode())
        return digest.hexdigest()


def load_task(settings: TaskSettings) -> Task:
    """Loads the task that the settings name.

    Raises:
        SettingsError: If the task or its metric does not exist or does not fit.
        DataError: If a file, a column or a label is missing or unusable.
    """
    source = _source(settings)
    name = Path(settings.name).name if settings.is_table else settings.name
    unlabelled = None
    if settings.unlabelled is not None:
        unlabelled = load_unlabelled(
            Path(settings.unlabelled).expanduser(),
            text=source.text_columns,
            pairs="text_b" in source.train.column_names,
        )
    return _to_task(
        source,
        name=name,
        metric=settings.metric,
        unlabelled=unlabelled,
        max_train=settings.max_train,
    )


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
        text: One text column, or two for pairs.
        label: Label column; a `ClassLabel` column keeps its names and their order.
        metric: Metric to put first.
        name: What reports call the task.

    Raises:
        SettingsError: If the metric does not exist or does not fit.
        DataError: If a column or a label is missing or unusable.
    """
    columns = (text,) if isinstance(text, str) else tuple(text)
    if not columns:
        raise SettingsError("text names no column; name one text column, or two for pairs")
    _check_text_columns(columns)
    source = load_columns(train, dev, text=columns, label=label, metric=metric)
    return _to_task(source, name=name, metric=metric, unlabelled=None, max_train=None)


def _source(settings: TaskSettings) -> Source:
    if settings.name == IN_MEMORY:
        raise SettingsError(
            "task 'in-memory' lies in no file: call stillhouse.search(task=...) with the dataset"
        )
    if settings.name == "embedded":
        return load_embedded()
    if settings.is_table:
        return load_table(
            Path(settings.name).expanduser(),
            dev=None if settings.dev is None else Path(settings.dev).expanduser(),
            text=settings.text,
            label=settings.label,
            metric=settings.metric,
        )
    if settings.is_hub:
        return load_hub(
            settings.name,
            dev=settings.dev,
            text=settings.text,
            label=settings.label,
            metric=settings.metric,
        )
    directory = None if settings.directory is None else Path(settings.directory)
    return load_glue(settings.name.removeprefix("glue/"), directory)


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
        case "scores":
            pass
        case _:
            assert_never(task.kind)
    ordered = order_metrics(source.metrics, metric, kind=task.kind, classes=len(source.label_names))
    return replace(task, metrics=ordered)


def _glue_names() -> tuple[str, ...]:
    return tuple(f"glue/{name}" for name in GLUE_TASKS)


def _check_text_columns(columns: tuple[str, ...]) -> None:
    if len(columns) > MOST_TEXTS or len(set(columns)) < len(columns):
        raise SettingsError(
            f"text names one column, or two different ones for pairs, but is {list(columns)}"
        )
