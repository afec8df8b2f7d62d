"""Models that were trained in few bits as ONNX files that compute in 8 bits, in the ranges learnt.

The exporter traces a copy of the model whose quantised parts hold whole numbers and say themselves
where QuantizeLinear and DequantizeLinear stand. Finding these places in a finished graph would mean
to guess by names and patterns which product belongs to which part, anew for every family.

Activations are whole numbers of 0 to 255 around 128, though their ranges are symmetric: on x86
processors ONNX Runtime multiplies integers only so, and computes what is signed in float32.
Weights are signed, and have no zero point: one that several weights share stops the runtime where
`open_session` asks for exact sums.

Letters in names: B batch, T tokens (queries), S tokens (keys), D inputs, O outputs, H heads,
K head size, V vocabulary.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from stillhouse.errors import ExportError
from stillhouse.model.anatomy import encoder_layers, layered_anatomy_of
from stillhouse.model.lsq import all_clips, is_quantised, quantised_parts
from stillhouse.model.lsq_parts import (
    ACTIVATION_BITS,
    SMALLEST_CLIP,
    QuantisedEmbedding,
    QuantisedLinear,
    QuantisedPart,
    levels_of,
)
from stillhouse.model.onnx_graph import EXACT_SUMS, read_graph, require_onnx, write_graph
from stillhouse.model.packing_bits import codes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from stillhouse.model.onnx_graph import Graph

ATTENTION = "lsq-codes"
"""Name of the attention function that multiplies whole numbers."""
ZERO_POINT = 128
MATRIX_AXES = 2
FLOAT_PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
BITS_THAT_MAY_SATURATE = 8
"""Of weights. Sums of two products are below 2^15 with fewer: 2 · 255 · 63 = 32,130."""


def write_trained_graph(model: PreTrainedModel, path: Path, *, inputs: Sequence[str]) -> Graph:
    """Writes a quantised model as an ONNX file of 8 bits with the ranges of its training.

    All that was quantised in training is in the file: weights, tables, and both factors of every
    product of quantised projections and of attention. Weights of fewer bits stand in it as 8-bit
    numbers with the same values. The rest is float32.

    Args:
        model: Quantised, in evaluation mode and on the processor; it is not changed.
        path: Where the file ends.
        inputs: Names of inputs, each `[batch, sequence]`.

    Raises:
        ExportError: If the model is not quantised, a range is not set, `write_graph` fails, or ONNX
            Runtime would compute a quantised product in float32.
    """
    require_onnx()
    _check_ranges(model)
    served = copy.deepcopy(model)
    _serve(served)
    write_graph(served, path, inputs=inputs)
    bits = {part.weight_bits for part in quantised_parts(model).values()}
    if max(bits) >= BITS_THAT_MAY_SATURATE:
        _note_exact_sums(path)
    left = float_products(path)
    if left:
        raise ExportError(
            f"ONNX Runtime would compute these quantised products of {path.name} in float32: "
            f"{', '.join(left)}; take another version of onnxruntime"
        )
    return read_graph(path)


def float_products(path: Path) -> tuple[str, ...]:
    """Names products of quantised numbers that ONNX Runtime computes in float32 on this machine.

    It is asked by having it write down what it makes of the file.
    """
    import onnx  # noqa: PLC0415  an extra
    import onnxruntime  # noqa: PLC0415  an extra

    with tempfile.TemporaryDirectory(prefix="stillhouse-onnx-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # it warns that the file suits this machine only
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    real = {
        name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output
    }
    return tuple(
        f"{node.op_type} {node.name}"
        for node in graph.node
        if node.op_type in FLOAT_PRODUCTS and real.intersection(node.input)
    )


def lsq_code_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Attention whose two products are of whole numbers.

    Args:
        module: Self-attention with the clips that `_serve_attention` gave it.
        query: Whole numbers `[B, H, T, K]`.
        key: `[B, H, S, K]`.
        value: `[B, H, S, K]`.
        attention_mask: Added to the scores, broadcast to `[B, H, T, S]`.
        scaling: Factor of the scores; 1/√K by default.

    Returns:
        Context `[B, T, H, K]` and probabilities `[B, H, T, S]`, as transformers wants them.
    """
    clips: dict[str, float] = module.clips  # type: ignore[assignment]  # no parameter
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    # The factor belongs to the step of the query: as a product it would be merged with that of
    # query and key, before the runtime sees that these are whole numbers.
    query_BHTK = _values(query, clips["query"] * factor)
    key_BHKS = _values(key.transpose(-1, -2), clips["key"])
    scores_BHTS = query_BHTK @ key_BHKS
    if attention_mask is not None:
        scores_BHTS = scores_BHTS + attention_mask
    codes_BHTS = _codes(scores_BHTS.softmax(dim=-1), clips["probability"])
    attention_BHTS = _values(codes_BHTS, clips["probability"])
    context_BHTK = attention_BHTS @ _values(value, clips["value"])
    return context_BHTK.transpose(1, 2).contiguous(), attention_BHTS


