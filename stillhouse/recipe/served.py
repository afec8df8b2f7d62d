"""Students as they are served: their answers in 8 bits, and their files for the runtime.

Letters in names: B batch, T tokens, D hidden, N examples, P tokens of all examples in a row,
C classes.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.device.kinds import MEASURED
from stillhouse.device.runtimes import ONNX_INPUTS
from stillhouse.distill.masked_lm import BorrowedHead, held_out_mlm
from stillhouse.errors import ExportError
from stillhouse.model.anatomy import label_count
from stillhouse.model.heads import answers_tokens, head_of, outputs_of
from stillhouse.model.inputs import input_names
from stillhouse.model.mlm_teachers import MlmTeacher
from stillhouse.model.modeling_chain_bert import ChainOperation
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.openvino_graph import open_compiled
from stillhouse.model.ragged import LogitTable
from stillhouse.recipe.exporting import export_onnx_checkpoint
from stillhouse.supernet.blocks import Alone

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.data.packing import PackedSet
    from stillhouse.device.latency import Workload
    from stillhouse.distill.masked_lm import MaskedBatch, MlmNetwork, MlmScore
    from stillhouse.model.onnx_graph import GraphPrecision
    from stillhouse.model.precision import Precision
    from stillhouse.recipe.chain_nursery import ChainNursery
    from stillhouse.recipe.mlm_nursery import MlmNursery
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import DeviceSettings
    from stillhouse.space.chain import ChainBlock
    from stillhouse.supernet.blocks import BlockSupernet, DevBatch

Inputs: TypeAlias = "Mapping[str, NDArray[Any]]"
Answer: TypeAlias = "Callable[[Inputs], NDArray[np.float32]]"
ScorePrecision: TypeAlias = "GraphPrecision | Precision"
EIGHT_BITS = ("int8", "int8-static")
CALIBRATION_EXAMPLES = 256
"""Training examples that fix the scales of a static file."""
CALIBRATION_BATCH = 16
LAST_STATE = "last_hidden_state"


def served_precision(settings: DeviceSettings) -> GraphPrecision | None:
    """Tells in which 8-bit form a device runs students; `None` where it is not 8 bits.

    A device that only tells figures of 8 bits (a table, a data sheet) cannot run a student; one
    that predicts them runs it where its profile was measured.
    """
    settings = settings.as_measured()
    if settings.kind not in MEASURED or settings.precision not in ("int8", "int8-static"):
        return None
    is_openvino = MEASURED[settings.kind].engine == "OpenVINO"
    return "int8-static" if is_openvino else settings.precision


def say_scored_in_float(settings: DeviceSettings, narrator: Narrator) -> None:
    """Says, where a device only tells figures of 8 bits, that students are not scored so."""
    told = settings.as_measured().precision
    if told in EIGHT_BITS and served_precision(settings) is None:
        narrator.say(
            f"Latencies and sizes are those of {told}, which is not run here: without a task "
            "students are chosen by what they do in float32. Export one with --check TASK once it "
            "is fine-tuned."
        )


def say_how_far_served(settings: DeviceSettings, narrator: Narrator, scored: str) -> None:
    """Says, where a device runs students in 8 bits, which scores are told so.

    Args:
        settings: The device's.
        narrator: Told it.
        scored: How scores are told, with `{}` for the precision.
    """
    precision = served_precision(settings)
    if precision is not None:
        narrator.say(f"Latencies and sizes are those of {precision}; {scored.format(precision)}.")


def scored_in(nursery: MlmNursery) -> ScorePrecision:
    """Tells in which precision whole students without a task are scored."""
    return served_precision(nursery.settings.device) or nursery.precision


def precision_facts(precision: ScorePrecision) -> dict[str, str]:
    """Tells in which precision a quality was told, as it stands in `metrics.json`."""
    told: dict[str, str] = {"quality_precision": precision}
    return {**told, "served_precision": precision} if precision in EIGHT_BITS else told


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A device that runs networks in 8 bits, and the text that fixes scales for it.

    Attributes:
        settings: Of a device for which `served_precision` is not `None`.
        workload: Gives threads and batch: scales that are taken as activations come are those of
            a whole batch, so that answers depend a little on what else is in it.
        calibration: Gives inputs by name, a batch each, of examples that are not scored; asked only
            where scales are fixed before.
    """

    settings: DeviceSettings
    workload: Workload
    calibration: Callable[[], Iterable[Inputs]]

    @property
    def precision(self) -> GraphPrecision:
        """The form in 8 bits."""
        precision = served_precision(self.settings)
        assert precision is not None
        return precision

    @contextmanager
    def opened(
        self,
        network: nn.Module,
        *,
        inputs: Sequence[str],
        output: str,
        states: Mapping[str, int] | None = None,
    ) -> Iterator[Answer]:
        """Writes a network in 8 bits and opens it, for as long as the context lasts.

        Args:
            network: As `write_graph` takes it, but on any device; it stays there.
            inputs: Names of inputs of whole numbers.
            output: Which of its outputs is the answer.
            states: Names and widths of inputs of states.

        Yields:
            Answers inputs of any number of rows, a batch of the workload at a time.

        Raises:
            ExportError: If the network cannot be written or quantised.
        """
        size = self.workload.batch
        with tempfile.TemporaryDirectory(prefix="stillhouse-served-") as folder:
            run = self._open(self._write(network, Path(folder), inputs, states or {}), output)

            def answer(given: Inputs) -> NDArray[np.float32]:
                rows = len(next(iter(given.values())))
                parts = [
                    run({name: values[start : start + size] for name, values in given.items()})
                    for start in range(0, rows, size)
                ]
                return np.concatenate(parts)

            yield answer

    def _write(
        self,
        network: nn.Module,
        folder: Path,
        inputs: Sequence[str],
        states: Mapping[str, int],
    ) -> Path:
        plain, file = folder / "float32.onnx", folder / f"{self.precision}.onnx"
        device = next(network.parameters()).device
        try:
            write_graph(network.cpu().eval(), plain, inputs=inputs, states=states)
        finally:
            network.to(device)
        if self.precision == "int8":
            quantise_graph(plain, file)
        else:
            quantise_statically(plain, file, self.calibration())
        return file

    def _open(self, file: Path, output: str) -> Answer:
        threads = self.workload.threads
        if MEASURED[self.settings.as_measured().kind].engine == "OpenVINO":
            compiled = open_compiled(file, threads=threads)
            return lambda given: compiled(given)[output]
        session = open_session(file, threads=threads)
        return lambda given: cast("NDArray[np.float32]", session.run([output], dict(given))[0])


