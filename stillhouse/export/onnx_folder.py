"""Folders that serve a model without torch: an ONNX file, checked against the model on text.

Letters in names: N examples, B batch, T tokens, C classes.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.errors import ExportError
from stillhouse.export.card import onnx_card
from stillhouse.export.infer_example import infer_example
from stillhouse.files import folder_written_aside, hash_file
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.inputs import input_names
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.teachers import hash_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.checkpoint_heads import HeadedModel
    from stillhouse.model.onnx_graph import Graph, GraphPrecision

MODEL_FILE = "model.onnx"
EXPORT_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
REJECTED_SUFFIX = ".rejected"
LARGEST_DIFFERENCE = 1e-4
"""Of an output in float32, as a share of its largest magnitude, or absolute where that is below 1:
two runtimes add the same numbers in different orders."""
BATCH_SIZE = 16
VERSIONS_OF = ("stillhouse", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")
PYTORCH, FLOAT32 = "pytorch float32", "onnx float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Text that a file is checked on.

    Attributes:
        name: What it is.
        texts: `[N]` texts, or pairs of them.
        encoded: The same, tokenised; cut to what a model can read at most.
        score: Scores `[N, C]` logits against labels, or `None` where there are none.
    """

    name: str
    texts: Sequence[str | tuple[str, str]]
    encoded: EncodedSet
    score: Callable[[NDArray[np.float32]], Mapping[str, float]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Text that the scales of a static file are fixed on.

    Attributes:
        name: What it is.
        encoded: Its examples, which are not those of the check.
    """

    name: str
    encoded: EncodedSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where an exported model comes from, as far as it is known.

    Attributes:
        teacher: Name of the teacher of a student.
        licence: Of the checkpoint or of the teacher, as their cards name it.
        metrics: Content of the checkpoint's `metrics.json`.
    """

    teacher: str | None = None
    licence: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class _Comparison:
    """What files gave beside the model.

    Attributes:
        differences: Largest difference from the model by file and output.
        shares: The same as a share of the output's largest magnitude, or of 1 where that is less.
        agreeing: Answers of the file in 8 bits that are those of the file in float32.
        answers: Their number.
        logits: `[N, C]` of a classifier, by model or file.
    """

    differences: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]
    agreeing: int = 0
    answers: int = 0
    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def write_onnx_folder(
    folder: Path,
    exported: HeadedModel,
    *,
    precision: GraphPrecision,
    check: Check,
    provenance: Provenance,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Writes a model as a folder that needs onnxruntime, tokenizers and numpy alone.

    Args:
        folder: Where it ends; an earlier export there is replaced.
        exported: The model, on the processor.
        precision: Of the file. One in 8 bits is made of one in float32, which is checked as well.
        check: Text to check on.
        provenance: For the card.
        calibration: For `int8-static`, which needs it.

    Returns:
        Content of `export.json`.

    Raises:
        ExportError: If the folder holds something else, the model cannot be exported, the file of
            float32 differs from the model (it is kept in `FOLDER.rejected`), or the tokeniser
            differs from its file.
    """
    _check_free(folder)
    names = _input_names(exported)
    with tempfile.TemporaryDirectory(prefix="stillhouse-onnx-") as work:
        graph = write_graph(exported.model, Path(work) / "float32.onnx", inputs=names)
        graphs = {FLOAT32: graph}
        if precision != "float32":
            graphs[f"onnx {precision}"] = _in_8_bits(graph, precision, calibration)
        comparison = _compare(exported, graphs, check.encoded)
        told = _told(exported, graphs, comparison, check)
        told["source"]["teacher"] = provenance.teacher
        told["source"]["licence"] = provenance.licence
        told["calibrated_on"] = _calibrated_on(calibration)
        with folder_written_aside(folder) as aside:
            shutil.copyfile(list(graphs.values())[-1].path, aside / MODEL_FILE)
            _write_rest(aside, exported, told, provenance)
            _check_tokenizer(aside, told, check)
            _refuse_difference(aside, folder, comparison)
    return told


def _check_free(folder: Path) -> None:
    """Refuses to replace what no export wrote."""
    if folder.exists() and not (folder / EXPORT_FILE).exists():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise ExportError(
            f"{folder} holds something else than an export (no {EXPORT_FILE}), which would be "
            "replaced: name a new folder with --out"
        )


def _input_names(exported: HeadedModel) -> list[str]:
    """Names what both the model takes and the tokeniser gives."""
    given = {"attention_mask", *exported.tokenizer.model_input_names}
    return [name for name in input_names(exported.model.config) if name in given]


def _in_8_bits(graph: Graph, precision: GraphPrecision, calibration: Calibration | None) -> Graph:
    """Writes a file of float32 anew beside it."""
    target = graph.path.with_name(f"{precision}.onnx")
    if precision != "int8-static":
        return quantise_graph(graph.path, target)
    assert calibration is not None
    encoded = calibration.encoded
    batches = (collate(encoded, one) for one in plan_ordered(encoded.lengths, BATCH_SIZE))
    return quantise_statically(
        graph.path,
        target,
        ({name: getattr(batch, name).numpy() for name in graph.inputs} for batch in batches),
    )


def _calibrated_on(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    return {"name": calibration.name, "texts": len(calibration.encoded)}


@torch.inference_mode()
def _compare(
    exported: HeadedModel, graphs: Mapping[str, Graph], encoded: EncodedSet
) -> _Comparison:
    """Runs the model and the files over batches with padding and over single examples."""
    sessions = {name: open_session(graph.path) for name, graph in graphs.items()}
    outputs = graphs[FLOAT32].outputs
    found = _Comparison(
        differences={name: dict.fromkeys(outputs, 0.0) for name in graphs},
        shares={name: dict.fromkeys(outputs, 0.0) for name in graphs},
    )
    largest = dict.fromkeys(outputs, 1.0)
    for indices in _batches(encoded):
        batch = collate(encoded, indices)
        if len(indices) == 1:  # alone, without padding
            batch = collate(encoded.select(indices), [0])
        inputs = {name: getattr(batch, name) for name in graphs[FLOAT32].inputs}
        kept_BT = batch.attention_mask.numpy().astype(bool)
        told = exported.model(**inputs)
        gave = {PYTORCH: {name: told[name].numpy() for name in outputs}}
        for name, session in sessions.items():
            gave[name] = _run(session, outputs, inputs)
        for output in outputs:
            expected = _kept(gave[PYTORCH][output], kept_BT)
            largest[output] = max(largest[output], float(np.abs(expected).max()))
            for name in graphs:
                gap = np.abs(_kept(gave[name][output], kept_BT) - expected).max()
                so_far = found.differences[name]
                so_far[output] = float(np.maximum(so_far[output], gap))  # which keeps a NaN
        if "logits" in outputs:
            _note_answers(found, exported, gave, kept_BT, indices, count=len(encoded))
    for name in graphs:
        for output in outputs:
            found.shares[name][output] = found.differences[name][output] / largest[output]
    return found


def _batches(encoded: EncodedSet) -> Iterator[NDArray[np.int64]]:
    """Yields examples in their order, whatever their lengths, then three of them alone."""
    order = np.arange(len(encoded))
    for start in range(0, len(order), BATCH_SIZE):
        yield order[start : start + BATCH_SIZE]
    ranked = np.argsort(encoded.lengths, kind="stable")
    for place in sorted({0, len(ranked) // 2, len(ranked) - 1}):
        yield ranked[place : place + 1]


def _run(
    session: InferenceSession, outputs: Sequence[str], inputs: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    fed = {name: value.numpy() for name, value in inputs.items()}
    return dict(zip(outputs, session.run(list(outputs), fed), strict=True))


def _kept(output: NDArray[np.float32], kept_BT: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Leaves out what is told of padding; what is told of a whole text stays as it is."""
    return output[kept_BT] if output.ndim > 2 else output  # noqa: PLR2004  [B, T, ...]


def _note_answers(
    found: _Comparison,
    exported: HeadedModel,
    gave: Mapping[str, Mapping[str, NDArray[np.float32]]],
    kept_BT: NDArray[np.bool_],
    indices: NDArray[np.int64],
    *,
    count: int,
) -> None:
    logits = {name: _kept(outputs["logits"], kept_BT) for name, outputs in gave.items()}
    if exported.head == "classifier":
        for name, logits_BC in logits.items():
            whole = found.logits.setdefault(
                name, np.empty((count, logits_BC.shape[-1]), dtype=np.float32)
            )
            whole[indices] = logits_BC
    last = list(logits)[-1]
    if last != FLOAT32 and not _is_score(exported):
        one, other = (_answers(exported, logits[name]) for name in (FLOAT32, last))
        found.agreeing += int((one == other).sum())
        found.answers += one.size


def _is_score(exported: HeadedModel) -> bool:
    config = exported.model.config
    return exported.head == "classifier" and (
        config.problem_type == "regression" or config.num_labels == 1
    )


def _answers(exported: HeadedModel, logits: NDArray[np.float32]) -> NDArray[Any]:
    """Gives the classes or words told; of a multi-label model whether each class is."""
    if exported.model.config.problem_type == "multi_label_classification":
        several: NDArray[Any] = logits > 0
        return several
    best: NDArray[Any] = logits.argmax(axis=-1)
    return best


def _told(
    exported: HeadedModel, graphs: Mapping[str, Graph], comparison: _Comparison, check: Check
) -> dict[str, Any]:
    """Gathers the content of `export.json`."""
    config, tokenizer = exported.model.config, exported.tokenizer
    called, graph = list(graphs.items())[-1]
    scores = {}
    if check.score is not None:
        scores = {name: dict(check.score(logits)) for name, logits in comparison.logits.items()}
    agreement = comparison.agreeing / comparison.answers if comparison.answers else None
    return {
        "source": {
            "name": exported.name,
            "weights_sha256": hash_weights(exported.model),
            "weights_mb": sum(p.numel() * p.element_size() for p in exported.model.parameters())
            / 1e6,
        },
        "model_type": config.model_type,
        "head": exported.head,
        "precision": called.removeprefix("onnx "),
        "opset": graph.opset,
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "labels": label_names(config) if exported.head == "classifier" else [],
        "problem_type": "regression" if _is_score(exported) else config.problem_type,
        "max_length": min(usable_positions(config), tokenizer.model_max_length),
        "pad_id": tokenizer.pad_token_id or 0,
        "pad_token": tokenizer.pad_token or "[PAD]",
        "mask_id": tokenizer.mask_token_id,
        "size_mb": {name: one.size_mb for name, one in graphs.items()},
        "checked_on": {"name": check.name, "texts": len(check.encoded)},
        "differences": comparison.differences,
        "differences_fraction": comparison.shares,
        "int8_agreement_fraction": agreement,
        "scores": scores,
        "versions": {name: _version(name) for name in VERSIONS_OF},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from its source
        return "not installed"


def _write_rest(
    folder: Path, exported: HeadedModel, told: dict[str, Any], provenance: Provenance
) -> None:
    config = exported.model.config.to_dict()
    config.pop("auto_map", None)  # the code that it names stays with the checkpoint
    _write_json(folder / "config.json", config)
    exported.tokenizer.save_pretrained(folder)
    if not (folder / TOKENIZER_FILE).exists():
        raise ExportError(
            f"the tokeniser of {exported.name} has no {TOKENIZER_FILE}, without which it needs "
            "transformers: convert it to a fast tokeniser first"
        )
    (folder / "infer.py").write_text(infer_example(told), encoding="utf-8")
    card = onnx_card(told, metrics=provenance.metrics)
    (folder / "README.md").write_text(card, encoding="utf-8")
    _write_json(folder / EXPORT_FILE, {**told, "model_sha256": hash_file(folder / MODEL_FILE)})


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_tokenizer(folder: Path, told: Mapping[str, Any], check: Check) -> None:
    """Compares the tokens of the written file, read without transformers, with those checked."""
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    limit = check.encoded.longest
    tokenizer.enable_truncation(limit)
    ids = [one.ids for one in tokenizer.encode_batch(list(check.texts))]
    offsets = check.encoded.offsets
    for place, found in enumerate(ids):
        expected = check.encoded.input_ids[offsets[place] : offsets[place + 1]].tolist()
        if found != expected:
            raise ExportError(
                f"{TOKENIZER_FILE} of {told['source']['name']} gives other tokens than its "
                f"tokeniser in transformers, of {check.texts[place]!r} {found[:8]} instead of "
                f"{expected[:8]}: save the tokeniser anew with save_pretrained"
            )


def _refuse_difference(aside: Path, folder: Path, comparison: _Comparison) -> None:
    """Refuses a file of float32 that differs from its model, and keeps it beside the folder."""
    for output, share in comparison.shares[FLOAT32].items():
        if share <= LARGEST_DIFFERENCE:  # not of a NaN
            continue
        rejected = folder.with_name(folder.name + REJECTED_SUFFIX)
        shutil.rmtree(rejected, ignore_errors=True)
        shutil.copytree(aside, rejected)
        raise ExportError(
            f"the ONNX file gives {output} that differ by "
            f"{comparison.differences[FLOAT32][output]:.3g} from the model in PyTorch, {share:.3g} "
            f"of their size, where at most {LARGEST_DIFFERENCE:g} is rounding: it is not to be "
            f"used, and is kept in {rejected} to look at"
        )
