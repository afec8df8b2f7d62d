"""The GLUE tasks, from folders in the original layout or from the Hugging Face hub.

Source: Wang et al. 2018, "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language
Understanding", https://gluebenchmark.com. Label numbers follow the hub's `nyu-mll/glue`.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
from datasets import ClassLabel

from stillhouse.data.examples import Examples, Source
from stillhouse.data.labels import encode_classes, encode_numbers
from stillhouse.data.table_files import read_lines
from stillhouse.errors import DataError, SettingsError

if TYPE_CHECKING:
    from stillhouse.data.metric_names import MetricName

HUB_NAME = "nyu-mll/glue"
MOST_BROKEN_FRACTION = 0.01
"""The official QQP has a few rows with missing fields; a file with more is damaged."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GlueLayout:
    """How one GLUE task is stored.

    Attributes:
        folder: Folder of the original release.
        text: Text columns of the original files.
        label: Label column of the original files.
        label_names: Name of every class number; empty for regression.
        raw_labels: What the original files write for every class number.
        metrics: GLUE's own metrics, primary first.
        hub_text: Text columns on the hub.
        dev_file: Name of the original dev file.
        hub_dev: Name of the dev split on the hub.
        header: Column names of files without a header line.
    """

    folder: str
    text: tuple[str, ...]
    label: str
    label_names: tuple[str, ...]
    raw_labels: tuple[str, ...]
    metrics: tuple[MetricName, ...]
    hub_text: tuple[str, ...]
    dev_file: str = "dev.tsv"
    hub_dev: str = "validation"
    header: tuple[str, ...] = ()


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")
_MNLI_LABELS = ("entailment", "neutral", "contradiction")

GLUE_TASKS = {
    "sst2": GlueLayout(
        folder="SST-2",
        text=("sentence",),
        label="label",
        label_names=("negative", "positive"),
        raw_labels=("0", "1"),
        metrics=("accuracy",),
        hub_text=("sentence",),
    ),
    "mrpc": GlueLayout(
        folder="MRPC",
        text=("#1 String", "#2 String"),
        label="Quality",
        label_names=("not_equivalent", "equivalent"),
        raw_labels=("0", "1"),
        metrics=("accuracy", "f1"),
        hub_text=_SENTENCES,
    ),
    "cola": GlueLayout(
        folder="CoLA",
        text=("sentence",),
        label="label",
        label_names=("unacceptable", "acceptable"),
        raw_labels=("0", "1"),
        metrics=("mcc",),
        hub_text=("sentence",),
        header=("source", "label", "mark", "sentence"),
    ),
    "stsb": GlueLayout(
        folder="STS-B",
        text=_SENTENCES,
        label="score",
        label_names=(),
        raw_labels=(),
        metrics=("pearson", "spearman"),
        hub_text=_SENTENCES,
    ),
    "rte": GlueLayout(
        folder="RTE",
        text=_SENTENCES,
        label="label",
        label_names=_ENTAILMENT,
        raw_labels=_ENTAILMENT,
        metrics=("accuracy",),
        hub_text=_SENTENCES,
    ),
    "wnli": GlueLayout(
        folder="WNLI",
        text=_SENTENCES,
        label="label",
        label_names=("not_entailment", "entailment"),
        raw_labels=("0", "1"),
        metrics=("accuracy",),
        hub_text=_SENTENCES,
    ),
    "qnli": GlueLayout(
        folder="QNLI",
        text=("question", "sentence"),
        label="label",
        label_names=_ENTAILMENT,
        raw_labels=_ENTAILMENT,
        metrics=("accuracy",),
        hub_text=("question", "sentence"),
    ),
    "qqp": GlueLayout(
        folder="QQP",
        text=("question1", "question2"),
        label="is_duplicate",
        label_names=("not_duplicate", "duplicate"),
        raw_labels=("0", "1"),
        metrics=("accuracy", "f1"),
        hub_text=("question1", "question2"),
    ),
    "mnli": GlueLayout(
        folder="MNLI",
        text=_SENTENCES,
        label="gold_label",
        label_names=_MNLI_LABELS,
        raw_labels=_MNLI_LABELS,
        metrics=("accuracy",),
        hub_text=("premise", "hypothesis"),
        dev_file="dev_matched.tsv",
        hub_dev="validation_matched",
    ),
}


