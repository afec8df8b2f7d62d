"""What a task's name may be, and which settings go with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_never

from stillhouse.data.column_roles import QUESTION_LABEL, QUESTION_TEXT
from stillhouse.data.glue import GLUE_TASKS
from stillhouse.data.hub import HUB_PREFIX, check_hub_name
from stillhouse.data.squad import JSON_SUFFIX, SQUAD_TASKS
from stillhouse.data.table_files import TABLE_KINDS, TABLE_SUFFIXES
from stillhouse.data.tag_files import (
    COLUMN_PREFIX,
    COLUMN_SUFFIXES,
    CONLLU_SUFFIX,
    CONLLU_TAGS,
    is_column_file,
)
from stillhouse.errors import SettingsError, did_you_mean

if TYPE_CHECKING:
    from stillhouse.data.task import TaskSettings

TaskForm: TypeAlias = Literal[
    "embedded", "in-memory", "glue", "squad", "hub", "table", "columns", "conllu", "questions"
]
"""Where a task comes from: GLUE or SQuAD by name, the hub, or a file: a table, CoNLL columns,
CoNLL-U, or JSON in SQuAD's form."""

IN_MEMORY = "in-memory"
"""Name of a task that is handed over as an object, so that no settings can load it."""
MOST_TEXTS = 2
GLUE_NAMES = tuple(f"glue/{name}" for name in GLUE_TASKS)
_COLUMN_KINDS = f"{', '.join(COLUMN_SUFFIXES)} or, of any other name, {COLUMN_PREFIX}PATH"
_FILE_FORMS: dict[TaskForm, str] = {
    "table": TABLE_KINDS,
    "columns": _COLUMN_KINDS,
    "conllu": CONLLU_SUFFIX,
    "questions": f"{JSON_SUFFIX} (in SQuAD's form)",
}


def is_plain_text(name: str) -> bool:
    """Tells a file of texts without labels, one a line, from a task."""
    return name.lower().endswith(".txt") and not name.startswith(COLUMN_PREFIX)


def form_of(name: str) -> TaskForm:
    """Tells where a task of this name comes from.

    Raises:
        SettingsError: If there is no such task.
    """
    named: dict[str, TaskForm] = {
        "embedded": "embedded",
        IN_MEMORY: "in-memory",
        **dict.fromkeys(GLUE_NAMES, "glue"),
        **dict.fromkeys(SQUAD_TASKS, "squad"),
    }
    if name in named:
        return named[name]
    form = "hub" if name.startswith(HUB_PREFIX) else _file_form(name)
    if form is None:
        raise SettingsError(
            f"there is no task {name!r}; name a {TABLE_KINDS} file, a file of words and tags in "
            f"CoNLL columns ({_COLUMN_KINDS}) or in {CONLLU_SUFFIX}, a {JSON_SUFFIX} file of "
            "questions in SQuAD's form (tables are .jsonl, one JSON object a line), a dataset of "
            "the Hugging Face hub as hf:OWNER/NAME, or one of embedded, "
            f"{', '.join((*SQUAD_TASKS, *GLUE_NAMES))}{_meant(name, named)}"
        )
    return form


def _meant(name: str, named: Iterable[str]) -> str:
    """Ends a message with the name, or the beginning of a name, that was meant."""
    prefix, colon, rest = name.partition(":")
    prefixes = (COLUMN_PREFIX, HUB_PREFIX) if colon else ()
    meant = did_you_mean(f"{prefix}:", prefixes, show=lambda one: one + rest)
    return meant or did_you_mean(name, named)


def check_source(settings: TaskSettings) -> None:
    """Refuses columns, a dev set or a directory that do not go with the task's name.

    Raises:
        SettingsError: If there is no such task, or a setting does not fit.
    """
    form = form_of(settings.name)
    match form:
        case "hub":
            check_hub_name(settings.name, called="task.name")
        case "columns":
            _check_column_numbers(settings)
        case "conllu":
            _check_conllu(settings)
        case "questions":
            _refuse_columns(settings, "is in SQuAD's form, without columns", with_dev=False)
        case "embedded" | "in-memory" | "glue" | "squad":
            _refuse_columns(settings, "brings its own columns and dev set", with_dev=True)
        case "table":
            pass
        case _:
            assert_never(form)
    kinds = _FILE_FORMS.get(form)
    if kinds is not None and settings.dev is not None and _file_form(settings.dev) != form:
        raise SettingsError(f"dev is a {kinds} file, but is {settings.dev!r}")
    if settings.directory is not None and form not in ("glue", "squad"):
        raise SettingsError(
            f"directory is for GLUE and SQuAD tasks, but the task is {settings.name!r}"
        )


def check_text_columns(columns: tuple[str, ...]) -> None:
    """Refuses more than two columns of texts, or the same one twice.

    Raises:
        SettingsError: If there are.
    """
    if len(columns) > MOST_TEXTS or len(set(columns)) < len(columns):
        raise SettingsError(
            f"text names one column, or two different ones for pairs, but is {list(columns)}"
        )


def says_questions(settings: TaskSettings) -> bool:
    """Tells whether the settings alone say that the task is one of questions on passages."""
    form = form_of(settings.name)
    if form in ("squad", "questions"):
        return True
    if form == "hub":
        dataset = settings.name.removeprefix(HUB_PREFIX).partition(":")[0].rpartition("/")[2]
        if dataset in ("squad", "squad_v2"):
            return True
    return settings.label == QUESTION_LABEL or settings.text == QUESTION_TEXT


def _file_form(name: str) -> TaskForm | None:
    if is_column_file(name):
        return "columns"
    forms: dict[TaskForm, tuple[str, ...]] = {
        "table": TABLE_SUFFIXES,
        "conllu": (CONLLU_SUFFIX,),
        "questions": (JSON_SUFFIX,),
    }
    return next((form for form, ends in forms.items() if name.lower().endswith(ends)), None)


def _refuse_columns(settings: TaskSettings, reason: str, *, with_dev: bool) -> None:
    if settings.text or settings.label or (with_dev and settings.dev):
        raise SettingsError(
            f"task {settings.name!r} {reason}; remove text, label{' and dev' if with_dev else ''}"
        )


def _check_column_numbers(settings: TaskSettings) -> None:
    given = (*settings.text, *(() if settings.label is None else (settings.label,)))
    if len(settings.text) > 1 or any(not one.isdecimal() or int(one) < 1 for one in given):
        raise SettingsError(
            "text and label of a file in CoNLL columns are the numbers of the columns of words and "
            f"of tags, from 1, but are {list(settings.text)} and {settings.label!r}"
        )


def _check_conllu(settings: TaskSettings) -> None:
    if settings.text:
        raise SettingsError(
            f"the words of {settings.name!r} are in CoNLL-U's column FORM; remove text"
        )
    if settings.label is not None and settings.label not in CONLLU_TAGS:
        raise SettingsError(
            f"label of a CoNLL-U file is one of {', '.join(CONLLU_TAGS)}, but is {settings.label!r}"
        )
