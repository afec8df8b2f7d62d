"""Students as they are served: their answers in 8 bits, and their files for the runtime.

Letters in names: B batch, T tokens, D hidden, N examples, P tokens of all examples in a row,
C classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from torch import Tensor, nn

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import ExportError
from stillhouse.model.anatomy import label_count
from stillhouse.model.heads import answers_tokens, head_of, outputs_of
from stillhouse.model.inputs import input_names
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.openvino_graph import open_compiled
from stillhouse.model.ragged import LogitTable
from stillhouse.recipe.exporting import export_onnx_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.device.latency import Workload
    from stillhouse.model.onnx_graph import GraphPrecision
    from stillhouse.model.precision import Precision
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.device_settings import DeviceSettings
    from stillhouse.run.progress import Narrator

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
