"""Quantised weights as whole numbers of few bits, side by side in bytes.

A weight of b bits is kept as the b bits of k + Q for each of its codes k, −Q to Q: the first code
in the lowest bits of the first byte. Its clip is its scale. Everything else is kept in float32.

Letters in names: N codes, B bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stillhouse.errors import ExportError
from stillhouse.model.lsq import fill_quantised, quantised_parts, told_bits, unfilled_model
from stillhouse.model.lsq_parts import SMALLEST_CLIP, levels_of
from stillhouse.space.counts import count_parameters

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from stillhouse.space.architecture import BertArchitecture
    from stillhouse.space.counts import Ends

PACKED_FILE = "weights.packed.safetensors"
BITS_A_BYTE = 8
BYTES_A_FLOAT = 4
CLIPS_A_LAYER = 16
"""Of six weights, their six inputs, queries, keys, values and probabilities."""
CODES_AT_ONCE = 2**20
"""Packed at a time; a multiple of 8, so that each lot fills its bytes."""
CODES = ".codes"
"""Ending of the names of packed tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCount:
    """What a packed model holds.

    Attributes:
        codes: Weights of few bits.
        floats: Other numbers in float32, scales included.
    """

    codes: int
    floats: int

    def size_bytes(self, bits: int) -> int:
        """Returns the size without names and the padding of single tensors."""
        return -(-self.codes * bits // BITS_A_BYTE) + BYTES_A_FLOAT * self.floats


def count_packed(architecture: BertArchitecture, ends: Ends) -> PackedCount:
    """Counts what `write_packed` writes of a model that `quantise_model` quantises.

    Source: the rule of what is quantised in KDLSQ-BERT. Its 14.9 times (418 MiB to 28 MiB, 2 bits)
    is TernaryBERT's account of BERT-base, in which positions are in float32 and each row of the
    word embedding has a scale; with positions in 2 bits and one scale it is 15.7 times.
    """
    width, narrow = architecture.hidden_size, ends.factored_size or architecture.hidden_size
    attention, inner = architecture.attention_width, architecture.ffn_size
    has_pooler = not ends.answers_tokens
    layer = 4 * width * attention + 2 * width * inner
    codes = (ends.vocab_size + ends.positions) * narrow + architecture.layers * layer
    codes += width * width if has_pooler else 0
    clips = 2 + architecture.layers * CLIPS_A_LAYER + (2 if has_pooler else 0)
    total = count_parameters(architecture, ends).total
    return PackedCount(codes=codes, floats=total - codes + clips)


def write_packed(model: PreTrainedModel, path: Path) -> None:
    """Writes the weights of a quantised model into a safetensors file, packed.

    Args:
        model: Quantised.
        path: Of the file.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    shapes: dict[str, list[int]] = {}
    parts = quantised_parts(model)
    for name, part in parts.items():
        weight = tensors.pop(f"{name}.weight")
        shapes[f"{name}.weight"] = list(weight.shape)
        codes = codes_of(weight, part.weight_clip.detach().cpu(), part.weight_bits)
        packed = pack_codes(codes.flatten().numpy(), part.weight_bits)
        tensors[f"{name}.weight{CODES}"] = torch.from_numpy(packed)
    bits = str(told_bits(model.config))
    save_file(
        {name: tensor.contiguous().clone() for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt", "weight_bits": bits, "shapes": json.dumps(shapes)},
    )


def read_packed(path: Path) -> Mapping[str, Tensor]:
    """Reads what `write_packed` wrote as the state of the quantised model.

    Raises:
        ExportError: If the file is damaged, or tells no bits or shapes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except SafetensorError as error:
        raise ExportError(f"{path} is damaged ({error}): write it again") from error
    if not {"weight_bits", "shapes"} <= told.keys():
        raise ExportError(f"{path} holds no packed weights: it tells no weight_bits and no shapes")
    bits = int(told["weight_bits"])
    for name, shape in json.loads(told["shapes"]).items():
        packed = tensors.pop(f"{name}{CODES}").numpy()
        codes = torch.from_numpy(unpack_codes(packed, int(np.prod(shape)), bits))
        clip = tensors[f"{name}_clip"]
        tensors[name] = values_of(codes.reshape(shape), clip, bits)
    return tensors


def load_packed(folder: Path) -> PreTrainedModel:
    """Loads a quantised model from its configuration and its packed weights alone.

    Raises:
        TeacherError: If the configuration does not say that it is quantised, or is not that of the
            weights.
        ExportError: If the file of weights is damaged, or tells no bits or shapes.
    """
    model = unfilled_model(folder)
    fill_quantised(model, read_packed(folder / PACKED_FILE), folder)
    return model


def codes_of(weight: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Returns the whole numbers k, −Q to Q, of a weight's quantised values, as int8."""
    ratio = (weight.float() / clip.abs().clamp(min=SMALLEST_CLIP)).clamp(-1, 1)
    return ratio.mul(levels_of(bits)).round().to(torch.int8)


def values_of(codes: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Returns the quantised values that codes stand for, bit by bit those of `quantise`."""
    return clip.abs().clamp(min=SMALLEST_CLIP) * codes.float() / levels_of(bits)


def pack_codes(codes_N: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Packs codes into ⌈N·bits/8⌉ bytes.

    Args:
        codes_N: −Q to Q, Q = 2^(bits−1) − 1.
        bits: 2 to 8.
    """
    places_B = np.arange(bits, dtype=np.uint8)
    parts = []
    for start in range(0, len(codes_N), CODES_AT_ONCE):
        signed_N = codes_N[start : start + CODES_AT_ONCE].astype(np.int16)
        shifted_N = (signed_N + levels_of(bits)).astype(np.uint8)
        bits_NB = (shifted_N[:, None] >> places_B) & 1
        parts.append(np.packbits(bits_NB, bitorder="little"))
    return np.concatenate(parts)


def unpack_codes(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.int8]:
    """Returns the `count` codes that `pack_codes` packed."""
    weights_B = 1 << np.arange(bits, dtype=np.int16)
    parts = []
    for start in range(0, count, CODES_AT_ONCE):
        many = min(CODES_AT_ONCE, count - start)
        first = start * bits // BITS_A_BYTE
        chunk = packed[first : first + -(-many * bits // BITS_A_BYTE)]
        bits_NB = np.unpackbits(chunk, count=many * bits, bitorder="little").reshape(many, bits)
        parts.append((bits_NB @ weights_B - levels_of(bits)).astype(np.int8))
    return np.concatenate(parts)
