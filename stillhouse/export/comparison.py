"""Files beside the model that they were written of: differences, answers, and scores.

Letters in names: N examples, P tokens of all examples in a row, B batch, T tokens, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from stillhouse.data.batching import collate
from stillhouse.data.encoding import NO_CLASS
from stillhouse.model.anatomy import label_count
from stillhouse.model.onnx_graph import open_session
from stillhouse.model.ragged import LogitTable

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.checkpoint_heads import HeadedModel, HeadKind
    from stillhouse.model.onnx_graph import Graph

BATCH_SIZE = 16
PYTORCH, FLOAT32 = "pytorch float32", "onnx float32"
SMALLEST_OUTPUT = 1e-3

Gaps: TypeAlias = "dict[str, dict[str, list[NDArray[np.float32]]]]"
"""By file and output: differences of rows, a batch each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Text that a file is checked on.

    Attributes:
        name: What it is.
        texts: Texts, pairs of them (such as a question and its passage), or lists of words.
        encoded: The same, tokenised; cut to what a model can read at most, or into windows.
        score: Scores logits against labels, as `evaluate.metrics.score` takes them; `None` where
            there are none.
        answers: Tells what logits of a reader say, for each question.
    """

    name: str
    texts: Sequence[str | tuple[str, str] | list[str]]
    encoded: EncodedSet
    score: Callable[[NDArray[np.float32]], Mapping[str, float]] | None = None
    answers: Callable[[NDArray[np.float32]], NDArray[Any]] | None = None


@dataclass(slots=True, kw_only=True)
class Comparison:
    """What files gave beside the model.

    Attributes:
        differences: Largest difference from the model by file and output.
        shares: The same as a share of the output's largest magnitude, or of 1 where that is less.
        medians: The difference that half of the examples (of their tokens, where every token has an
            output) are below, as such a share.
        agreeing: Answers of the file in 8 bits that are those of the file in float32, or of the
            model where there is none.
        answers: Their number.
        tables: Logits of a model for a task, by model or file.
    """

    differences: dict[str, dict[str, float]]
    shares: dict[str, dict[str, float]]
    medians: dict[str, dict[str, float]]
    agreeing: int = 0
    answers: int = 0
    tables: dict[str, LogitTable] = field(default_factory=dict)


@torch.inference_mode()
def compare(exported: HeadedModel, graphs: Mapping[str, Graph], check: Check) -> Comparison:
    """Runs the model and the files over batches with padding and over single examples.

    Args:
        exported: The model, on the processor.
        graphs: Files by name, that in float32 first, perhaps one in 8 bits after it; of a quantised
            model one in 8 bits alone.
        check: Text to run them on.
    """
    encoded = check.encoded
    sessions = {name: open_session(graph.path) for name, graph in graphs.items()}
    first = next(iter(graphs.values()))
    outputs = first.outputs
    found = Comparison(
        differences={name: dict.fromkeys(outputs, 0.0) for name in graphs},
        shares={name: dict.fromkeys(outputs, 0.0) for name in graphs},
        medians={name: dict.fromkeys(outputs, 0.0) for name in graphs},
        tables=_tables(exported, [PYTORCH, *graphs], encoded),
    )
    # Rounding of float32 is told against 1 where outputs are small, steps against the outputs.
    largest = dict.fromkeys(outputs, 1.0 if FLOAT32 in graphs else SMALLEST_OUTPUT)
    gaps: Gaps = {name: {output: [] for output in outputs} for name in graphs}
    for indices in _batches(encoded):
        batch = collate(encoded, indices)
        if len(indices) == 1:  # alone, without padding
            batch = collate(encoded.select(indices), [0])
        inputs = {name: getattr(batch, name) for name in first.inputs}
        kept_BT = batch.attention_mask.numpy().astype(bool)
        told = exported.model(**inputs)
        gave = {PYTORCH: {name: told[name].numpy() for name in outputs}}
        for name, session in sessions.items():
            gave[name] = _run(session, outputs, inputs)
        for name, table in found.tables.items():
            table.fill(indices, _logits_of(gave[name]))
        real = {name: _real(one, kept_BT, exported.head) for name, one in gave.items()}
        _note_differences(gaps, real, largest)
        if exported.head == "masked words":  # whose logits are too many to keep
            _note_agreement(found, {name: one["logits"].argmax(-1) for name, one in real.items()})
    _tell_differences(found, gaps, largest)
    answers = {name: _answers(exported, table, check) for name, table in found.tables.items()}
    _note_agreement(found, {name: one for name, one in answers.items() if one is not None})
    return found


def _tables(
    exported: HeadedModel, names: Sequence[str], encoded: EncodedSet
) -> dict[str, LogitTable]:
    """Makes room for what a model for a task and its files give."""
    if exported.head in ("encoder", "masked words"):
        return {}
    outputs, per_token = label_count(exported.model.config), exported.head != "classifier"
    return {name: LogitTable(encoded, outputs=outputs, per_token=per_token) for name in names}


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


def _logits_of(outputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Gives logits as one array, those of start and end as two columns."""
    if "logits" in outputs:
        return outputs["logits"]
    return np.stack((outputs["start_logits"], outputs["end_logits"]), axis=-1)


