"""Folders that serve a model without torch: an ONNX file, checked against the model on text."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.data.question_windows import MOST_QUESTION_TOKENS
from stillhouse.errors import ExportError
from stillhouse.export.comparison import BATCH_SIZE, FLOAT32, compare, is_score
from stillhouse.export.infer_example import example_arguments, infer_example
from stillhouse.export.onnx_card import onnx_card
from stillhouse.files import folder_written_aside, hash_file
from stillhouse.model.anatomy import label_names, usable_positions
from stillhouse.model.inputs import input_names
from stillhouse.model.lsq import is_quantised, told_bits
from stillhouse.model.onnx_graph import quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.onnx_trained import write_trained_graph
from stillhouse.model.teachers import hash_weights

if TYPE_CHECKING:
    from stillhouse.data.encoding import EncodedSet
    from stillhouse.export.comparison import Check, Comparison
    from stillhouse.model.checkpoint_heads import HeadedModel
    from stillhouse.model.onnx_graph import Graph, GraphPrecision

MODEL_FILE = "model.onnx"
EXPORT_FILE = "export.json"
TOKENIZER_FILE = "tokenizer.json"
REJECTED_SUFFIX = ".rejected"
TRAINED = "onnx int8"
"""What the file of a quantised model is called; where a file has no other before it."""
LARGEST_DIFFERENCE = 1e-4
"""Of an output in float32, as a share of its largest magnitude, or absolute where that is below 1:
two runtimes add the same numbers in different orders."""
LARGEST_TRAINED_DIFFERENCE = 0.25
"""The same of a quantised model, always of its largest magnitude: a sum that differs in its last
digit falls on the other side of a step now and then, and what follows differs by steps. A MiniLM of
6 layers in float64 differs from itself in float32 as much as its file does, by 0.004 where outputs
are 0.04."""
LARGEST_TRAINED_MEDIAN = 0.05
"""The same of half of the examples or tokens, of which few meet such a step: of a MiniLM in 8 bits
on SST-2 half are within 3e-7 and nine tenths within 0.01. A file that is wrong throughout has no
such half, even where no single difference is large."""
LONGEST_ANSWER = 30
"""Most tokens of an answer that the example gives; as evaluations have it, and BERT's authors."""
VERSIONS_OF = ("stillhouse", "torch", "transformers", "onnx", "onnxscript", "onnxruntime")


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
        precision: Of the file. One in 8 bits is made of one in float32, which is checked as well;
            of a quantised model there is only that in 8 bits, with the ranges of its training.
        check: Text to check on.
        provenance: For the card.
        calibration: For `int8-static`, which needs it.

    Returns:
        Content of `export.json`.

    Raises:
        ExportError: If the folder holds something else, the model cannot be exported, the file of
            float32, or that of a quantised model, differs from the model (it is kept in
            `FOLDER.rejected`), or the tokeniser differs from its file.
    """
    _check_free(folder)
    with tempfile.TemporaryDirectory(prefix="stillhouse-onnx-") as work:
        graphs = _write_graphs(exported, Path(work), precision, calibration)
        comparison = compare(exported, graphs, check)
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


def _write_graphs(
    exported: HeadedModel, work: Path, precision: GraphPrecision, calibration: Calibration | None
) -> dict[str, Graph]:
    """Writes files by what they are called, that of the folder last."""
    names = _input_names(exported)
    if is_quantised(exported.model):
        assert precision == "int8"
        return {TRAINED: write_trained_graph(exported.model, work / "trained.onnx", inputs=names)}
    graph = write_graph(exported.model, work / "float32.onnx", inputs=names)
    graphs = {FLOAT32: graph}
    if precision != "float32":
        graphs[f"onnx {precision}"] = _in_8_bits(graph, precision, calibration)
    return graphs


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
    encoded = calibration.encoded
    count = len(encoded if encoded.sheet is None else encoded.gold)
    return {"name": calibration.name, "texts": count}


def _told(
    exported: HeadedModel, graphs: Mapping[str, Graph], comparison: Comparison, check: Check
) -> dict[str, Any]:
    """Gathers the content of `export.json`."""
    config, tokenizer = exported.model.config, exported.tokenizer
    called, graph = list(graphs.items())[-1]
    scores = {}
    if check.score is not None:
        scores = {name: dict(check.score(one.logits)) for name, one in comparison.tables.items()}
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
        "trained_weight_bits": told_bits(config) if is_quantised(exported.model) else None,
        "opset": graph.opset,
        "inputs": list(graph.inputs),
        "outputs": list(graph.outputs),
        "labels": label_names(config) if exported.head in ("classifier", "tagger") else [],
        "problem_type": "regression" if is_score(exported) else config.problem_type,
        "max_length": min(usable_positions(config), tokenizer.model_max_length),
        "pad_id": tokenizer.pad_token_id or 0,
        "pad_token": tokenizer.pad_token or "[PAD]",
        "mask_id": tokenizer.mask_token_id,
        "no_answer_threshold": getattr(config, "no_answer_threshold", None),
        "longest_answer": LONGEST_ANSWER,
        "example": f"python infer.py {example_arguments(exported.head)}",
        "size_mb": {name: one.size_mb for name, one in graphs.items()},
        "checked_on": {"name": check.name, "texts": len(check.texts)},
        "differences": comparison.differences,
        "differences_fraction": comparison.shares,
        "median_differences_fraction": comparison.medians,
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
    tokenizer.enable_truncation(check.encoded.longest)
    offsets = check.encoded.offsets
    for text, place, found in _tokens_of(tokenizer, check):
        expected = check.encoded.input_ids[offsets[place] : offsets[place + 1]].tolist()
        if found != expected:
            raise ExportError(
                f"{TOKENIZER_FILE} of {told['source']['name']} gives other tokens than its "
                f"tokeniser in transformers, of {text!r} {found[:8]} instead of {expected[:8]}: "
                "save the tokeniser anew with save_pretrained"
            )


def _tokens_of(tokenizer: Tokenizer, check: Check) -> Iterator[tuple[Any, int, list[int]]]:
    """Yields texts, their places among the examples, and their tokens as the example has them.

    Words of which no token is left, and questions that evaluations cut, are left out.
    """
    texts, sheet = list(check.texts), check.encoded.sheet
    if check.encoded.tags is not None:
        words = [[f" {word}" for word in sentence] for sentence in texts]
        for place, one in enumerate(tokenizer.encode_batch(words, is_pretokenized=True)):
            known = {word for word in one.word_ids if word is not None}
            is_cut = len(one.ids) == check.encoded.longest
            if known == set(range(len(known) if is_cut else len(words[place]))):
                yield texts[place], place, one.ids
        return
    encoded = tokenizer.encode_batch(texts)
    if sheet is None:
        for place, (text, one) in enumerate(zip(texts, encoded, strict=True)):
            yield text, place, one.ids
        return
    _, first_windows = np.unique(sheet.question_of_N, return_index=True)
    for text, window, one in zip(texts, first_windows.tolist(), encoded, strict=True):
        room = (check.encoded.longest - sum(one.special_tokens_mask)) // 2
        asked = tokenizer.encode(text[0], add_special_tokens=False)
        if len(asked.ids) <= min(room, MOST_QUESTION_TOKENS):
            yield text, window, one.ids


def _refuse_difference(aside: Path, folder: Path, comparison: Comparison) -> None:
    """Refuses a first file that differs from its model, and keeps it beside the folder."""
    called = next(iter(comparison.shares))
    most, most_half = LARGEST_TRAINED_DIFFERENCE, LARGEST_TRAINED_MEDIAN
    if called == FLOAT32:
        most = most_half = LARGEST_DIFFERENCE
    for output, share in comparison.shares[called].items():
        half = comparison.medians[called][output]
        if share <= most and half <= most_half:  # not of a NaN
            continue
        rejected = folder.with_name(folder.name + REJECTED_SUFFIX)
        shutil.rmtree(rejected, ignore_errors=True)
        shutil.copytree(aside, rejected)
        raise ExportError(
            f"the ONNX file gives {output} that differ by "
            f"{comparison.differences[called][output]:.3g} from the model in PyTorch, {share:.3g} "
            f"of their size, where at most {most:g} is rounding, and half of them by {half:.3g} or "
            f"more, where it is {most_half:g}: it is not to be used, and is kept in {rejected} to "
            "look at"
        )
