import copy
import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from stillhouse.data.batching import collate
from stillhouse.distill import loop
from stillhouse.distill.layer_maps import layer_links
from stillhouse.distill.loop import TrainSettings, train
from stillhouse.distill.signals import SignalReader
from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm
from stillhouse.distill.vocabulary import compact_vocabulary, whole_vocabulary

SETTINGS = TrainSettings(epochs=2, learning_rate=1e-3, batch_size=16)


def table(model):
    return model.base_model.embeddings.word_embeddings.weight


def every_term():
    links = layer_links("uniform", 2, 4)
    hidden = HiddenTerm(links=links, student_hidden=16, teacher_hidden=24, weight=1.0, seed=0)
    return [LabelTerm(), LogitTerm(), hidden]


@pytest.fixture
def few_tokens(make_set):
    """Forty examples of five words of the fifty: 7, 9, 20, 33, 49."""
    return make_set(40, tokens=(7, 9, 20, 33, 49))


def test_the_table_holds_the_used_rows_and_padding(make_bert, few_tokens):
    model = make_bert()
    full = table(model)
    with compact_vocabulary(model, few_tokens) as compact:
        assert torch.equal(table(model), full[[0, 7, 9, 20, 33, 49]])
        assert compact.pad_id == 0
        used = np.array([0, 7, 9, 20, 33, 49])
        np.testing.assert_array_equal(used[compact.input_ids], few_tokens.input_ids)
        assert compact.labels is few_tokens.labels
        assert table(model).requires_grad
    assert table(model) is full


def test_padding_need_not_be_the_first_row(make_bert, few_tokens):
    encoded = dataclasses.replace(few_tokens, pad_id=12)
    model = make_bert(pad_token_id=12)
    with compact_vocabulary(model, encoded) as compact:
        assert len(table(model)) == 6
        assert compact.pad_id == 2
        assert model.bert.embeddings.word_embeddings.padding_idx == 2


def test_outputs_do_not_change(make_bert, few_tokens):
    model = make_bert()
    indices = [4, 0, 17, 9]
    with torch.no_grad(), SignalReader(model, frozenset({0})) as reader:
        expected = reader(collate(few_tokens, indices))
        with compact_vocabulary(model, few_tokens) as compact:
            cut = reader(collate(compact, indices))
    assert torch.equal(cut.logits, expected.logits)
    assert torch.equal(cut.hidden_BTD[0], expected.hidden_BTD[0])


def test_training_ends_with_the_same_weights_as_on_the_full_table(
    make_bert, few_tokens, live_teacher, accelerator, monkeypatch
):
    cut, full = make_bert(dropout=0.1), make_bert(dropout=0.1)
    start = copy.deepcopy(cut.state_dict())
    train(cut, few_tokens, every_term(), SETTINGS, accelerator=accelerator, teacher=live_teacher)
    monkeypatch.setattr(loop, "compact_vocabulary", lambda _, encoded: nullcontext(encoded))
    train(full, few_tokens, every_term(), SETTINGS, accelerator=accelerator, teacher=live_teacher)
    for name, weight in full.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)
    moved = (table(cut) - start["bert.embeddings.word_embeddings.weight"]).abs().amax(dim=1)
    assert moved.nonzero().flatten().tolist() == [7, 9, 20, 33, 49]
    assert moved[[7, 9, 20, 33, 49]].min() > 1e-3


def padded_as(encoded, model):
    return dataclasses.replace(encoded, pad_id=model.config.pad_token_id)


def test_outputs_of_no_family_change(make_model, few_tokens):
    model = make_model()
    encoded = padded_as(few_tokens, model)
    indices = [4, 0, 17, 9]  # of unequal length: some are padded
    with torch.no_grad(), SignalReader(model, frozenset({0})) as reader:
        expected = reader(collate(encoded, indices))
        with compact_vocabulary(model, encoded) as compact:
            cut = reader(collate(compact, indices))
            assert len(table(model)) < 8
    assert torch.equal(cut.logits, expected.logits)
    assert torch.equal(cut.hidden_BTD[0], expected.hidden_BTD[0])


