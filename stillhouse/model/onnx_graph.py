"""Models as ONNX files: writing one, its weights in 8 bits, and running it.

The packages onnx, onnxscript and onnxruntime are an extra, so they load at first use.
"""

from __future__ import annotations

import logging
import platform
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch

from stillhouse.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto
    from onnxruntime import InferenceSession
    from torch import nn

GraphPrecision: TypeAlias = Literal["float32", "int8", "int8-static"]
PRECISIONS: tuple[GraphPrecision, ...] = get_args(GraphPrecision)

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
MOST_BYTES = 2**31
"""A file of the ONNX format is a protobuf message, which cannot be larger."""
AXES = {0: "batch", 1: "sequence"}
SAMPLE_SHAPE = (2, 6)
"""Of a traced input; an axis of one would be fixed in the file."""
EXACT_SUMS = "stillhouse.exact_sums"
"""Note in a file whose weights use all of their 8 bits."""
WEIGHT_PLACES = {"Gather": 0, "MatMul": 1, "Gemm": 1}
"""Operations that have weights in 8 bits, and which of their inputs these are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An ONNX file.

    Attributes:
        path: The file.
        inputs: Names of its inputs, each `[batch, sequence]` of int64 where `write_graph` was not
            told otherwise.
        outputs: Names of its outputs.
        opset: Version of the ONNX operators in it.
        size_mb: Of the file.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int
    size_mb: float


def require_onnx() -> None:
    """Checks that the packages of the extra are there.

    Raises:
        ExportError: Naming what is missing.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"ONNX files need the package{'s' * (len(missing) > 1)} {', '.join(missing)}, which "
            "are not installed: pip install 'stillhouse[onnx]'"
        )