def _real(
    outputs: Mapping[str, NDArray[np.float32]], kept_BT: NDArray[np.bool_], head: HeadKind
) -> dict[str, NDArray[np.float32]]:
    """Leaves out what is told of padding; what is told of a whole text stays as it is."""
    of_texts = ("pooler_output", "logits") if head == "classifier" else ("pooler_output",)
    return {
        name: values if name in of_texts else values[kept_BT] for name, values in outputs.items()
    }


def _note_differences(
    gaps: Gaps, real: Mapping[str, Mapping[str, NDArray[np.float32]]], largest: dict[str, float]
) -> None:
    """Notes the largest difference of each row: of an example, or of a token."""
    for output, expected in real[PYTORCH].items():
        largest[output] = max(largest[output], float(np.abs(expected).max()))
        for name, of_file in gaps.items():
            gap = np.abs(real[name][output] - expected)
            of_file[output].append(gap.reshape(len(gap), -1).max(axis=1))


def _tell_differences(found: Comparison, gaps: Gaps, largest: Mapping[str, float]) -> None:
    for name, of_file in gaps.items():
        for output, parts in of_file.items():
            rows = np.concatenate(parts)  # a NaN among them stays one
            found.differences[name][output] = float(rows.max())
            found.shares[name][output] = float(rows.max()) / largest[output]
            found.medians[name][output] = float(np.median(rows)) / largest[output]


def _note_agreement(found: Comparison, answers: Mapping[str, NDArray[Any]]) -> None:
    """Counts answers in 8 bits that are those before, where there is such a file."""
    last = list(found.differences)[-1]
    if last != FLOAT32 and last in answers:
        before = FLOAT32 if FLOAT32 in answers else PYTORCH
        found.agreeing += int((answers[before] == answers[last]).sum())
        found.answers += answers[last].size


def is_score(exported: HeadedModel) -> bool:
    """Tells whether a model's output is a number and no class."""
    config = exported.model.config
    return exported.head == "classifier" and (
        config.problem_type == "regression" or config.num_labels == 1
    )


def _answers(exported: HeadedModel, table: LogitTable, check: Check) -> NDArray[Any] | None:
    """Gives what logits say: classes, whether each is told, tags of words, or answers."""
    if exported.head == "reader":
        return None if check.answers is None else check.answers(table.logits)
    if is_score(exported):
        return None
    if exported.model.config.problem_type == "multi_label_classification":
        several: NDArray[Any] = table.logits > 0
        return several
    tags = check.encoded.tags
    best: NDArray[Any] = table.logits.argmax(axis=-1)
    return best[tags != NO_CLASS] if exported.head == "tagger" and tags is not None else best
