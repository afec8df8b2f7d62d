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


@torch.no_grad()
def alone(model, encoded):
    """Outputs of every token of each example without any padding, one example after the other."""
    rows = []
    for start, end in zip(encoded.offsets[:-1], encoded.offsets[1:], strict=True):
        output = model(torch.from_numpy(encoded.input_ids[start:end].astype(np.int64))[None])
        if "start_logits" in output:
            rows += zip(output.start_logits[0].tolist(), output.end_logits[0].tolist(), strict=True)
        else:
            rows += output.logits[0].tolist()
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 30])
def test_every_token_is_answered_where_the_head_reads_tokens(
    make_model, family, token_head, ragged_set, batch_size
):
    model = make_model(family, head=token_head)
    encoded = dataclasses.replace(
        ragged_set,
        input_ids=np.where(ragged_set.input_ids < 3, 3, ragged_set.input_ids),
        token_type_ids=np.zeros_like(ragged_set.token_type_ids),
        pad_id=model.config.pad_token_id,
    )
    logits = predict(model.train(), encoded, batch_size=batch_size)
    assert logits.dtype == np.float32
    assert logits.shape == (len(encoded.input_ids), {"tags": 5, "spans": 2}[token_head])
    np.testing.assert_allclose(logits, alone(model, encoded), atol=1e-4)


def test_students_of_other_families_answer_tokens(make_own, own_family, token_head, ragged_set):
    model = make_own(own_family, head=token_head)
    with torch.no_grad():  # MobileBERT reads the neighbours' embeddings, and none beyond the text
        model.get_input_embeddings().weight[0] = 0.0
    encoded = dataclasses.replace(
        ragged_set, token_type_ids=np.zeros_like(ragged_set.token_type_ids)
    )
    expected = alone(model, encoded)
    scale = np.abs(expected).max()  # MobileBERT has no norms that would keep its states small
    np.testing.assert_allclose(predict(model, encoded) / scale, expected / scale, atol=1e-5)


def test_bfloat16_is_near(make_bert, ragged_set, one_by_one):
    logits = predict(make_bert(), ragged_set, precision="bfloat16")
    assert logits.dtype == np.float32
    gap = np.abs(logits - one_by_one).max()
    assert 0 < gap < 0.05 * np.abs(one_by_one).max()


def test_an_empty_set_has_no_logits(make_bert, ragged_set):
    assert predict(make_bert(), ragged_set.select([])).shape == (0, 3)


def test_an_empty_set_has_no_logits_of_tokens(make_model, ragged_set):
    assert predict(make_model("bert", head="tags"), ragged_set.select([])).shape == (0, 5)