AttentionInterface.register(ATTENTION, lsq_code_attention)
AttentionMaskInterface.register(ATTENTION, eager_mask)


class ServedLinear(nn.Module):
    """A projection by whole numbers `[D, O]`; gives such where its output is quantised."""

    codes: Tensor

    def __init__(self, linear: QuantisedLinear) -> None:
        """Takes a trained projection's codes, steps and clips."""
        super().__init__()
        self.register_buffer("codes", _codes_of(linear).T.contiguous())
        self.bias = linear.bias
        self.step = _height(linear.weight_clip) / levels_of(linear.weight_bits)
        self.input_clip = _height(linear.input_clip)
        self.output_clip = None if linear.output_clip is None else _height(linear.output_clip)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102  its name in torch
        entered = _values(_codes(input, self.input_clip), self.input_clip)
        is_matrix = entered.ndim == MATRIX_AXES
        if is_matrix:  # whose product the runtime merges with the bias before it sees whole numbers
            entered = entered.unsqueeze(0)
        left = entered @ _dequantised(self.codes, self.step)
        if self.bias is not None:
            left = left + self.bias
        if is_matrix:
            left = left.squeeze(0)
        return left if self.output_clip is None else _codes(left, self.output_clip)


class _ServedEmbedding(nn.Module):
    """A table of whole numbers, `[V, D]`."""

    codes: Tensor

    def __init__(self, table: QuantisedEmbedding) -> None:
        super().__init__()
        self.register_buffer("codes", _codes_of(table))
        self.step = _height(table.weight_clip) / levels_of(table.weight_bits)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  its name in torch
        return _dequantised(nn.functional.embedding(input, self.codes), self.step)


def _serve(model: PreTrainedModel) -> None:
    """Puts parts of whole numbers in the place of quantised ones, in place."""
    anatomy = layered_anatomy_of(model.config)
    paths = {"query": anatomy.query, "key": anatomy.key, "value": anatomy.value}
    for layer in encoder_layers(model):
        attention: Any = layer.get_submodule(anatomy.query.rpartition(".")[0])
        found: dict[str, Any] = {name: layer.get_submodule(path) for name, path in paths.items()}
        attention.clips = {name: _height(one.output_clip) for name, one in found.items()}
        attention.clips["probability"] = _height(attention.probability_clip)
        del attention.probability_clip  # or it would be looked for in the graph
    for name, part in quantised_parts(model).items():
        model.set_submodule(name, _served(part))
    model.set_attn_implementation(ATTENTION)


def _served(part: QuantisedPart) -> nn.Module:
    return ServedLinear(part) if isinstance(part, QuantisedLinear) else _ServedEmbedding(part)


def _codes_of(part: QuantisedPart) -> Tensor:
    return codes_of(part.weight.detach(), part.weight_clip.detach(), part.weight_bits)


def _height(clip: Tensor) -> float:
    """Returns the range that a clip stands for; its sign has no meaning."""
    return clip.abs().clamp(min=SMALLEST_CLIP).item()


def _codes(values: Tensor, clip: float) -> Tensor:
    """Makes whole numbers of 128 ± 127 of activations.

    They are clipped before, since below 128 − 127 the type has one number more.
    """
    return torch.onnx.ops.symbolic(
        "QuantizeLinear",
        (values.clamp(-clip, clip), _step(clip), _zero_point()),
        dtype=torch.uint8,
        shape=values.shape,
    )


def _values(codes: Tensor, clip: float) -> Tensor:
    """Makes activations of whole numbers again."""
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (codes, _step(clip), _zero_point()),
        dtype=torch.float32,
        shape=codes.shape,
    )


def _dequantised(codes: Tensor, step: float) -> Tensor:
    """Makes weights of whole numbers."""
    return torch.onnx.ops.symbolic(
        "DequantizeLinear", (codes, torch.tensor(step)), dtype=torch.float32, shape=codes.shape
    )


def _step(clip: float) -> Tensor:
    return torch.tensor(clip / levels_of(ACTIVATION_BITS))


def _zero_point() -> Tensor:
    return torch.tensor(ZERO_POINT, dtype=torch.uint8)


def _check_ranges(model: PreTrainedModel) -> None:
    if not is_quantised(model):
        raise ExportError(
            f"this {type(model).__name__} was not trained in few bits, so it has no ranges for a "
            "file in 8 bits: export it in int8 or int8-static"
        )
    for name, clip in all_clips(model).items():
        if not clip.isfinite():
            raise ExportError(
                f"the range {name} is {clip.item():g}, and nothing can be quantised within it: "
                "train the model in few bits before it is exported"
            )


def _note_exact_sums(path: Path) -> None:
    """Notes what `open_session` reads: no product of this file may saturate."""
    import onnx  # noqa: PLC0415  an extra

    model = onnx.load(path)
    model.metadata_props.add(key=EXACT_SUMS, value="1")
    onnx.save(model, path)