def load_glue(task: str, directory: Path | None) -> Source:
    """Loads a GLUE task.

    Args:
        task: One of `GLUE_TASKS`.
        directory: Folder that holds the original task folders (`SST-2`, `MRPC` ...). Without it
            `$STILLHOUSE_DATA/glue` is used if it holds the task's folder, else the hub.

    Raises:
        SettingsError: If there is no such task.
        DataError: If a file is missing or broken, or the hub cannot be reached.
    """
    layout = GLUE_TASKS.get(task)
    if layout is None:
        names = ", ".join(f"glue/{name}" for name in GLUE_TASKS)
        raise SettingsError(f"there is no task 'glue/{task}'; choose one of {names}")
    folder = _local_folder(layout, directory)
    if folder is None:
        train, dev = (_from_hub(task, layout, split) for split in ("train", layout.hub_dev))
    else:
        train, dev = (_from_file(layout, folder / name) for name in ("train.tsv", layout.dev_file))
    return Source(
        label_names=layout.label_names,
        metrics=layout.metrics,
        train=train.to_dataset(layout.label_names),
        dev=dev.to_dataset(layout.label_names),
        text_columns=layout.hub_text,
    )


def _local_folder(layout: GlueLayout, directory: Path | None) -> Path | None:
    if directory is not None:
        folder = directory.expanduser() / layout.folder
        if not folder.is_dir():
            raise DataError(
                f"{directory} has no folder {layout.folder!r}; give the folder that holds the "
                "original GLUE folders, or none to use the Hugging Face hub"
            )
        return folder
    root = os.environ.get("STILLHOUSE_DATA")
    if not root:
        return None
    folder = Path(root).expanduser() / "glue" / layout.folder
    return folder if folder.is_dir() else None


def _from_file(layout: GlueLayout, path: Path) -> Examples:
    rows = [line.split("\t") for line in read_lines(path)]
    header, body = (layout.header, rows) if layout.header else (tuple(rows[0]), rows[1:])
    columns = {name: number for number, name in enumerate(header)}
    missing = [name for name in (*layout.text, layout.label) if name not in columns]
    if missing:
        raise DataError(
            f"{path} has no column {missing[0]!r}; its columns are {', '.join(header)}. It should "
            "be the original GLUE file"
        )
    whole = [row for row in body if len(row) == len(header)]
    broken = len(body) - len(whole)
    if not whole or broken > MOST_BROKEN_FRACTION * len(body):
        raise DataError(
            f"{path}: {broken} of {len(body)} rows do not have {len(header)} fields; get the "
            "original GLUE file again"
        )
    if broken:
        _logger.warning("%s: left %d broken rows out", path, broken)
    return _encoded(
        layout,
        texts=[[row[columns[name]] for row in whole] for name in layout.text],
        raw=[row[columns[layout.label]] for row in whole],
        names=layout.raw_labels,
        where=str(path),
    )


def _from_hub(task: str, layout: GlueLayout, split: str) -> Examples:
    where = f"{HUB_NAME}, {task}, {split}"
    try:
        dataset = datasets.load_dataset(HUB_NAME, task, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"cannot load {where} from the Hugging Face hub ({error}); go online once, or give "
            "a folder in the original GLUE layout as `directory` or $STILLHOUSE_DATA/glue"
        ) from error
    columns = dataset[:]
    raw = columns["label"]
    feature = dataset.features["label"]
    if isinstance(feature, ClassLabel):
        raw = [feature.int2str(number) for number in raw]
    return _encoded(
        layout,
        texts=[columns[name] for name in layout.hub_text],
        raw=raw,
        names=layout.label_names,
        where=where,
    )


def _encoded(
    layout: GlueLayout,
    *,
    texts: list[list[str]],
    raw: list[str],
    names: tuple[str, ...],
    where: str,
) -> Examples:
    labels = (
        encode_classes(raw, names, where=where)
        if layout.label_names
        else encode_numbers(raw, where=where)
    )
    return Examples(text_a=texts[0], text_b=texts[1] if len(texts) > 1 else None, labels=labels)