def write_graph(
    model: nn.Module,
    path: Path,
    *,
    inputs: Sequence[str],
    states: Mapping[str, int] | None = None,
) -> Graph:
    """Writes a model as an ONNX file of float32 with free batch and length.

    The file tells nothing of the code that it was traced from, and so no folder of this machine.

    Args:
        model: Takes the inputs by name and returns a mapping of outputs, in evaluation mode and
            on the processor.
        path: Where the file ends.
        inputs: Names of inputs, each `[batch, sequence]` of token numbers or of 0 and 1.
        states: Names of further inputs, with their width: `[batch, sequence, width]` of float32.

    Raises:
        ExportError: If a package is missing, the exporter lacks an operator or fails otherwise, or
            the weights are too large for one file.
    """
    require_onnx()
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if size >= MOST_BYTES:
        raise ExportError(
            f"an ONNX file holds less than {MOST_BYTES / 1e6:,.0f} MB, but the model's weights "
            f"have {size / 1e6:,.0f} MB: export a smaller model"
        )
    sample = {name: torch.ones(SAMPLE_SHAPE, dtype=torch.long) for name in inputs}
    if "token_type_ids" in sample:
        sample["token_type_ids"].zero_()
    for name, width in (states or {}).items():
        sample[name] = torch.ones((*SAMPLE_SHAPE, width))
    with torch.no_grad():
        outputs = tuple(model(**sample))
    with _quiet_exporter():
        try:
            torch.onnx.export(
                model,
                (),
                path,
                kwargs=sample,
                dynamic_shapes=dict.fromkeys(sample, AXES),
                output_names=list(outputs),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (torch.onnx.OnnxExporterError, RuntimeError) as error:
            raise ExportError(_reason(error, model)) from error
    _forget_code(path)
    return read_graph(path)


def quantise_graph(source: Path, target: Path) -> Graph:
    """Writes an ONNX file of float32 anew with embeddings and matrix products in 8 bits.

    Weights have a scale a column, embeddings one a table; the other factor of a product is
    quantised when it is there, with one scale for the batch. Products of two activations, such as
    queries with keys, and convolutions of single features stay in float32. Weights use 7 of their
    bits: on x86 processors without VNNI instructions the sums of 8 saturate without a word.

    Args:
        source: File that `write_graph` wrote.
        target: Where the quantised file ends.

    Raises:
        ExportError: If a package is missing, or an embedding or a product was left in float32.
    """
    require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415  an extra

    with quiet_quantiser():
        quantize_dynamic(
            load_to_quantise(source),
            target,
            op_types_to_quantize=list(WEIGHT_PLACES),
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
        )
    refuse_float_weights(target, source=source)
    return read_graph(target)


def load_to_quantise(source: Path) -> ModelProto:
    """Loads a file that `write_graph` wrote so that a quantiser finds every weight of it."""
    import onnx  # noqa: PLC0415  an extra

    model = onnx.load(source)
    # Shapes that the exporter noted down are no longer true of what its optimiser made of it.
    model.graph.ClearField("value_info")
    _fold_transposes(model)
    return model


def refuse_float_weights(path: Path, *, source: Path) -> None:
    """Checks that a quantised file has no weights of float32 left.

    Raises:
        ExportError: Naming the operations that read them, and the file they came from.
    """
    left = float_weights(path)
    if left:
        raise ExportError(
            f"these weights of {source.name} were left in float32 by the quantiser: "
            f"{', '.join(left)}; export with --precision float32"
        )


def float_weights(path: Path) -> tuple[str, ...]:
    """Names the operations of an ONNX file that read weights of float32 as embeddings or factors.

    A weight counts as one though it was transposed or dequantised on the way; but a product of two
    factors that both come dequantised is computed in 8 bits by the runtimes.
    """
    import onnx  # noqa: PLC0415  an extra

    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    return tuple(
        f"{node.op_type} {node.name}"
        for node in graph.node
        if node.op_type in WEIGHT_PLACES
        and not _is_product_of_8_bits(node, makers)
        and _reads_float_weight(node.input[WEIGHT_PLACES[node.op_type]], tensors, makers)
    )


@contextmanager
def quiet_quantiser() -> Iterator[None]:
    """Silences the advice to pre-process a graph, which the exporter's optimiser has done."""

    def is_no_advice(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root: Any = logging.getLogger()
    root.addFilter(is_no_advice)
    try:
        yield
    finally:
        root.removeFilter(is_no_advice)


def read_graph(path: Path) -> Graph:
    """Reads what an ONNX file says of itself."""
    import onnx  # noqa: PLC0415  an extra

    model = onnx.load(path)
    [opset] = [one.version for one in model.opset_import if one.domain in ("", "ai.onnx")]
    return Graph(
        path=path,
        inputs=tuple(one.name for one in model.graph.input),
        outputs=tuple(one.name for one in model.graph.output),
        opset=opset,
        size_mb=path.stat().st_size / 1e6,
    )


def open_session(
    path: Path, *, threads: int = 0, provider: str = "CPUExecutionProvider"
) -> InferenceSession:
    """Opens an ONNX file to run it on the processor, or on what another provider names.

    Where the file notes that its weights use all of 8 bits, and sums of their products would
    saturate on this machine, slower products that are exact are taken.

    Args:
        path: The file.
        threads: Of one operation; 0 takes as many as there are cores.
        provider: As ONNX Runtime calls what computes.

    Raises:
        ExportError: If a package is missing, or the runtime cannot read the file.
    """
    require_onnx()
    import onnxruntime  # noqa: PLC0415  an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, sess_options=options, providers=[provider])
        if EXACT_SUMS in session.get_modelmeta().custom_metadata_map and sums_saturate():
            options.add_session_config_entry("session.x64quantprecision", "1")
            session = onnxruntime.InferenceSession(path, sess_options=options, providers=[provider])
    except Exception as error:  # the runtime's errors share no base class of theirs
        raise ExportError(f"ONNX Runtime cannot read {path}: {error}") from error
    if provider not in session.get_providers():  # it takes the processor without a word
        raise ExportError(f"ONNX Runtime could not start its {provider}; its log says why")
    return session


def sums_saturate(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Tells whether sums of 8-bit products may saturate: on x86 processors without VNNI.

    The option of ONNX Runtime against it slows those with VNNI down too, so it is not always set.

    Args:
        cpuinfo: Linux's list of what processors can; without one, they are taken to lack VNNI.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not (cpuinfo.exists() and "vnni" in cpuinfo.read_text(encoding="utf-8"))


def _forget_code(path: Path) -> None:
    """Takes the exporter's notes out of a file: lines of code with paths, and signatures.

    Their size is that of the code and not of the weights: they are a good part of a small file.
    """
    import onnx  # noqa: PLC0415  an extra

    model = onnx.load(path)
    graph = model.graph
    for values in (graph.node, graph.value_info, graph.initializer, graph.input, graph.output):
        for one in values:
            one.ClearField("metadata_props")
    graph.ClearField("metadata_props")
    onnx.save(model, path)


def _fold_transposes(model: ModelProto) -> None:
    """Replaces transposed weights by weights, in place.

    The exporter keeps a large table that both embeds words and scores them once, and transposes it
    at run time; the quantiser would leave such a product in float32.
    """
    from onnx import numpy_helper  # noqa: PLC0415  an extra

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in tensors:
            axes = next((list(one.ints) for one in node.attribute if one.name == "perm"), None)
            values = numpy_helper.to_array(tensors[node.input[0]]).transpose(axes)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            kept.append(node)
    graph.ClearField("node")
    graph.node.extend(kept)


def _is_product_of_8_bits(node: NodeProto, makers: Mapping[str, NodeProto]) -> bool:
    found = [makers.get(name) for name in node.input[:2]]
    return node.op_type != "Gather" and all(
        maker is not None and maker.op_type == "DequantizeLinear" for maker in found
    )


def _reads_float_weight(
    name: str, tensors: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]
) -> bool:
    from onnx import TensorProto as Kinds  # noqa: PLC0415  an extra

    while name not in tensors:
        maker = makers.get(name)
        if maker is None or maker.op_type not in ("Transpose", "DequantizeLinear", "Identity"):
            return False
        if maker.op_type == "DequantizeLinear" and maker.input[0] in tensors:
            return True
        name = maker.input[0]
    return bool(tensors[name].data_type == Kinds.FLOAT)


def _reason(error: BaseException, model: nn.Module) -> str:
    """Tells why the exporter failed, by name where it lacks an operator."""
    causes, cause = [str(error)], error.__cause__
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    lacking = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", "\n".join(causes))
    kind = type(model).__name__
    if lacking:
        return (
            f"the ONNX exporter of torch {torch.__version__} lacks the operator {lacking[1]}, "
            f"which a {kind} uses; take a student without it, or a newer torch"
        )
    first = causes[-1].strip().partition("\n")[0]
    return f"torch {torch.__version__} cannot export a {kind} to ONNX: {first}"


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences what torch says of its own code, of equal axes, and of a missing torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)
            warnings.filterwarnings("ignore", "# The axis name: .* will not be used", UserWarning)
            yield
    finally:
        logger.setLevel(level)
