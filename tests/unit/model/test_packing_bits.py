import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from stillhouse.errors import ExportError
from stillhouse.model import packing_bits
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.lsq import quantise_model, quantised_parts, settle
from stillhouse.model.lsq_ranges import set_activation_clips, set_weight_clips
from stillhouse.model.packing_bits import (
    PACKED_FILE,
    count_packed,
    load_packed,
    pack_codes,
    read_packed,
    unpack_codes,
    write_packed,
)


@pytest.fixture
def packed_model(make_model, family, head, family_tokens):
    """A model of 3 bits, its weights rounded."""
    model = make_model(family, head=head)
    quantise_model(model, weight_bits=3)
    set_weight_clips(model, "quantile")
    set_activation_clips(model, family_tokens, "quantile")
    settle(model)
    return model


@given(bits=st.integers(2, 8), data=st.data())
def test_codes_come_back(bits, data):
    most = 2 ** (bits - 1) - 1
    codes = data.draw(st.lists(st.integers(-most, most), min_size=1, max_size=40))
    packed = pack_codes(np.array(codes, dtype=np.int8), bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack_codes(packed, len(codes), bits).tolist() == codes


def test_the_bits_by_hand():
    # In 2 bits −1, 0, 1 are 00, 01, 10, the first in the lowest bits.
    assert pack_codes(np.array([-1, 0, 1, 1], dtype=np.int8), 2).tolist() == [0b10100100]
    # In 4 bits −7, 7 are 0000, 1110; in 3 bits 3, −3, 1 are 110, 000, 100.
    assert pack_codes(np.array([-7, 7], dtype=np.int8), 4).tolist() == [0b11100000]
    assert pack_codes(np.array([3, -3, 1], dtype=np.int8), 3).tolist() == [0b00000110, 0b1]


def test_many_codes_are_packed_by_lots(monkeypatch):
    codes = np.random.default_rng(0).integers(-3, 4, 1000).astype(np.int8)
    whole = pack_codes(codes, 3)
    monkeypatch.setattr(packing_bits, "CODES_AT_ONCE", 64)
    assert np.array_equal(pack_codes(codes, 3), whole)
    assert np.array_equal(unpack_codes(whole, 1000, 3), codes)


def test_a_model_comes_back_bit_by_bit(packed_model, family_tokens, tmp_path):
    packed_model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    write_packed(packed_model, tmp_path / PACKED_FILE)
    loaded = load_packed(tmp_path)
    theirs = loaded.state_dict()
    assert theirs.keys() == packed_model.state_dict().keys()
    for name, tensor in packed_model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    with torch.no_grad():
        ours = packed_model(**family_tokens).to_tuple()
        found = loaded(**family_tokens).to_tuple()
    assert all(map(torch.equal, ours, found))


def test_the_file_has_the_bits_and_the_rest_in_float32(packed_model, tmp_path):
    write_packed(packed_model, tmp_path / PACKED_FILE)
    tensors = load_file(tmp_path / PACKED_FILE)
    for name, part in quantised_parts(packed_model).items():
        assert f"{name}.weight" not in tensors
        codes = tensors[f"{name}.weight.codes"]
        assert codes.dtype == torch.uint8
        assert codes.numel() == -(-part.weight.numel() * 3 // 8)
    rest = [tensor for name, tensor in tensors.items() if not name.endswith(".codes")]
    assert all(tensor.dtype == torch.float32 for tensor in rest)


def test_the_count_is_that_of_the_model(packed_model, head, tmp_path):
    config = packed_model.config
    count = count_packed(architecture_of(config), ends_of(config, head))
    parts = quantised_parts(packed_model)
    assert count.codes == sum(part.weight.numel() for part in parts.values())
    total = sum(parameter.numel() for parameter in packed_model.parameters())
    assert count.floats == total - count.codes
    write_packed(packed_model, tmp_path / PACKED_FILE)
    tensors = load_file(tmp_path / PACKED_FILE)
    stored = sum(tensor.nbytes for tensor in tensors.values())
    # Each tensor begins a byte of its own.
    assert 0 <= stored - count.size_bytes(3) < len(parts)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ExportError, match=r"other.safetensors holds no packed weights"):
        read_packed(tmp_path / "other.safetensors")


def test_a_damaged_file_is_told(packed_model, tmp_path):
    write_packed(packed_model, tmp_path / PACKED_FILE)
    whole = (tmp_path / PACKED_FILE).read_bytes()
    (tmp_path / PACKED_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExportError, match=r"is damaged .*write it again"):
        read_packed(tmp_path / PACKED_FILE)


def test_the_file_tells_its_shapes(packed_model, tmp_path):
    write_packed(packed_model, tmp_path / PACKED_FILE)
    header = (tmp_path / PACKED_FILE).read_bytes()
    size = int.from_bytes(header[:8], "little")
    told = json.loads(header[8 : 8 + size])["__metadata__"]
    assert told["weight_bits"] == "3"
    parts = quantised_parts(packed_model)
    expected = {f"{name}.weight": list(part.weight.shape) for name, part in parts.items()}
    assert json.loads(told["shapes"]) == expected
