"""ONNX files in 8 bits whose scales were fixed on text beforehand.

Beside ONNX Runtime's own way, ranges over all of the text and 7 bits of a weight: embeddings have a
scale a column, and residual connections read what was not quantised. Outputs of products, and
products of two activations, have no scales. The aim is that logits stay near those in float32.

Letters in names: V vocabulary, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stillhouse.errors import ExportError
from stillhouse.model.onnx_graph import (
    load_to_quantise,
    quiet_quantiser,
    read_graph,
    refuse_float_weights,
    require_onnx,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import GraphProto

    from stillhouse.model.onnx_graph import Graph

PRODUCTS = ("MatMul", "Gemm")
LARGEST_INT8 = 127


def quantise_statically(
    source: Path, target: Path, batches: Iterable[Mapping[str, NDArray[np.int64]]]
) -> Graph:
    """Writes an ONNX file of float32 anew with embeddings and matrix products in 8 bits.

    Weights and embeddings have a scale a column. The other factor of a product has one scale for
    the range that it filled over the given batches, so that an answer does not depend on what else
    is in its batch. Products of two activations and convolutions stay in float32. Weights use 7 of
    their bits, as with `quantise_graph`.

    Args:
        source: File that `write_graph` wrote.
        target: Where the quantised file ends.
        batches: Inputs by name, each `[batch, sequence]`, such as the file will be given.

    Raises:
        ExportError: If a package is missing, there is no batch, or an embedding or a product was
            left in float32.
    """
    require_onnx()
    from onnxruntime.quantization import (  # noqa: PLC0415  an extra
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    given = iter(batches)
    first = next(given, None)
    if first is None:
        raise ExportError(
            "scales of activations are fixed by running a model on text, but there is no batch of "
            "it: give at least one"
        )
    model = load_to_quantise(source)
    _quantise_tables(model.graph)
    with quiet_quantiser():
        quantize_static(
            model,
            target,
            _Reader(chain([first], given)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_exclude=_products_of_activations(model.graph),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"OpTypesToExcludeOutputQuantization": list(PRODUCTS)},
        )
    _spare_others(target)
    refuse_float_weights(target, source=source)
    return read_graph(target)


class _Reader:
    """Hands batches to the quantiser, one a call."""

    def __init__(self, batches: Iterator[Mapping[str, NDArray[np.int64]]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, NDArray[np.int64]] | None:
        """Returns the next batch, or `None` after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _products_of_activations(graph: GraphProto) -> list[str]:
    """Names the products without weights, such as queries with keys."""
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type in PRODUCTS and node.input[1] not in weights
    ]


def _spare_others(path: Path) -> None:
    """Lets everything but products with weights read activations as they were.

    The quantiser replaces a tensor for all that read it, such as a residual connection.
    """
    import onnx  # noqa: PLC0415  an extra

    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}
    before = {
        node.output[0]: makers[node.input[0]].input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in makers
        if makers[node.input[0]].op_type == "QuantizeLinear"
    }
    weights = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.output[0] not in before
    }
    for node in model.graph.node:
        if node.op_type in PRODUCTS and node.input[1] in weights:
            continue
        for place, name in enumerate(node.input):
            node.input[place] = before.get(name, name)
    onnx.save(model, path)


def _quantise_tables(graph: GraphProto) -> None:
    """Puts embeddings in 8 bits, in place; the rows that were looked up are scaled after.

    The quantiser of ONNX Runtime would have one scale for a whole table.
    """
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415  an extra

    tables = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
    small = {}
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Gather" or node.input[0] not in tables:
            continue
        name, rows = node.input[0], node.output[0]
        if name not in small:
            codes_VD, scales_D = _in_8_bits(numpy_helper.to_array(tables[name]))
            small[name] = (
                numpy_helper.from_array(codes_VD, f"{name}_codes"),
                numpy_helper.from_array(scales_D, f"{name}_scales"),
            )
        codes, scales = small[name]
        node.input[0], node.output[0] = codes.name, f"{rows}_codes"
        # Not by DequantizeLinear, or the quantiser would take the rows for quantised already.
        nodes += [
            helper.make_node(
                "Cast",
                [node.output[0]],
                [f"{rows}_unscaled"],
                name=f"{node.name}_cast",
                to=TensorProto.FLOAT,
            ),
            helper.make_node(
                "Mul", [f"{rows}_unscaled", scales.name], [rows], name=f"{node.name}_scale"
            ),
        ]
    read = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    graph.ClearField("node")
    graph.node.extend(nodes)
    graph.ClearField("initializer")
    graph.initializer.extend([*kept, *chain.from_iterable(small.values())])


def _in_8_bits(table_VD: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Returns whole numbers from -127 to 127 and the scale of each column."""
    largest_D = np.abs(table_VD).max(axis=0)
    scales_D = np.where(largest_D > 0, largest_D / LARGEST_INT8, 1).astype(np.float32)
    return np.rint(table_VD / scales_D).astype(np.int8), scales_D
