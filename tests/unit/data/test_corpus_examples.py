import numpy as np
import pytest

from stillhouse.data.corpus_examples import corpus_examples
from stillhouse.data.packing import PackedSet


@pytest.fixture
def packed():
    rows = np.arange(40, dtype=np.int32).reshape(10, 4)
    return PackedSet(chunks=(rows,), stretches=np.array([[0, 4], [6, 10]]), length=4, used_length=4)


def test_every_sequence_is_an_example_without_labels(packed):
    examples = corpus_examples(packed, pad_id=9)
    assert len(examples) == 8
    assert examples.lengths.tolist() == [4] * 8
    assert examples.select([0]).input_ids.tolist() == [0, 1, 2, 3]
    assert examples.select([4]).input_ids.tolist() == [24, 25, 26, 27]
    assert examples.labels is None
    assert examples.pad_id == 9


def test_a_part_is_spread_over_the_corpus(packed):
    examples = corpus_examples(packed, pad_id=0, count=4)
    assert examples.input_ids[::4].tolist() == [0, 8, 24, 32]
    assert len(corpus_examples(packed, pad_id=0, count=99)) == 8


def test_padding_of_a_store_of_one_sequence_is_left_out():
    rows = np.array([[5, 6, 0, 0]], dtype=np.int32)
    packed = PackedSet(chunks=(rows,), stretches=np.array([[0, 1]]), length=4, used_length=2)
    assert corpus_examples(packed, pad_id=0).input_ids.tolist() == [5, 6]
