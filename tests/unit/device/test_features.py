"""Features against counts by hand and against the closed forms of whole models."""

import pytest

from stillhouse.device.features import FEATURES, KINDS, features_of
from stillhouse.device.latency import Workload
from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.counts import Ends, count_flops
from stillhouse.space.mobilebert import MobileBertArchitecture

LENGTH = 24
WORKLOAD = Workload(length=LENGTH)
ENDS = Ends(vocab_size=1000, positions=128, token_types=2, labels=3)
BERT = BertArchitecture(layers=3, hidden_size=64, heads=4, ffn_size=200)
FREE = BertArchitecture(layers=2, hidden_size=48, heads=3, head_size=32, ffn_size=96)
CHAIN = ChainArchitecture(
    embedding_size=64,
    blocks=(ChainBlock(hidden_size=64, operations=("M", "S3", "F")),),
    head_size=16,
)
MOBILE = MobileBertArchitecture(
    layers=2,
    hidden_size=48,
    bottleneck_size=16,
    heads=2,
    ffn_size=40,
    ffn_count=3,
    embedding_size=24,
)


def named(architecture, workload=WORKLOAD):
    return dict(zip(FEATURES, features_of([architecture], ENDS, workload)[0], strict=True))


def test_launches_of_a_bert_by_hand():
    found = named(BERT)
    assert found["projections: count"] == 3 * 6 + 2  # pooler and head
    assert found["attention: count"] == 3
    assert found["other: count"] == 3  # tables
    assert found["element-wise: count"] == 3 * (2 + 1 + 2) + 3 + 1  # sums and norms, gelu, tanh


@pytest.mark.parametrize("shape", [BERT, FREE], ids=lambda shape: shape.key)
def test_products_come_to_all_flops(shape):
    found = named(shape)
    assert found["total: matrix_flops"] == count_flops(shape, ENDS, length=LENGTH)
    heads = shape.attention_width
    assert found["attention: matrix_flops"] == shape.layers * 2 * 2 * LENGTH * LENGTH * heads
    assert found["attention: activations"] == shape.layers * 4 * LENGTH * heads


def test_a_convolution_is_neither_a_product_nor_part_of_what_is_before():
    found = named(CHAIN)
    assert found["other: count"] == 3 + 2
    assert found["other: vector_flops"] == 2 * (2 * 3 * LENGTH * 64)


@pytest.mark.parametrize("shape", [BERT, FREE, CHAIN, MOBILE], ids=lambda shape: shape.key)
def test_kinds_come_to_the_total(shape):
    found = named(shape, Workload(length=LENGTH, batch=4))
    for name in (name for name in FEATURES if name.startswith("total")):
        quantity = name.removeprefix("total: ")
        assert found[name] == sum(found[f"{kind}: {quantity}"] for kind in KINDS)
    assert found["total: matrix_flops"] == 4 * named(shape)["total: matrix_flops"]
    assert found["total: count"] == named(shape)["total: count"]


def test_no_architectures_are_no_rows():
    assert features_of([], ENDS, WORKLOAD).shape == (0, len(FEATURES))


def test_an_unknown_family_is_refused():
    class Odd:
        key = "odd"

    with pytest.raises(DeviceError, match="got odd"):
        features_of([Odd()], ENDS, WORKLOAD)
