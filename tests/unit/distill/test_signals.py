import pytest
import torch

from stillhouse.data.batching import collate
from stillhouse.distill.signals import EMBEDDINGS, SignalReader


@pytest.fixture
def batch(make_set):
    return collate(make_set(), [3, 1, 8])


def test_signals_equal_what_transformers_gives_out(make_bert, batch):
    model = make_bert(layers=3)
    with torch.no_grad():
        expected = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            token_type_ids=batch.token_type_ids,
            output_hidden_states=True,
        )
        with SignalReader(model, frozenset({0, 2})) as reader:
            signals = reader(batch)
    assert torch.equal(signals.logits, expected.logits)
    assert set(signals.hidden_BTD) == {0, 2}
    # The first of transformers' hidden states is the output of the embeddings.
    for layer in (0, 2):
        assert torch.equal(signals.hidden_BTD[layer], expected.hidden_states[layer + 1])


def test_hidden_states_of_every_family_are_those_of_its_layers(make_model, make_set):
    model = make_model(num_hidden_layers=3)
    batch = collate(make_set(tokens=range(3, 50)), [3, 1, 8])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if model.config.model_type in ("bert", "electra"):
        inputs["token_type_ids"] = batch.token_type_ids
        assert batch.token_type_ids.any()
    with torch.no_grad(), SignalReader(model, frozenset({0, 1, 2})) as reader:
        expected = model(**inputs, output_hidden_states=True)
        signals = reader(batch)
    assert torch.equal(signals.logits, expected.logits)
    for layer in range(3):
        assert torch.equal(signals.hidden_BTD[layer], expected.hidden_states[layer + 1])


def test_gradients_flow_through_the_signals(make_bert, batch):
    model = make_bert(layers=3)
    with SignalReader(model, frozenset({1})) as reader:
        reader(batch).hidden_BTD[1].square().sum().backward()
    layers = model.bert.encoder.layer
    assert layers[1].output.dense.weight.grad.abs().sum() > 0
    assert layers[2].output.dense.weight.grad is None


def test_one_call_does_not_change_the_signals_of_another(make_bert, make_set, batch):
    with SignalReader(make_bert(), frozenset({0})) as reader, torch.no_grad():
        first = reader(batch)
        kept = first.hidden_BTD[0].clone()
        reader(collate(make_set(), [0, 2]))
    assert torch.equal(first.hidden_BTD[0], kept)


@pytest.mark.parametrize("fails", [False, True])
def test_the_hooks_leave_the_model(make_bert, fails):
    model = make_bert()

    def hooks():
        return sum(len(module._forward_hooks) for module in model.modules())

    before = hooks()
    try:
        with SignalReader(model, frozenset({0, 1})):
            assert hooks() == before + 2
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert hooks() == before


def test_a_layer_that_does_not_exist_is_an_error(make_bert):
    with pytest.raises(IndexError):
        SignalReader(make_bert(layers=2), frozenset({2}))


def test_heads_of_tokens_give_their_logits_too(token_task):
    model, batch = token_task.model(), collate(token_task.encoded(), [3, 1, 8])
    with torch.no_grad(), SignalReader(model, frozenset({1})) as reader:
        output = model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            output_hidden_states=True,
        )
        signals = reader(batch)
    if token_task.kind == "tags":
        expected = output.logits
    else:
        expected = torch.stack([output.start_logits, output.end_logits], dim=2)
    assert torch.equal(signals.logits, expected)
    assert torch.equal(signals.hidden_BTD[1], output.hidden_states[2])


def test_the_state_before_the_first_layer_is_that_of_the_embeddings(make_model, make_set):
    model = make_model(num_hidden_layers=2)
    batch = collate(make_set(tokens=range(3, 50)), [3, 1, 8])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if model.config.model_type in ("bert", "electra"):
        inputs["token_type_ids"] = batch.token_type_ids
    with torch.no_grad(), SignalReader(model, frozenset({EMBEDDINGS})) as reader:
        expected = model(**inputs, output_hidden_states=True).hidden_states[0]
        assert torch.equal(reader(batch).hidden_BTD[EMBEDDINGS], expected)


def test_attention_is_that_which_transformers_gives_out(make_model, make_set):
    model = make_model(num_hidden_layers=2)
    model.set_attn_implementation("eager")
    batch = collate(make_set(tokens=range(3, 50)), [3, 1, 8])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if model.config.model_type in ("bert", "electra"):
        inputs["token_type_ids"] = batch.token_type_ids
    with (
        torch.no_grad(),
        SignalReader(model, frozenset(), attention=frozenset({0, 1})) as reader,
    ):
        expected = model(**inputs, output_attentions=True).attentions
        found = reader(batch).attention
    padding = (batch.attention_mask == 0)[:, None, None]
    for layer in (0, 1):
        scores = found[layer].scores().masked_fill(padding, -torch.inf)
        torch.testing.assert_close(scores.softmax(dim=-1), expected[layer], atol=1e-6, rtol=1e-5)
