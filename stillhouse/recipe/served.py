"""Students as they are served: their answers in 8 bits, and their files for the runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import ExportError
from stillhouse.model.anatomy import label_count
from stillhouse.model.inputs import input_names
from stillhouse.model.onnx_graph import open_session, quantise_graph, write_graph
from stillhouse.model.onnx_static import quantise_statically
from stillhouse.model.openvino_graph import open_compiled
from stillhouse.recipe.exporting import export_onnx_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.device.latency import Workload
    from stillhouse.model.onnx_graph import GraphPrecision
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.progress import Narrator
    from stillhouse.run.settings import DeviceSettings

Answer: TypeAlias = "Callable[[Mapping[str, NDArray[np.int64]]], NDArray[np.float32]]"
CALIBRATION_EXAMPLES = 256
"""Training examples that fix the scales of a static file."""
CALIBRATION_BATCH = 16


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
    """Says, where a device is of 8 bits, that students without a task are not scored so."""
    if settings.as_measured().precision in ("int8", "int8-static"):
        narrator.say(
            f"Latencies and sizes are those of {settings.as_measured().precision}; without a task "
            "students are chosen by what they do in float32. Export one with --check TASK once it "
            "is fine-tuned."
        )


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
        model: Sequence classifier, on any device; it stays there.
        encoded: N examples.
        settings: Of a device for which `served_precision` is not `None`.
        workload: Gives threads and batch: scales that are taken as activations come are those of
            a whole batch, so that answers depend a little on what else is in it.
        calibration: Examples that are not scored, for scales that are fixed before.

    Returns:
        `[N, C]` logits in the set's own order.

    Raises:
        ExportError: If the model cannot be written or quantised.
    """
    names = input_names(model.config)
    logits_NC = np.empty((len(encoded), label_count(model.config)), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="stillhouse-served-") as folder:
        answer = _serve(model, Path(folder), settings, workload, calibration)
        for indices in plan_ordered(encoded.lengths, batch_size=workload.batch):
            logits_NC[indices] = answer(_inputs(names, encoded, indices))
    return logits_NC


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
            )
        except ExportError as error:
            bench.narrator.say(f"No ONNX file of {folder}: {error}")


def _serve(
    model: PreTrainedModel,
    folder: Path,
    settings: DeviceSettings,
    workload: Workload,
    calibration: EncodedSet,
) -> Answer:
    """Writes a model in 8 bits and opens it."""
    names = input_names(model.config)
    settings = settings.as_measured()
    precision = served_precision(settings)
    assert precision is not None
    plain, file = folder / "float32.onnx", folder / f"{precision}.onnx"
    network: nn.Module = model
    device = model.device
    try:
        write_graph(network.cpu().eval(), plain, inputs=names)
    finally:
        network.to(device)
    if precision == "int8":
        quantise_graph(plain, file)
    else:
        few = calibration.select(np.arange(min(len(calibration), CALIBRATION_EXAMPLES)))
        batches = plan_ordered(few.lengths, batch_size=CALIBRATION_BATCH)
        quantise_statically(plain, file, (_inputs(names, few, indices) for indices in batches))
    if MEASURED[settings.kind].engine == "OpenVINO":
        compiled = open_compiled(file, threads=workload.threads)
        return lambda inputs: compiled(inputs)["logits"]
    session = open_session(file, threads=workload.threads)

    def answer(inputs: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        return cast("NDArray[np.float32]", session.run(["logits"], dict(inputs))[0])

    return answer


def _inputs(
    names: Sequence[str], encoded: EncodedSet, indices: NDArray[np.int64]
) -> dict[str, NDArray[np.int64]]:
    batch = collate(encoded, indices)
    return {name: getattr(batch, name).numpy() for name in names}
