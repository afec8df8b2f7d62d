"""What a pass is made of, against the closed forms that count models."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from stillhouse.device.latency import Workload
from stillhouse.device.work import Product, operations_of
from stillhouse.errors import DeviceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import count_chain_flops, count_chain_parameters
from stillhouse.space.counts import Ends, count_flops, count_parameters
from stillhouse.space.mobilebert import MobileBertArchitecture

LENGTH = 24
WORKLOAD = Workload(length=LENGTH)
ENDS = Ends(vocab_size=1000, positions=128, token_types=2, labels=3)
BERT = BertArchitecture(layers=3, hidden_size=64, heads=4, ffn_size=200)
FREE = BertArchitecture(layers=2, hidden_size=48, heads=3, head_size=32, ffn_size=96)
CHAIN = ChainArchitecture(
    embedding_size=32,
    blocks=(
        ChainBlock(hidden_size=64, operations=("M", "S3", "F")),
        ChainBlock(hidden_size=32, operations=("S7",)),
    ),
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
MOBILE_TINY = replace(MOBILE, ffn_count=2, bottleneck_attention=True)


def matrix_flops(architecture, ends=ENDS, workload=WORKLOAD):
    operations = operations_of(architecture, ends, workload)
    return sum(operation.matrix_flops for operation in operations)


@pytest.mark.parametrize("shape", [BERT, FREE], ids=lambda shape: shape.key)
@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("factored", [None, 16])
def test_products_of_an_encoder_add_up_to_its_flops(shape, labels, factored):
    ends = Ends(
        vocab_size=1000, positions=128, token_types=2, labels=labels, factored_size=factored
    )
    assert matrix_flops(shape, ends) == count_flops(shape, ends, length=LENGTH)


def test_products_of_a_chain_and_its_convolutions_add_up_to_its_flops():
    convolutions = 2 * (2 * LENGTH * 3 * 64) + 2 * (2 * LENGTH * 7 * 32)  # two to an operation
    counted = count_chain_flops(CHAIN, ENDS, length=LENGTH)
    assert matrix_flops(CHAIN) + convolutions == counted


@pytest.mark.parametrize("shape", [MOBILE, MOBILE_TINY], ids=lambda shape: shape.key)
@pytest.mark.parametrize("types", [0, 2])
def test_products_and_weights_of_a_mobilebert_are_all_there(shape, types):
    ends = Ends(vocab_size=1000, positions=128, token_types=types, labels=3)
    assert matrix_flops(shape, ends) == count_flops(shape, ends, length=LENGTH)
    read = sum(one.weights for one in operations_of(shape, ends, WORKLOAD))
    tables = 1000 * shape.embedding_size + (128 + max(1, types)) * shape.hidden_size
    rows = LENGTH * shape.embedding_size + 2 * LENGTH * shape.hidden_size
    assert read == count_parameters(shape, ends).total - tables + rows


def test_heads_of_every_token_are_all_there():
    ends = replace(ENDS, answers_tokens=True)
    for shape in (BERT, FREE, MOBILE):
        assert matrix_flops(shape, ends) == count_flops(shape, ends, length=LENGTH)
    added = count_chain_flops(CHAIN, ends, length=LENGTH) - count_chain_flops(
        CHAIN, ENDS, length=LENGTH
    )
    assert matrix_flops(CHAIN, ends) - matrix_flops(CHAIN) == added
    read = sum(one.weights for one in operations_of(BERT, ends, WORKLOAD))
    total = count_parameters(BERT, ends).total
    assert read == total - ends.rows * 64 + 3 * LENGTH * 64  # words, positions, types


def test_a_batch_is_so_many_examples():
    for shape in (BERT, CHAIN, MOBILE):
        many = Workload(length=LENGTH, batch=5)
        assert matrix_flops(shape, workload=many) == 5 * matrix_flops(shape)


@pytest.mark.parametrize("types", [0, 2])
def test_every_weight_of_an_encoder_is_read_once_and_of_tables_the_rows(types):
    ends = Ends(vocab_size=1000, positions=128, token_types=types, labels=3)
    total = count_parameters(BERT, ends).total
    tables = (2 + (types > 0)) * LENGTH * 64
    read = sum(operation.weights for operation in operations_of(BERT, ends, WORKLOAD))
    assert read == total - ends.rows * 64 + tables


def test_every_weight_of_a_chain_is_read_once():
    total = count_chain_parameters(CHAIN, ENDS).total
    read = sum(operation.weights for operation in operations_of(CHAIN, ENDS, WORKLOAD))
    assert read == total - ENDS.rows * 32 + 3 * LENGTH * 32


def test_attention_is_one_operation_of_two_products_for_every_head():
    workload = Workload(length=LENGTH, batch=2)
    found = [one for one in operations_of(FREE, ENDS, workload) if len(one.products) == 2]
    assert len(found) == FREE.layers
    assert found[0].products == (
        Product(rows=LENGTH, columns=LENGTH, depth=32, count=2 * 3),
        Product(rows=LENGTH, columns=32, depth=LENGTH, count=2 * 3),
    )
    assert found[0].activations == 4 * 2 * LENGTH * 96  # scores stay inside


def test_a_gelu_is_more_work_than_a_relu_and_no_more_traffic():
    gelu, relu = (
        operations_of(
            BertArchitecture(layers=1, hidden_size=64, heads=4, ffn_size=200, activation=name),
            ENDS,
            WORKLOAD,
        )
        for name in ("gelu", "relu")
    )
    assert sum(one.vector_flops for one in gelu) > sum(one.vector_flops for one in relu)
    assert [one.activations for one in gelu] == [one.activations for one in relu]


def test_a_family_that_is_not_known_is_refused():
    with pytest.raises(DeviceError, match=r"bert, chain and mobilebert, got cnn-5;.*give a table"):
        operations_of(SimpleNamespace(key="cnn-5"), ENDS, WORKLOAD)
