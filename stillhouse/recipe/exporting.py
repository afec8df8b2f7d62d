"""Checkpoints as ONNX folders, checked on text and scored on a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import yaml

from stillhouse.data.embedded import load_embedded
from stillhouse.data.encoding import encode
from stillhouse.data.examples import Examples, label_array
from stillhouse.data.table import load_unlabelled
from stillhouse.data.task import Task
from stillhouse.errors import DataError
from stillhouse.evaluate.metrics import score
from stillhouse.export.checkpoint import METRICS_FILE, known_max_length, read_metrics
from stillhouse.export.onnx_folder import Calibration, Check, Provenance, write_onnx_folder
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.checkpoint_heads import load_headed
from stillhouse.model.onnx_graph import require_onnx
from stillhouse.model.teachers import label_order_by_name

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray

    from stillhouse.model.checkpoint_heads import HeadedModel
    from stillhouse.model.onnx_graph import GraphPrecision

Scorer: TypeAlias = "Callable[[NDArray[np.float32]], Mapping[str, float]]"
CheckText: TypeAlias = Task | Path | Sequence[str] | None
MOST_TEXTS = 256
"""Texts without labels that a file is checked on, the first ones."""
EMBEDDED_TEXTS = 24
MOST_CALIBRATING = 256
"""Examples that scales are fixed on."""
FEWEST_CALIBRATING = 16


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
    name: str, folder: Path | None, *, precision: GraphPrecision, check: CheckText, max_length: int
) -> OnnxExport:
    """Writes a checkpoint as a folder with an ONNX file.

    Args:
        name: Hub id or folder of a classifier, of a model of masked words or of a bare encoder.
        folder: Where it ends; `None` takes `onnx`, `onnx-int8` or `onnx-int8-static` in the
            checkpoint's folder, or in `runs/exports/NAME` for a hub id.
        precision: Of the file. The scales of `int8-static` are fixed on other texts than those of
            the check: on training texts of the task, or on the last of a file or of given texts.
        check: A task, whose dev set scores the model as well; a text file, one text a line; texts;
            or `None`, which takes some of the embedded task.
        max_length: Most tokens of an example of the check; fewer where the checkpoint was trained
            on fewer.

    Raises:
        ExportError: As `write_onnx_folder`, or if a package is missing.
        TeacherError: If the checkpoint cannot be loaded.
        DataError: If the check's texts cannot be read, are too few to fix scales on as well, or
            its labels are not the model's.
    """
    require_onnx()
    exported = load_headed(name)
    longest = min(known_max_length(name, max_length), usable_positions(exported.model.config))
    texts, others = _texts_of(check, is_static=precision == "int8-static")
    checked = _check(exported, check, texts, max_length=longest)
    calibration = None
    if others is not None:
        encoded = encode(others.dataset, exported.tokenizer, max_length=longest)
        calibration = Calibration(name=others.name, encoded=encoded)
    path = folder or _usual_folder(name, precision)
    told = write_onnx_folder(
        path,
        exported,
        precision=precision,
        check=checked,
        provenance=_provenance(name),
        calibration=calibration,
    )
    return OnnxExport(path=path, told=told)


def _usual_folder(name: str, precision: GraphPrecision) -> Path:
    base = Path(name) if Path(name).is_dir() else Path("runs/exports") / name.replace("/", "--")
    return base / ("onnx" if precision == "float32" else f"onnx-{precision}")


def _check(exported: HeadedModel, check: CheckText, texts: _Texts, *, max_length: int) -> Check:
    columns = texts.dataset.with_format(None)[:]
    pairs: list[Any] = columns["text_a"]
    if "text_b" in columns:
        pairs = list(zip(pairs, columns["text_b"], strict=True))
    return Check(
        name=texts.name,
        texts=pairs,
        encoded=encode(texts.dataset, exported.tokenizer, max_length=max_length),
        score=_scorer(exported, check) if isinstance(check, Task) else None,
    )


def _texts_of(check: CheckText, *, is_static: bool) -> tuple[_Texts, _Texts | None]:
    """Gathers what to check on, and for a static file others to fix scales on."""
    if isinstance(check, Task):
        name, train = check.name, check.train
        texts = _Texts(name=f"the dev set of {name}", dataset=check.dev)
    elif check is None:
        source = load_embedded()
        name, train = "the embedded task", source.train
        texts = _Texts(name=name, dataset=_of_many_lengths(source.dev))
    else:
        return _parted(check, is_static=is_static)
    others = _Texts(name=f"the training set of {name}", dataset=_drawn(train))
    return texts, others if is_static else None


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


def _scorer(exported: HeadedModel, task: Task) -> Scorer | None:
    """Returns what scores logits, or `None` for a model without the head of a task."""
    if exported.head != "classifier":
        return None
    outputs = exported.model.config.num_labels
    if outputs != task.output_count:
        raise DataError(
            f"{exported.name} has {outputs} outputs, the task {task.name} needs "
            f"{task.output_count}: check it on its own task, or on a text file"
        )
    order: tuple[int, ...] | None = (0,)
    if task.label_names:
        order = label_order_by_name(exported.model, task.label_names)
    if order is None:
        raise DataError(
            f"{exported.name} has the labels {label_names(exported.model.config)}, the task "
            f"{task.name} has {list(task.label_names)}: check it on its own task, or on a text file"
        )
    columns = list(order)
    labels = label_array(task.dev.with_format(None))

    def scored(logits_NC: NDArray[np.float32]) -> Mapping[str, float]:
        return score(task.metrics, logits_NC[:, columns], labels)

    return scored


def _provenance(name: str) -> Provenance:
    """Gathers what the checkpoint's folder, its run and its teacher's folder tell."""
    folder = Path(name).resolve()
    if not folder.is_dir():
        return Provenance()
    metrics = read_metrics(folder) if (folder / METRICS_FILE).exists() else {}
    teacher = _teacher_of(folder)
    licence = _licence(folder) or (None if teacher is None else _licence(Path(teacher)))
    return Provenance(teacher=teacher, licence=licence, metrics=metrics)


def _teacher_of(folder: Path) -> str | None:
    """Reads the teacher of a student in a run directory, `RUN/students/N`."""
    file = folder.parent.parent / "settings.yaml"
    if not folder.name.isdecimal() or not file.exists():
        return None
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    teacher = settings.get("teacher", {}).get("model")
    return None if teacher is None else str(teacher)


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
