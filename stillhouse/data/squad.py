"""SQuAD 1.1 and 2.0, and other files in their form, from folders or from the Hugging Face hub.

Source: Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", and
2018, "Know What You Don't Know: Unanswerable Questions for SQuAD",
https://rajpurkar.github.io/SQuAD-explorer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from stillhouse.data.hub import HUB_PREFIX, load_hub
from stillhouse.data.questions import (
    QuestionSet,
    RawQuestion,
    question_source,
    read_answers,
)
from stillhouse.data.table_files import read_text
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillhouse.data.examples import Source

T = TypeVar("T")

JSON_SUFFIX = ".json"


class SquadLayout(NamedTuple):
    """Where a version of SQuAD stands.

    Attributes:
        hub: Its name on the hub.
        train: Name of the original training file.
        dev: Name of the original dev file.
    """

    hub: str
    train: str
    dev: str


SQUAD_TASKS = {
    "squad": SquadLayout("rajpurkar/squad", "train-v1.1.json", "dev-v1.1.json"),
    "squad-v2": SquadLayout("rajpurkar/squad_v2", "train-v2.0.json", "dev-v2.0.json"),
}


def load_squad(task: str, directory: Path | None) -> Source:
    """Loads a version of SQuAD.

    Args:
        task: One of `SQUAD_TASKS`.
        directory: Folder that holds the original files. Without it `$STILLHOUSE_DATA/squad` is used
            if it holds both, else the hub.

    Raises:
        DataError: If a file is missing or broken, or the hub cannot be reached.
    """
    layout = SQUAD_TASKS[task]
    folder = _local_folder(layout, directory)
    if folder is not None:
        return load_question_files(folder / layout.train, dev=folder / layout.dev)
    return load_hub(f"{HUB_PREFIX}{layout.hub}", dev="validation", text=(), label=None, metric=None)


def load_question_files(path: Path, *, dev: Path | None) -> Source:
    """Loads questions from JSON files in SQuAD's form.

    Args:
        path: Training questions.
        dev: Dev questions; without them 10 % of the training questions are held out, by whole
            contexts.

    Raises:
        DataError: If a file is missing or broken, or has no usable question.
    """
    files = [file for file in (path, dev) if file is not None]
    return question_source([read_squad(file) for file in files])


def read_squad(path: Path) -> QuestionSet:
    """Reads a JSON file in SQuAD's form: `data`, `paragraphs`, `qas`.

    A question that says `is_impossible` has no answer, whatever else it says.

    Raises:
        DataError: If the file is missing, or not of this form.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair, as cutting a text leaves it, is no text
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: {error}; a .json file holds questions in SQuAD's form, a table of one JSON "
            "object a line is a .jsonl file"
        ) from error
    questions = list(_questions(content, path))
    if not questions:
        raise DataError(f"{path} holds no question; it needs some")
    return QuestionSet(questions=questions, where=str(path))


def _local_folder(layout: SquadLayout, directory: Path | None) -> Path | None:
    root = os.environ.get("STILLHOUSE_DATA")
    if directory is None and not root:
        return None
    folder = Path(root or "") / "squad" if directory is None else directory
    folder = folder.expanduser()
    missing = [name for name in (layout.train, layout.dev) if not (folder / name).is_file()]
    if not missing:
        return folder
    if directory is None:
        return None
    raise DataError(
        f"{directory} has no file {missing[0]!r}; give the folder that holds SQuAD's original "
        "files, or none to use the Hugging Face hub"
    )


def _questions(content: object, path: Path) -> Iterator[RawQuestion]:
    articles = _part(content, "data", list, str(path))
    for number, article in enumerate(articles, start=1):
        in_article = f"{path}, article {number}"
        for place, paragraph in enumerate(_part(article, "paragraphs", list, in_article), start=1):
            here = f"{in_article}, paragraph {place}"
            context = _part(paragraph, "context", str, here)
            for entry in _part(paragraph, "qas", list, here):
                yield _question(entry, context, here)


def _question(entry: object, context: str, where: str) -> RawQuestion:
    question = _part(entry, "question", str, where)
    here = f"{where}, question {question!r}"
    assert isinstance(entry, dict)  # or it had no question
    if "id" not in entry:
        raise DataError(f"{here} has no id; every question needs one of its own")
    is_impossible = bool(entry.get("is_impossible"))
    return RawQuestion(
        key=str(entry["id"]),
        question=question,
        context=context,
        answers=() if is_impossible else read_answers(_part(entry, "answers", list, here), here),
    )


def _part(content: object, name: str, kind: type[T], where: str) -> T:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        called = "text" if kind is str else "list"
        raise DataError(
            f"{where} has no {called} {name!r}; a .json file holds questions in SQuAD's form "
            '({"data": [{"paragraphs": [{"context": "...", "qas": [...]}]}]}), a table of one JSON '
            "object a line is a .jsonl file"
        )
    return value
