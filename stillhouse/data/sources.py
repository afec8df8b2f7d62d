"""Loading the sets of the task that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from stillhouse.data.embedded import load_embedded
from stillhouse.data.glue import load_glue
from stillhouse.data.hub import load_hub
from stillhouse.data.squad import load_question_files, load_squad
from stillhouse.data.table import load_table, load_unlabelled
from stillhouse.data.tagging import load_tagged_files, load_unlabelled_words
from stillhouse.data.task_names import form_of
from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from datasets import Dataset

    from stillhouse.data.examples import Source
    from stillhouse.data.task import TaskSettings


def load_source(settings: TaskSettings) -> Source:
    """Loads the training and the dev set that the settings name.

    Raises:
        SettingsError: If the task lies in no file.
        DataError: If a file, a column or a label is missing or unusable.
    """
    directory = None if settings.directory is None else Path(settings.directory)
    form = form_of(settings.name)
    match form:
        case "in-memory":
            raise SettingsError(
                "task 'in-memory' lies in no file: call stillhouse.search(task=...) with the "
                "dataset"
            )
        case "embedded":
            return load_embedded()
        case "glue":
            return load_glue(settings.name.removeprefix("glue/"), directory)
        case "squad":
            return load_squad(settings.name, directory)
        case "hub":
            return load_hub(
                settings.name,
                dev=settings.dev,
                text=settings.text,
                label=settings.label,
                metric=settings.metric,
            )
        case "table" | "columns" | "conllu" | "questions":
            return _from_files(settings)
        case _:
            assert_never(form)


def load_more(settings: TaskSettings, source: Source) -> Dataset | None:
    """Loads the examples without labels, where the settings name any.

    Args:
        settings: The user's.
        source: The labelled sets, which tell the kind of task.

    Raises:
        SettingsError: If the task takes none.
        DataError: If the file is missing or unusable.
    """
    name = settings.unlabelled
    if name is None:
        return None
    columns = source.train.column_names
    if "question" in columns:
        raise SettingsError(
            f"unlabelled is for texts that a teacher can label, but {settings.name!r} is a task of "
            "questions, and a text alone asks none; remove unlabelled, or add questions to the "
            "training set"
        )
    if "words" in columns:
        return load_unlabelled_words(name, text=source.text_columns)
    return load_unlabelled(
        Path(name).expanduser(), text=source.text_columns, pairs="text_b" in columns
    )


def _from_files(settings: TaskSettings) -> Source:
    form = form_of(settings.name)
    if form in ("columns", "conllu"):
        return load_tagged_files(
            settings.name, dev=settings.dev, text=settings.text, label=settings.label
        )
    path = Path(settings.name).expanduser()
    dev = None if settings.dev is None else Path(settings.dev).expanduser()
    if form == "questions":
        return load_question_files(path, dev=dev)
    return load_table(
        path, dev=dev, text=settings.text, label=settings.label, metric=settings.metric
    )
