import pytest

from stillhouse.data.batching import collate
from stillhouse.model.inputs import model_inputs


@pytest.fixture
def batch(ragged_set):
    """Examples with tokens of both types."""
    return collate(ragged_set, [4, 0])


def test_token_types_reach_the_models_that_tell_them_apart(tiny_config, family, batch):
    inputs = model_inputs(tiny_config(family), batch)
    names = {"input_ids", "attention_mask"}
    if family in ("bert", "electra", "factored electra"):
        names.add("token_type_ids")
    assert set(inputs) == names
    assert all(tensor is getattr(batch, name) for name, tensor in inputs.items())


def test_roberta_with_two_types_gets_them(tiny_config, batch):
    assert "token_type_ids" in model_inputs(tiny_config("roberta", type_vocab_size=2), batch)


def test_a_number_of_types_in_a_distilbert_configuration_means_nothing(tiny_config, batch):
    config = tiny_config("distilbert", type_vocab_size=2)
    assert "token_type_ids" not in model_inputs(config, batch)