def predict_served(
    model: PreTrainedModel,
    encoded: EncodedSet,
    *,
    settings: DeviceSettings,
    workload: Workload,
    calibration: EncodedSet,
) -> NDArray[np.float32]:
    """Computes the logits of every example as the device gives them, in 8 bits.

    Args:
        model: Model with a head, on any device; it stays there.
        encoded: N examples.
        settings: Of a device for which `served_precision` is not `None`.
        workload: Gives threads and batch.
        calibration: Examples that are not scored, for scales that are fixed before.

    Returns:
        Logits in the set's own order, as `predict` gives them: `[N, C]`, or `[P, C]` where the
        model answers tokens.

    Raises:
        ExportError: If the model cannot be written or quantised.
    """
    names = input_names(model.config)

    def calibrating() -> Iterator[Inputs]:
        few = calibration.select(np.arange(min(len(calibration), CALIBRATION_EXAMPLES)))
        for indices in plan_ordered(few.lengths, batch_size=CALIBRATION_BATCH):
            yield _inputs(names, few, indices)

    served = Served(settings=settings, workload=workload, calibration=calibrating)
    outputs, per_token = label_count(model.config), answers_tokens(model)
    table = LogitTable(encoded, outputs=outputs, per_token=per_token)
    network = _Joined(model) if head_of(model) == "spans" else model
    with served.opened(network, inputs=names, output="logits") as answer:
        for indices in plan_ordered(encoded.lengths, batch_size=workload.batch):
            table.fill(indices, answer(_inputs(names, encoded, indices)))
    return table.logits


