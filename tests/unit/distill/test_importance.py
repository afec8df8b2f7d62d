"""Importance beside derivatives that are told by finite differences, and losses beside torch's."""

import copy

import pytest
import torch
from torch.nn import functional
from transformers import BertForMaskedLM

from stillhouse.data.batching import collate
from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.distill.importance import StatesLoss, TaskLoss, WordsLoss, measure_importance
from stillhouse.errors import DataError, TeacherError
from stillhouse.model.mlm_teachers import MlmHead
from stillhouse.model.predict import predict

STEP = 1e-4


@pytest.fixture
def masker(weather_tokenizer):
    return Masker(weather_tokenizer, MaskingRule(probability=0.3))


@pytest.fixture
def words_set(make_set, weather_tokenizer):
    """Texts of the tokeniser's ordinary words."""
    return make_set(16, tokens=range(5, len(weather_tokenizer)), longest=10)


def loud(model, seed=4):
    """Gives every weight something to say, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3, generator=generator)
    return model.double().eval()


def slope(model, loss, scaled):
    """Derivative of the loss by a factor on some weights, by a central difference."""
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, place in scaled:
                weight[place] *= 1 + sign * STEP
            values.append(float(loss(model)))
            for weight, place in scaled:
                weight[place] /= 1 + sign * STEP
    return (values[0] - values[1]) / (2 * STEP)


def rows(part, index):
    return [(part.weight, index), (part.bias, index)]


def columns(part, index):
    return [(part.weight, (slice(None), index))]


def total(model, loss, groups):
    return sum(abs(slope(model, loss, group)) for group in groups)


def test_a_neuron_is_worth_what_the_loss_changes_by_when_its_weights_grow(make_bert, make_set):
    model, sample = loud(make_bert()), make_set(12)
    batch = collate(sample, range(12))

    def loss(one):
        return functional.cross_entropy(
            one(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits, batch.labels
        )

    found = measure_importance(model, sample, TaskLoss(kind="classes"))
    layer = model.bert.encoder.layer[1]
    attention, inner, outer = layer.attention, layer.intermediate.dense, layer.output.dense
    for neuron in (0, 13, 31):
        groups = [rows(inner, neuron), columns(outer, neuron)]
        expected = total(model, loss, groups)
        assert float(found.ffn_LF[1, neuron]) == pytest.approx(expected, rel=1e-4, abs=1e-8)
    for head, within in ((0, 0), (1, 5)):
        row = 8 * head + within
        parts = (attention.self.query, attention.self.key, attention.self.value)
        groups = [*(rows(part, row) for part in parts), columns(attention.output.dense, row)]
        expected = total(model, loss, groups)
        assert float(found.heads_LHK[1, head, within]) == pytest.approx(
            expected, rel=1e-4, abs=1e-8
        )
    embeddings = model.bert.embeddings
    for neuron in (2, 15):
        tables = (
            embeddings.word_embeddings,
            embeddings.position_embeddings,
            embeddings.token_type_embeddings,
        )
        groups = [*(columns(table, neuron) for table in tables), rows(embeddings.LayerNorm, neuron)]
        for block in model.bert.encoder.layer:
            own, output = block.attention.self, block.attention.output
            reads = (own.query, own.key, own.value, block.intermediate.dense)
            writes = (output.dense, output.LayerNorm, block.output.dense, block.output.LayerNorm)
            groups += [columns(part, neuron) for part in reads]
            groups += [rows(part, neuron) for part in writes]
        expected = total(model, loss, groups)
        assert float(found.hidden_D[neuron]) == pytest.approx(expected, rel=1e-4, abs=1e-8)


def test_batches_add_up_after_the_absolute_value(make_bert, make_set):
    """Two batches of 16, of long and of short texts, are worth what each is worth alone."""
    model, sample = loud(make_bert()), make_set(32)
    by_length = (-sample.lengths).argsort(kind="stable")
    loss = TaskLoss(kind="classes")
    together = measure_importance(model, sample, loss)
    first, second = (
        measure_importance(model, sample.select(part), loss)
        for part in (by_length[:16], by_length[16:])
    )
    for name in ("hidden_D", "heads_LHK", "ffn_LF"):
        added = getattr(first, name) + getattr(second, name)
        torch.testing.assert_close(getattr(together, name), added, rtol=1e-4, atol=1e-6)


def test_every_family_is_measured_and_left_as_it_was(make_model, words_set, masker, family):
    model = make_model()
    model.requires_grad_(requires_grad=False)
    model.base_model.get_input_embeddings().weight.requires_grad = True
    before = copy.deepcopy(model.state_dict())
    told = []
    found = measure_importance(
        model, words_set, StatesLoss(masker=masker, seed=0), on_progress=told.append
    )
    assert found.hidden_D.shape == (16,)
    assert found.heads_LHK.shape == (2, 4, 4)
    assert found.ffn_LF.shape == (2, 32)
    assert all((part > 0).any() for part in (found.hidden_D, found.heads_LHK, found.ffn_LF))
    assert told == [1.0]
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    needing = [name for name, one in model.named_parameters() if one.requires_grad]
    assert [name.endswith("word_embeddings.weight") for name in needing] == [True]
    assert all(one.grad is None for one in model.parameters())
    again = measure_importance(model, words_set, StatesLoss(masker=masker, seed=0))
    assert torch.equal(found.hidden_D, again.hidden_D)
    other = measure_importance(model, words_set, StatesLoss(masker=masker, seed=1))
    assert not torch.equal(found.hidden_D, other.hidden_D)


def test_words_are_lost_as_transformers_counts_them(make_bert, words_set, masker):
    """The loss of `BertForMaskedLM` at the masked words alone."""
    model = loud(make_bert(head=BertForMaskedLM)).float()
    head = MlmHead(model.bert)
    transform = model.cls.predictions.transform
    head.dense.load_state_dict(transform.dense.state_dict())
    head.norm.load_state_dict(transform.LayerNorm.state_dict())
    with torch.no_grad():
        head.bias.copy_(model.cls.predictions.bias)
    batch = collate(words_set, range(16))
    found = WordsLoss(head=head, masker=masker, seed=5)(model, batch, 2)
    ids, labels = masker.mask(batch.input_ids.numpy(), seed=5, step=2)
    output = model(
        input_ids=torch.from_numpy(ids),
        attention_mask=batch.attention_mask,
        token_type_ids=batch.token_type_ids,
        labels=torch.from_numpy(labels),
    )
    assert (labels != -100).sum() >= 16
    torch.testing.assert_close(found, output.loss)


def test_states_are_lost_where_words_are_hidden(make_bert, words_set, masker):
    """The mean squared difference of all real tokens, and its gradient by the masked side alone."""
    model = loud(make_bert()).float()
    batch = collate(words_set, range(16))
    found = StatesLoss(masker=masker, seed=5)(model, batch, 2)
    ids, _ = masker.mask(batch.input_ids.numpy(), seed=5, step=2)
    inputs = {"attention_mask": batch.attention_mask, "token_type_ids": batch.token_type_ids}
    hidden = model.bert(torch.from_numpy(ids), **inputs).last_hidden_state
    with torch.no_grad():
        whole = model.bert(batch.input_ids, **inputs).last_hidden_state
    kept = batch.attention_mask.bool()
    expected = functional.mse_loss(hidden[kept], whole[kept])
    torch.testing.assert_close(found, expected)
    weight = model.bert.encoder.layer[0].output.dense.weight
    gradients = [torch.autograd.grad(one, weight)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_labels_of_tokens_tell_importance_too(token_task):
    model = loud(token_task.model()).float()
    found = measure_importance(model, token_task.encoded(20), TaskLoss(kind=token_task.kind))
    assert (found.ffn_LF > 0).all()


def test_examples_that_tell_nothing_are_refused(make_bert, make_set, masker):
    """Of special tokens none is hidden, so the masked states are the whole ones."""
    model, sample = loud(make_bert()).float(), make_set(8, tokens=range(5))
    with pytest.raises(DataError, match=r"the hidden neurons have no gradient on 8 examples.*take"):
        measure_importance(model, sample, StatesLoss(masker=masker, seed=0))


def test_a_silent_part_is_named(make_bert, make_set):
    model = loud(make_bert()).float()
    block = model.bert.encoder.layer[1]
    with torch.no_grad():
        block.attention.output.dense.weight.zero_()
        block.attention.self.value.weight.zero_()
        block.attention.self.value.bias.zero_()
    with pytest.raises(DataError, match="the head neurons of layer 2 have no gradient"):
        measure_importance(model, make_set(8), TaskLoss(kind="classes"))
    model = loud(make_bert()).float()
    block = model.bert.encoder.layer[0]
    with torch.no_grad():
        block.output.dense.weight.zero_()
    with pytest.raises(DataError, match="the feed-forward neurons of layer 1 have no gradient"):
        measure_importance(model, make_set(8), TaskLoss(kind="classes"))


def test_gradients_that_overflow_are_refused(make_bert, make_set):
    model = loud(make_bert()).float()
    with torch.no_grad():
        model.bert.encoder.layer[0].intermediate.dense.weight[3, 3] = float("nan")
    assert not torch.isfinite(torch.from_numpy(predict(model, make_set(8)))).all()
    with pytest.raises(TeacherError, match=r"of the hidden neurons is not finite.*random"):
        measure_importance(model, make_set(8), TaskLoss(kind="classes"))
