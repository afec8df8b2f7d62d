import dataclasses

import numpy as np
import pytest
import torch

from stillhouse.model.predict import predict


@pytest.fixture(scope="module")
def one_by_one(make_bert, ragged_set):
    """Logits of every example alone, without any padding."""
    model = make_bert()
    rows = []
    for start, end in zip(ragged_set.offsets[:-1], ragged_set.offsets[1:], strict=True):
        ids = torch.from_numpy(ragged_set.input_ids[start:end].astype(np.int64))[None]
        types = torch.from_numpy(ragged_set.token_type_ids[start:end].astype(np.int64))[None]
        with torch.no_grad():
            rows.append(model(input_ids=ids, token_type_ids=types).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_logits_equal_those_of_each_example_alone(make_bert, ragged_set, one_by_one, batch_size):
    logits = predict(make_bert().train(), ragged_set, batch_size=batch_size)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, one_by_one, atol=1e-5)


def test_padding_does_not_change_the_outputs(make_model, family, ragged_set):
    model = make_model(family)
    ids = ragged_set.input_ids
    # No token is the padding; RoBERTa's kind would give it no position.
    encoded = dataclasses.replace(
        ragged_set, input_ids=np.where(ids < 3, 3, ids), pad_id=model.config.pad_token_id
    )
    together = predict(model, encoded, batch_size=30)
    alone = predict(model, encoded, batch_size=1)
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together - together[::-1]).max() > 0.01


def test_bfloat16_is_near(make_bert, ragged_set, one_by_one):
    logits = predict(make_bert(), ragged_set, precision="bfloat16")
    assert logits.dtype == np.float32
    gap = np.abs(logits - one_by_one).max()
    assert 0 < gap < 0.05 * np.abs(one_by_one).max()


def test_an_empty_set_has_no_logits(make_bert, ragged_set):
    assert predict(make_bert(), ragged_set.select([])).shape == (0, 3)
