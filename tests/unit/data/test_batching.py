from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.data.batching import collate, percentile_length, plan_batches, plan_ordered
from stillhouse.data.encoding import EncodedSet
from stillhouse.errors import DataError


def encoded_set(rows, labels=None, pad_id=0):
    tokens = [token for row in rows for token in row]
    return EncodedSet(
        input_ids=np.array(tokens, dtype=np.int32),
        token_type_ids=np.array([token % 2 for token in tokens], dtype=np.int8),
        offsets=np.cumsum([0, *map(len, rows)]),
        labels=labels,
        pad_id=pad_id,
    )


@given(
    lengths=st.lists(st.integers(1, 128), max_size=300),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_every_example_is_in_exactly_one_batch(lengths, batch_size, seed):
    for plan in (
        plan_batches(lengths, batch_size=batch_size, seed=seed, epoch=1),
        plan_ordered(lengths, batch_size),
    ):
        indices = np.concatenate(plan) if plan else np.empty(0)
        assert sorted(indices.tolist()) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= batch_size for batch in plan)
        assert len(plan) == -(-len(lengths) // batch_size)


def test_the_plan_depends_on_seed_and_epoch_only():
    lengths = np.random.default_rng(0).integers(1, 128, 1_000)
    plans = [
        np.concatenate(plan_batches(lengths, batch_size=32, seed=seed, epoch=epoch)).tolist()
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert plans[0] == plans[1]
    assert len({tuple(plan) for plan in plans}) == 3


def test_batches_hold_like_lengths_in_no_order_of_length():
    lengths = np.random.default_rng(0).integers(1, 128, 6_400)
    plan = plan_batches(lengths, batch_size=32, seed=0, epoch=0)
    spreads = [np.ptp(lengths[batch]) for batch in plan]
    assert np.mean(spreads) < 4
    means = np.array([lengths[batch].mean() for batch in plan])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.3


def test_examples_meet_other_examples_in_every_epoch():
    lengths = np.full(640, 10)
    first, second = (
        {
            frozenset(batch.tolist())
            for batch in plan_batches(lengths, batch_size=4, seed=0, epoch=e)
        }
        for e in (0, 1)
    )
    assert len(first & second) < 5


def test_evaluation_goes_from_long_to_short():
    plan = plan_ordered([3, 9, 1, 9, 5], batch_size=2)
    assert [batch.tolist() for batch in plan] == [[1, 3], [4, 0], [2]]


def test_an_impossible_batch_size_is_refused():
    with pytest.raises(DataError, match="batch_size is 0"):
        plan_ordered([1], 0)


def test_collate_pads_to_a_multiple_of_eight():
    long = list(range(20, 40))
    encoded = encoded_set([[2, 5, 3], long, [7]], labels=np.array([4, 5, 6]), pad_id=9)
    batch = collate(encoded, np.array([2, 0]))
    assert batch.indices.tolist() == [2, 0]
    assert batch.input_ids.tolist() == [[7] + [9] * 7, [2, 5, 3] + [9] * 5]
    assert batch.attention_mask.tolist() == [[1] + [0] * 7, [1, 1, 1] + [0] * 5]
    assert batch.token_type_ids.tolist() == [[1] + [0] * 7, [0, 1, 1] + [0] * 5]
    assert batch.labels.tolist() == [6, 4]
    for tensor in (batch.indices, batch.input_ids, batch.attention_mask, batch.token_type_ids):
        assert tensor.dtype == torch.int64
    assert collate(encoded, [0, 1]).input_ids.shape == (2, 20)


def test_collate_never_exceeds_the_longest_example_of_the_set():
    encoded = encoded_set([[1, 2], [1, 2, 3, 4, 5]])
    assert collate(encoded, [0]).input_ids.tolist() == [[1, 2, 0, 0, 0]]
    assert collate(encoded, [1]).labels is None


def test_equal_lengths_need_no_padding():
    batch = collate(encoded_set([[1] * 8, [2] * 8]), [1, 0])
    assert batch.input_ids.tolist() == [[2] * 8, [1] * 8]
    assert batch.attention_mask.all()


def test_a_batch_does_not_share_memory_with_its_set():
    encoded = encoded_set([[1, 2], [3, 4]], labels=np.array([0.5, 1.5], dtype=np.float32))
    order = np.array([0, 1])
    batch = collate(encoded, order)
    order[0] = 7
    batch.input_ids.zero_()
    batch.labels.zero_()
    assert batch.indices.tolist() == [0, 1]
    assert encoded.input_ids.tolist() == [1, 2, 3, 4]
    assert encoded.labels.tolist() == [0.5, 1.5]
    assert batch.labels.dtype == torch.float32


def test_sets_of_classes_are_rows_of_a_batch():
    labels = np.array([[0, 1], [1, 1], [np.nan] * 2], dtype=np.float32)
    batch = collate(encoded_set([[1], [2], [3]], labels=labels), [1, 0])
    assert batch.labels.tolist() == [[1, 1], [0, 1]]
    assert batch.labels.dtype == torch.float32


def test_a_batch_moves_with_all_its_tensors():
    batch = collate(encoded_set([[1, 2]], labels=np.array([1])), [0]).to("meta")
    for name in ("indices", "input_ids", "attention_mask", "token_type_ids", "labels"):
        assert getattr(batch, name).device.type == "meta"
    assert collate(encoded_set([[1]]), [0]).to("meta").labels is None


@pytest.mark.parametrize(
    ("lengths", "q", "multiple", "expected"),
    [
        (range(1, 101), 0.95, 16, 96),
        (range(1, 101), 0.97, 16, 112),
        ([16] * 10, 0.95, 16, 16),
        ([17] * 10, 0.95, 16, 32),
        ([5, 100], 0.5, 8, 8),
    ],
)
def test_the_percentile_length_is_rounded_up(lengths, q, multiple, expected):
    assert percentile_length(list(lengths), q, multiple) == expected


def test_no_examples_have_no_typical_length():
    with pytest.raises(DataError, match="no examples"):
        percentile_length([])


def test_tags_are_padded_like_tokens():
    encoded = replace(
        encoded_set([[1, 2, 3], [4], [5, 6]]),
        tags=np.array([-100, 1, 0, -1, 2, -100]),
        tag_names=("x", "y", "z"),
    )
    labels = collate(encoded, [2, 0]).labels
    assert labels.dtype == torch.int64
    assert labels.tolist() == [[2, -100, -100], [-100, 1, 0]]


def test_answers_are_pairs_of_tokens():
    encoded = encoded_set([[1, 2, 3], [4]], labels=np.array([[1, 2], [0, 0]]))
    labels = collate(encoded, [1, 0]).labels
    assert (labels.dtype, labels.tolist()) == (torch.int64, [[0, 0], [1, 2]])
