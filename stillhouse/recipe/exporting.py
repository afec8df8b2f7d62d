"""Checkpoints as ONNX folders, checked on text and scored on a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import yaml
from datasets import Dataset, Features, List, Value

from stillhouse.data.answers import SpanGold
from stillhouse.data.embedded import load_embedded
from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples
from stillhouse.data.question_windows import USUAL_STRIDE
from stillhouse.data.table import load_unlabelled
from stillhouse.data.tagging import to_dataset
from stillhouse.data.task import Task
from stillhouse.errors import DataError, ExportError
from stillhouse.evaluate.answering import answers
from stillhouse.evaluate.metrics import score
from stillhouse.export.checkpoint import METRICS_FILE, known_max_length, read_metrics
from stillhouse.export.comparison import Check
from stillhouse.export.onnx_folder import Calibration, Provenance, write_onnx_folder
from stillhouse.export.quantised import QUANTISED_FOLDER
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.checkpoint_heads import OF_TASKS, load_headed
from stillhouse.model.heads import head_for
from stillhouse.model.lsq import is_quantised
from stillhouse.model.onnx_graph import require_onnx
from stillhouse.model.teachers import label_order_by_name
from stillhouse.recipe.scoring import own_gold

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.checkpoint_heads import HeadedModel, HeadKind
    from stillhouse.model.onnx_graph import GraphPrecision

Reading: TypeAlias = "Callable[[NDArray[np.float32]], NDArray[np.str_]]"
Scorer: TypeAlias = "Callable[[NDArray[np.float32]], Mapping[str, float]]"
CheckText: TypeAlias = Task | Path | Sequence[str] | None
MOST_TEXTS = 256
"""Texts without labels that a file is checked on, the first ones."""
EMBEDDED_TEXTS = 24
MOST_CALIBRATING = 256
"""Examples that scales are fixed on."""
FEWEST_CALIBRATING = 16
PAIR_SEPARATOR = " ||| "
"""Parts a question from its passage in a text, as in the example of an exported folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texts:
    """Examples, and what they are called."""

    name: str
    dataset: Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxExport:
    """An exported model.

    Attributes:
        path: Its folder.
        told: Content of its `export.json`.
    """

    path: Path
    told: Mapping[str, Any]


def export_onnx_checkpoint(
    name: str,
    folder: Path | None,
    *,
    precision: GraphPrecision | None,
    check: CheckText,
    max_length: int,
    stride: int = USUAL_STRIDE,
) -> OnnxExport:
    """Writes a checkpoint as a folder with an ONNX file.

    Args:
        name: Hub id or folder of a classifier, of a tagger of words, of a reader that answers
            questions, of a model of masked words or of a bare encoder.
        folder: Where it ends; `None` takes `onnx`, `onnx-int8` or `onnx-int8-static` in the
            checkpoint's folder, or in `runs/exports/NAME` for a hub id.
        precision: Of the file; `None` takes float32, or the 8 bits of a quantised checkpoint, which
            has no other. The scales of `int8-static` are fixed on other texts than those of the
            check: on training texts of the task, or on the last of a file or of given texts.
        check: A task, whose dev set scores the model as well; a text file, one text a line; texts;
            or `None`, which takes some of the embedded task. A tagger takes them apart at spaces; a
            reader reads `QUESTION ||| PASSAGE`, or a text without ` ||| ` as both.
        max_length: Most tokens of an example of the check; fewer where the checkpoint was trained
            on fewer.
        stride: Tokens that two windows of a long passage share.

    Raises:
        ExportError: As `write_onnx_folder`, if a package is missing, or a quantised checkpoint is
            wanted in another precision than its own.
        TeacherError: If the checkpoint cannot be loaded.
        DataError: If the check's texts cannot be read, are too few to fix scales on as well, or
            its labels are not the model's.
    """
    require_onnx()
    exported = load_headed(name)
    written_in = _precision(exported, precision)
    longest = min(known_max_length(name, max_length), usable_positions(exported.model.config))
    if isinstance(check, Task):
        _check_task(exported, check)
    texts, others = _texts_of(check, exported.head, is_static=written_in == "int8-static")

    def encoded(dataset: Dataset) -> EncodedSet:
        return encode(dataset, exported.tokenizer, max_length=longest, stride=stride)

    checked = _check(exported, check, texts, encoded(texts.dataset))
    calibration = None
    if others is not None:
        calibration = Calibration(name=others.name, encoded=encoded(others.dataset))
    path = folder or _usual_folder(name, written_in)
    told = write_onnx_folder(
        path,
        exported,
        precision=written_in,
        check=checked,
        provenance=_provenance(name),
        calibration=calibration,
    )
    return OnnxExport(path=path, told=told)