class _Joined(nn.Module):
    """Gives start and end of answers as one output, `[B, T, 2]`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        given = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **given)
        return {"logits": outputs_of(output)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WordScores:
    """How a network tells the masked words of some texts.

    Attributes:
        scores: One for each text, in their order.
        precision: That of its encoder's answers.
    """

    scores: tuple[MlmScore, ...]
    precision: ScorePrecision

    @property
    def is_served(self) -> bool:
        """Whether the encoder answered in 8 bits."""
        return self.precision in EIGHT_BITS


def score_words(nursery: MlmNursery, network: MlmNetwork, texts: Sequence[PackedSet]) -> WordScores:
    """Scores a network on held-out texts, a student as the device serves its encoder.

    In 8 bits the encoder answers from its file; the head that reads masked words is not served, and
    stays in PyTorch in float32, as the projection before it does. A teacher is not served at all.

    Args:
        nursery: Device, and training text for scales that are fixed before.
        network: On any device; it stays there.
        texts: Held out.

    Raises:
        ExportError: If the encoder cannot be written or quantised.
    """
    served = served_words(nursery)
    if served is None or isinstance(network, MlmTeacher):
        scores = [
            held_out_mlm(network, text, nursery.masker, precision=nursery.precision)
            for text in texts
        ]
        return WordScores(scores=tuple(scores), precision=nursery.precision)
    student = network.student if isinstance(network, BorrowedHead) else network
    with served.opened(student.base_model, inputs=ONNX_INPUTS, output=LAST_STATE) as answer:
        lent = _with_encoder(student, ServedEncoder(answer))
        read: MlmNetwork = lent
        if isinstance(network, BorrowedHead):
            read = replace(network, student=lent)
        scores = [held_out_mlm(read, text, nursery.masker) for text in texts]
    return WordScores(scores=tuple(scores), precision=served.precision)


def served_words(nursery: MlmNursery) -> Served | None:
    """Makes what serves encoders of masked words; `None` where the device is not of 8 bits."""
    settings = nursery.settings.device
    if served_precision(settings) is None:
        return None

    def calibrating() -> Iterator[Inputs]:
        for batch in _training_batches(nursery, torch.device("cpu")):
            yield dict(zip(ONNX_INPUTS, (_array(batch.input_ids), _mask(batch)), strict=True))

    return Served(settings=settings, workload=nursery.workload, calibration=calibrating)


class ServedEncoder(nn.Module):
    """Stands where an encoder stood, and answers from its file in 8 bits."""

    def __init__(self, answer: Answer) -> None:
        """Keeps what answers token numbers and mask with last hidden states."""
        super().__init__()
        self._answer = answer

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """Gives the last hidden states in float32, where the token numbers are."""
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given = zip(ONNX_INPUTS, (_array(input_ids), _array(mask_BT)), strict=True)
        hidden_BTD = torch.from_numpy(self._answer(dict(given)))
        return BaseModelOutput(last_hidden_state=hidden_BTD.to(input_ids.device))


class CompleteChain(nn.Module):
    """The blocks of a chain with the supernets' weights, each between its two projections."""

    def __init__(self, supernets: Sequence[BlockSupernet], blocks: Sequence[ChainBlock]) -> None:
        """Takes the modules of the supernets, without copying them."""
        super().__init__()
        self.parts = nn.ModuleList()
        for supernet, block in zip(supernets, blocks, strict=True):
            size = str(block.hidden_size)
            self.parts.append(supernet.inputs[size])
            for place in range(len(block.operations)):
                self.parts.append(supernet.operation(block, place))
            self.parts.append(supernet.outputs[size])

    def forward(self, state: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Leads the teacher's first state, `[B, T, D]`, to its predicted last one."""
        for part in self.parts:
            state = part(state, mask) if isinstance(part, ChainOperation) else part(state)
        return {LAST_STATE: state}


def served_chains(nursery: ChainNursery) -> Served | None:
    """Makes what serves complete chains; `None` where the device is not of 8 bits.

    What fixes scales are the teacher's first states of training text, read once for all chains.
    """
    settings, device = nursery.settings.device, nursery.accelerator.device
    if served_precision(settings) is None:
        return None

    @cache
    def calibrating() -> list[Inputs]:
        batches = _training_batches(nursery, device)
        return [_chain_inputs(nursery.reader(one.input_ids, one.mask)[0], one) for one in batches]

    return Served(settings=settings, workload=nursery.workload, calibration=calibrating)


def served_states(
    served: Served,
    supernets: Sequence[BlockSupernet],
    blocks: Sequence[ChainBlock],
    batches: Sequence[DevBatch],
) -> Iterator[Tensor]:
    """Runs a complete chain in 8 bits from the teacher's first states on, which stay in float32.

    Yields:
        The predicted last state of the teacher for each batch, `[B, T, D]`.

    Raises:
        ExportError: If the chain cannot be written or quantised.
    """
    chain = CompleteChain(supernets, blocks)
    states = {"state": batches[0].states[0].shape[-1]}
    with served.opened(chain, inputs=("mask",), output=LAST_STATE, states=states) as answer:
        for batch in batches:
            found_BTD = answer(_chain_inputs(batch.states[0], batch.text))
            yield torch.from_numpy(found_BTD).to(batch.text.labels.device)


def export_for_device(bench: Workbench, students: Sequence[Path]) -> None:
    """Writes for each finished student the file that its device runs, where that is an ONNX file.

    A file that cannot be written is told and loses nothing: the checkpoint is there.
    """
    settings = bench.settings.device.as_measured()
    if settings.kind not in MEASURED or MEASURED[settings.kind].engine not in (
        "ONNX Runtime",
        "OpenVINO",
    ):
        return
    precision = served_precision(settings) or "float32"
    for folder in students:
        try:
            export_onnx_checkpoint(
                str(folder),
                None,
                precision=precision,
                check=bench.task,
                max_length=bench.settings.task.max_length,
                stride=bench.settings.task.stride,
            )
        except ExportError as error:
            bench.narrator.say(f"No ONNX file of {folder}: {error}")


def _inputs(
    names: Sequence[str], encoded: EncodedSet, indices: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    batch = collate(encoded, indices)
    return {name: getattr(batch, name).numpy() for name in names}


def _with_encoder(student: PreTrainedModel, encoder: nn.Module) -> PreTrainedModel:
    """Returns a student's head, not copied, on another encoder."""
    changed = copy.copy(student)
    changed._modules = {**student._modules, student.base_model_prefix: encoder}
    return changed


def _training_batches(nursery: MlmNursery, device: torch.device) -> Iterator[MaskedBatch]:
    """Reads some of the text that students learn from, with words hidden as in what is judged."""
    text = nursery.text_of(CALIBRATION_BATCH)
    examples = min(CALIBRATION_EXAMPLES, len(text.corpus))
    for step in range(-(-examples // CALIBRATION_BATCH)):
        yield text.batch(step, Alone(device=device))


def _chain_inputs(state_BTD: Tensor, batch: MaskedBatch) -> dict[str, NDArray[Any]]:
    return {"state": _array(state_BTD.float()), "mask": _mask(batch)}


def _mask(batch: MaskedBatch) -> NDArray[Any]:
    return _array(torch.ones_like(batch.input_ids) if batch.mask is None else batch.mask)


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array