@pytest.mark.parametrize("padding", [0, 1, 8])
@pytest.mark.parametrize("occurs", [False, True])
def test_positions_counted_over_padding_stay(tiny_config, few_tokens, make_set, padding, occurs):
    """The padding keeps its number in RoBERTa, and no token takes it, whatever the data use."""
    config = tiny_config("roberta", pad_token_id=padding, max_position_embeddings=40)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    words = (7, 9, 20, 33, 49, *([padding] if occurs else []))
    encoded = dataclasses.replace(make_set(40, tokens=words), pad_id=padding)
    everything = collate(encoded, range(40))
    with torch.no_grad(), compact_vocabulary(model, encoded) as compact:
        assert compact.pad_id == padding
        np.testing.assert_array_equal(compact.input_ids == padding, encoded.input_ids == padding)
        cut = model(
            input_ids=collate(compact, range(40)).input_ids,
            attention_mask=everything.attention_mask,
        )
    with torch.no_grad():
        expected = model(input_ids=everything.input_ids, attention_mask=everything.attention_mask)
    assert torch.equal(cut.logits, expected.logits)


def test_every_family_trains_to_the_same_weights_as_on_the_full_table(
    make_model, few_tokens, accelerator, monkeypatch
):
    cut, full = make_model(dropout=0.1), make_model(dropout=0.1)
    encoded = padded_as(few_tokens, cut)
    start = table(cut).detach().clone()
    train(cut, encoded, [LabelTerm()], SETTINGS, accelerator=accelerator)
    monkeypatch.setattr(loop, "compact_vocabulary", lambda _, encoded: nullcontext(encoded))
    train(full, encoded, [LabelTerm()], SETTINGS, accelerator=accelerator)
    for name, weight in full.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)
    moved = (table(cut) - start).abs().amax(dim=1)
    assert moved.nonzero().flatten().tolist() == [7, 9, 20, 33, 49]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_table_is_put_back_after_an_error(make_bert, few_tokens, error):
    model = make_bert()
    full, before = table(model), table(model).detach().clone()

    def train_and_fail():
        with compact_vocabulary(model, few_tokens):
            with torch.no_grad():
                table(model)[1] = 3.0  # the row of token 7
            raise error

    with pytest.raises(error):
        train_and_fail()
    assert table(model) is full
    assert torch.equal(full[7], torch.full((16,), 3.0))
    before[7] = 3.0
    assert torch.equal(full, before)


def test_a_frozen_table_stays_frozen(make_bert, few_tokens):
    model = make_bert()
    table(model).requires_grad_(False)
    with compact_vocabulary(model, few_tokens):
        assert not table(model).requires_grad


def test_the_global_random_state_is_left(make_bert, few_tokens):
    model = make_bert()
    before = torch.get_rng_state()
    with compact_vocabulary(model, few_tokens):
        pass
    assert torch.equal(before, torch.get_rng_state())


def test_the_whole_table_is_lent_with_what_was_learnt(make_bert, few_tokens):
    model = make_bert()
    full, expected = table(model), table(model).detach().clone()
    with compact_vocabulary(model, few_tokens):
        cut = table(model)
        with torch.no_grad():
            cut[1] = 3.0  # the row of token 7
        with whole_vocabulary(model):
            expected[7] = 3.0
            assert table(model) is full
            assert torch.equal(full, expected)
        assert table(model) is cut
        with torch.no_grad():
            cut[2] = 4.0  # the row of token 9
    expected[9] = 4.0
    assert torch.equal(full, expected)
    assert table(model) is full


def test_the_cut_table_comes_back_after_an_error(make_bert, few_tokens):
    model = make_bert()
    with compact_vocabulary(model, few_tokens):
        cut = table(model)
        with pytest.raises(KeyboardInterrupt), whole_vocabulary(model):
            raise KeyboardInterrupt
        assert table(model) is cut


def test_a_table_that_is_not_cut_is_left(make_bert):
    model = make_bert()
    full = table(model)
    with whole_vocabulary(model):
        assert table(model) is full


def test_the_cut_table_does_not_hold_the_whole_one_as_a_part(make_bert, few_tokens):
    """Else it would be saved, and trained, twice."""
    model = make_bert()
    names = set(model.state_dict())
    with compact_vocabulary(model, few_tokens):
        assert set(model.state_dict()) == names