def _precision(exported: HeadedModel, wanted: GraphPrecision | None) -> GraphPrecision:
    """Tells the precision of the file."""
    if not is_quantised(exported.model):
        return wanted or "float32"
    if wanted in (None, "int8"):
        return "int8"
    raise ExportError(
        f"{exported.name} was trained in few bits and is exported in int8, with the ranges of its "
        f"training, not in {wanted}: leave the precision out, or export the model that it was made "
        "of"
    )


def _usual_folder(name: str, precision: GraphPrecision) -> Path:
    base = Path(name) if Path(name).is_dir() else Path("runs/exports") / name.replace("/", "--")
    return base / ("onnx" if precision == "float32" else f"onnx-{precision}")


def _check(exported: HeadedModel, check: CheckText, texts: _Texts, encoded: EncodedSet) -> Check:
    return Check(
        name=texts.name,
        texts=_plain(texts.dataset),
        encoded=encoded,
        score=_scorer(exported, check, encoded) if isinstance(check, Task) else None,
        answers=_reading(exported, check, encoded) if exported.head == "reader" else None,
    )


def _plain(dataset: Dataset) -> list[Any]:
    """Gives the texts of examples as they are tokenised: texts, pairs of them, or words."""
    columns = dataset.with_format(None)[:]
    if "words" in columns:
        return list(columns["words"])
    names = [name for name in ("question", "context", "text_a", "text_b") if name in columns]
    if len(names) == 1:
        return list(columns[names[0]])
    return list(zip(*(columns[name] for name in names), strict=True))


def _texts_of(check: CheckText, head: HeadKind, *, is_static: bool) -> tuple[_Texts, _Texts | None]:
    """Gathers what to check on, and for a static file others to fix scales on."""
    if isinstance(check, Task):
        texts = _Texts(name=f"the dev set of {check.name}", dataset=check.dev)
        others = _Texts(name=f"the training set of {check.name}", dataset=_drawn(check.train))
        return texts, others if is_static else None
    if check is None:
        source = load_embedded()
        name = "the embedded task"
        texts = _Texts(name=name, dataset=_of_many_lengths(source.dev))
        train = _Texts(name=f"the training set of {name}", dataset=_drawn(source.train))
        held = train if is_static else None
    else:
        texts, held = _parted(check, is_static=is_static)
    return _for_head(texts, head), None if held is None else _for_head(held, head)


def _for_head(texts: _Texts, head: HeadKind) -> _Texts:
    """Makes of texts what a model with a head reads; nothing is known of tags or answers."""
    given: list[str] = texts.dataset["text_a"][:]
    if head == "tagger":
        words = [row for row in map(str.split, given) if row]
        if not words:
            raise DataError(f"{texts.name}: there is no word to tag; give sentences")
        return replace(texts, dataset=to_dataset(words))
    if head != "reader":
        return texts
    parts = [text.partition(PAIR_SEPARATOR) for text in given]
    questions = {
        "key": [str(number) for number in range(len(given))],
        "question": [question for question, _, _ in parts],
        "context": [passage or question for question, _, passage in parts],
        "answers": [[] for _ in given],
        "answer_starts": [[] for _ in given],
    }
    both = sum(not passage for _, _, passage in parts)
    told = f" ({both} of them both question and passage)" if both else ""
    dataset = Dataset.from_dict(questions, features=_QUESTIONS)
    return _Texts(name=f"{texts.name}{told}", dataset=dataset)


_QUESTIONS = Features(
    {name: Value("string") for name in ("key", "question", "context")}
    | {"answers": List(Value("string")), "answer_starts": List(Value("int64"))}
)


def _of_many_lengths(dataset: Dataset) -> Dataset:
    texts = sorted(dataset["text_a"], key=len)
    places = np.linspace(0, len(texts) - 1, EMBEDDED_TEXTS).astype(int)
    mixed = np.random.default_rng(0).permutation(places)
    return Examples(text_a=[texts[i] for i in mixed]).to_dataset(())


def _drawn(dataset: Dataset) -> Dataset:
    order = np.random.default_rng(0).permutation(len(dataset))
    return dataset.select(order[:MOST_CALIBRATING])


