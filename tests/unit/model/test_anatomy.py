import pytest
from transformers import BertConfig, DistilBertConfig

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import (
    anatomy_of,
    architecture_of,
    encoder_layers,
    encoder_parameters,
    label_count,
    label_names,
)
from stillhouse.space.architecture import BertArchitecture

PARTS_OF_A_MODEL = ("base", "embeddings", "word_embeddings", "layers", "pooler", "classifier")
PARTS_OF_A_LAYER = (
    "query",
    "key",
    "value",
    "attention_output",
    "attention_norm",
    "ffn_input",
    "ffn_output",
    "ffn_norm",
)


def test_every_name_is_a_part_of_the_model(make_bert):
    model = make_bert()
    anatomy = anatomy_of(model.config)
    for part in PARTS_OF_A_MODEL:
        assert any(True for _ in model.get_submodule(getattr(anatomy, part)).parameters())
    for layer in encoder_layers(model):
        parts = [layer.get_submodule(getattr(anatomy, part)) for part in PARTS_OF_A_LAYER]
        named = {id(weight) for part in parts for weight in part.parameters()}
        assert named == {id(weight) for weight in layer.parameters()}


def test_an_unknown_family_is_refused():
    with pytest.raises(TeacherError, match=r"'distilbert' is not supported; use one of: bert"):
        anatomy_of(DistilBertConfig())
    with pytest.raises(TeacherError, match="distilbert"):
        architecture_of(DistilBertConfig())


def test_the_architecture_is_read_from_the_configuration():
    config = BertConfig(
        num_hidden_layers=3,
        hidden_size=24,
        num_attention_heads=6,
        intermediate_size=40,
        hidden_act="relu",
    )
    assert architecture_of(config) == BertArchitecture(
        layers=3, hidden_size=24, heads=6, ffn_size=40, activation="relu"
    )


def test_labels_come_in_their_numeric_order():
    config = BertConfig(id2label={str(i): f"class {i}" for i in reversed(range(12))})
    assert label_names(config) == [f"class {i}" for i in range(12)]
    assert label_count(config) == 12


def test_layers_come_first_to_last_and_alone_count_as_encoder(make_bert):
    model = make_bert(num_hidden_layers=3)
    layers = encoder_layers(model)
    assert [id(layer) for layer in layers] == [id(model.bert.encoder.layer[i]) for i in range(3)]
    # Width 16, FFN 32: 4·(16² + 16) attention, 16·32 + 32 and 32·16 + 16 FFN, 2 norms of 2·16.
    assert encoder_parameters(model) == 3 * (1088 + 544 + 528 + 64)
