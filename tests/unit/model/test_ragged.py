import numpy as np
import pytest

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.data.encoding import EncodedSet
from stillhouse.model.ragged import LogitTable, real_tokens, token_places

OFFSETS = np.array([0, 3, 4, 4, 9])
"""Four examples of 3, 1, 0 and 5 tokens."""


def test_places_by_hand():
    assert token_places(OFFSETS, np.array([3, 0])).tolist() == [4, 5, 6, 7, 8, 0, 1, 2]
    assert token_places(OFFSETS, np.array([2, 1, 1])).tolist() == [3, 3]
    assert token_places(OFFSETS, np.array([], dtype=np.int64)).tolist() == []


def test_real_tokens_by_hand():
    found = real_tokens(OFFSETS, np.array([0, 2, 1]), 4)
    assert found.tolist() == [[True, True, True, False], [False] * 4, [True, False, False, False]]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_places_are_those_of_a_padded_batch(ragged_set, batch_size):
    """What a mask picks out of padded token numbers are the numbers at the places."""
    for indices in plan_ordered(ragged_set.lengths, batch_size=batch_size):
        batch = collate(ragged_set, indices)
        mask = batch.attention_mask.bool()
        expected = batch.input_ids[mask].numpy()
        found = ragged_set.input_ids[token_places(ragged_set.offsets, indices)]
        np.testing.assert_array_equal(found, expected)
        real = real_tokens(ragged_set.offsets, indices, mask.shape[1])
        np.testing.assert_array_equal(real, mask.numpy())


def small_set():
    return EncodedSet(
        input_ids=np.arange(9, dtype=np.int32),
        token_type_ids=np.zeros(9, dtype=np.int8),
        offsets=OFFSETS,
    )


def test_logits_of_tokens_lose_their_padding():
    table = LogitTable(small_set(), outputs=2, per_token=True)
    for indices, width in (([3, 1], 6), ([2, 0], 3)):
        padded = np.full((2, width, 2), np.nan, dtype=np.float32)
        for row, example in enumerate(indices):
            for place, token in enumerate(range(OFFSETS[example], OFFSETS[example + 1])):
                padded[row, place] = (token, -token)
        table.fill(np.array(indices), padded)
    np.testing.assert_array_equal(table.logits, [[token, -token] for token in range(9)])
    assert table.logits.dtype == np.float32


def test_logits_of_examples_stand_in_their_order():
    table = LogitTable(small_set(), outputs=1, per_token=False)
    table.fill(np.array([3, 1]), np.array([[3.0], [1.0]], dtype=np.float32))
    table.fill(np.array([0, 2]), np.array([[0.0], [2.0]], dtype=np.float32))
    assert table.logits.tolist() == [[0], [1], [2], [3]]