def _parted(check: Path | Sequence[str], *, is_static: bool) -> tuple[_Texts, _Texts | None]:
    """Parts texts without labels into the first ones to check on and the last to fix scales on."""
    if isinstance(check, Path):
        name, dataset = check.name, load_unlabelled(check, text=(), pairs=False)
    elif check:
        name, dataset = "given texts", Examples(text_a=list(check)).to_dataset(())
    else:
        raise DataError("an export is checked on texts, but there are none: give at least one")
    count = len(dataset)
    last = min(MOST_CALIBRATING, count // 2) if is_static else 0
    if is_static and last < FEWEST_CALIBRATING:
        raise DataError(
            f"{name}: int8-static needs {2 * FEWEST_CALIBRATING} texts or more, half of them to "
            f"fix scales on and half to check on, but there are {count}: give more, a task, or "
            "nothing to take embedded texts"
        )
    first = count - last
    if isinstance(check, Path):
        first = min(first, MOST_TEXTS)
    texts = _Texts(name=name, dataset=dataset.select(range(first)))
    if not is_static:
        return texts, None
    held = dataset.select(range(count - last, count))
    return texts, _Texts(name=f"{name} (its last ones)", dataset=held)


def _check_task(exported: HeadedModel, task: Task) -> None:
    """Refuses a task that is none for the head of a model, where that is of tasks at all."""
    wanted = OF_TASKS[head_for(task.kind)]
    if exported.head in OF_TASKS.values() and exported.head != wanted:
        raise DataError(
            f"{exported.name} is a {exported.head}, the task {task.name} needs a {wanted}: check "
            "it on its own task, or on a text file"
        )


def _scorer(exported: HeadedModel, task: Task, encoded: EncodedSet) -> Scorer | None:
    """Returns what scores logits, or `None` for a model without the head of a task."""
    if exported.head not in OF_TASKS.values():
        return None
    outputs = exported.model.config.num_labels
    if outputs != task.output_count:
        raise DataError(
            f"{exported.name} has {outputs} outputs, the task {task.name} needs "
            f"{task.output_count}: check it on its own task, or on a text file"
        )
    order: tuple[int, ...] | None = tuple(range(outputs))
    if task.label_names:
        order = label_order_by_name(exported.model, task.label_names)
    if order is None:
        raise DataError(
            f"{exported.name} has the labels {label_names(exported.model.config)}, the task "
            f"{task.name} has {list(task.label_names)}: check it on its own task, or on a text file"
        )
    columns = list(order)
    gold = own_gold(exported.model, encoded)

    def scored(logits: NDArray[np.float32]) -> Mapping[str, float]:
        return score(task.metrics, logits[:, columns], gold)

    return scored


def _reading(exported: HeadedModel, check: CheckText, encoded: EncodedSet) -> Reading:
    """Returns what tells the answer to each question, empty where the model gives none."""
    gold = own_gold(exported.model, encoded)
    assert isinstance(gold, SpanGold)
    if not isinstance(check, Task):  # of which nobody knows whether a passage may lack the answer
        may_lack = getattr(exported.model.config, "no_answer_threshold", None) is not None
        gold = replace(gold, sheet=replace(gold.sheet, may_lack_answers=may_lack))

    def read(logits_P2: NDArray[np.float32]) -> NDArray[np.str_]:
        return np.array([one.text for one in answers(logits_P2, gold)])

    return read


def _provenance(name: str) -> Provenance:
    """Gathers what the checkpoint's folder, its run and its teacher's folder tell."""
    folder = Path(name).resolve()
    if not folder.is_dir():
        return Provenance()
    metrics = read_metrics(folder) if (folder / METRICS_FILE).exists() else {}
    return Provenance(teacher=_teacher_of(folder), licence=_licence_of(folder), metrics=metrics)


def _teacher_of(folder: Path) -> str | None:
    """Reads what a checkpoint in a run directory learnt from, where that was another model."""
    job, source = _source_of(folder)
    return source if job in ("teacher", "quantise") else None


def _licence_of(folder: Path) -> str | None:
    """Reads the licence of a checkpoint, or the nearest one of those that it was made of."""
    seen: set[Path] = set()
    while folder not in seen:  # a folder that names itself would never end
        licence = _licence(folder)
        _, source = _source_of(folder)
        if licence is not None or source is None:
            return licence
        seen.add(folder)
        folder = Path(source).resolve()
    return None


def _source_of(folder: Path) -> tuple[str, str | None]:
    """Tells how a checkpoint in a run directory was made, and of which other one.

    Returns:
        Section of the run's settings that names the other one, and its name: `teacher` of a
        student, `RUN/students/N`, quantised or not; `quantise` or `finetune` of `RUN/model`.
    """
    if folder.name == QUANTISED_FOLDER:
        folder = folder.parent
    is_student, is_model = folder.name.isdecimal(), folder.name == "model"
    run = folder.parent.parent if is_student else folder.parent
    file = run / "settings.yaml"
    if not (is_student or is_model) or not file.exists():
        return "", None
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    for job in ("teacher",) if is_student else ("quantise", "finetune"):
        name = (settings.get(job) or {}).get("model")
        if name is not None:
            return job, str(name)
    return "", None


def _licence(folder: Path) -> str | None:
    """Reads the licence from the head of a card, as the hub writes it."""
    card = folder / "README.md"
    parts = card.read_text(encoding="utf-8").split("---\n", 2) if card.exists() else []
    if len(parts) < 3 or parts[0]:  # noqa: PLR2004  nothing, head, body
        return None
    try:
        head = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return None if licence is None else str(licence)
