import pytest
import torch
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    RobertaConfig,
)

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import (
    anatomy_of,
    architecture_of,
    encoder_layers,
    encoder_parameters,
    ends_of,
    factored_size,
    label_count,
    label_names,
    usable_positions,
)
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import Ends

PARTS_OF_A_MODEL = ("embeddings", "layers", "head_projection", "head_outputs")
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


def test_the_names_are_all_parts_of_the_model(make_model, family):
    model = make_model(family)
    anatomy = anatomy_of(model.config)
    names = [getattr(anatomy, part) for part in PARTS_OF_A_MODEL]
    if family == "factored electra":
        names.append(anatomy.factored_projection)
    named = [id(weight) for name in names for weight in model.get_submodule(name).parameters()]
    assert len(named) == len(set(named))
    assert set(named) == {id(weight) for weight in model.parameters()}
    for layer in encoder_layers(model):
        parts = [layer.get_submodule(getattr(anatomy, part)) for part in PARTS_OF_A_LAYER]
        named = {id(weight) for part in parts for weight in part.parameters()}
        assert named == {id(weight) for weight in layer.parameters()}


def test_an_unknown_family_is_refused():
    with pytest.raises(TeacherError, match=r"'albert' is not supported; use one of: bert, .*rob"):
        anatomy_of(AlbertConfig())
    with pytest.raises(TeacherError, match="albert"):
        architecture_of(AlbertConfig())


def test_the_architecture_is_read_from_the_configuration(tiny_config, family):
    config = tiny_config(
        family,
        num_hidden_layers=3,
        hidden_size=24,
        num_attention_heads=6,
        intermediate_size=40,
        hidden_act="relu",
    )
    assert architecture_of(config) == BertArchitecture(
        layers=3, hidden_size=24, heads=6, ffn_size=40, activation="relu"
    )


def test_an_activation_outside_the_space_is_refused(tiny_config, family):
    config = tiny_config(family, hidden_act="gelu_new")
    message = r"'gelu_new' is not supported.*one of: gelu, relu, silu"
    with pytest.raises(TeacherError, match=message):
        architecture_of(config)


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        (BertConfig(), 512),
        (DistilBertConfig(), 512),
        (RobertaConfig(max_position_embeddings=514), 512),
        (RobertaConfig(max_position_embeddings=40, pad_token_id=0), 39),
    ],
)
def test_the_usable_positions(config, tokens):
    assert usable_positions(config) == tokens


def test_a_model_reads_its_usable_positions_and_not_one_more(make_model, family):
    model = make_model(family)
    limit = usable_positions(model.config)
    assert limit == 24
    with torch.no_grad():
        assert model(input_ids=torch.full((1, limit), 5)).logits.shape == (1, 3)
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, limit + 1), 5))


def test_the_ends_are_read_from_the_configuration(tiny_config, family):
    ends = ends_of(tiny_config(family))
    types = {"bert": 2, "electra": 2, "factored electra": 2, "distilbert": 0}.get(family, 1)
    assert ends == Ends(
        vocab_size=50,
        positions=26 if "roberta" in family or family == "camembert" else 24,
        token_types=types,
        labels=3,
        factored_size=12 if family == "factored electra" else None,
    )


def test_embeddings_of_the_layers_width_are_not_factored(tiny_config):
    config = tiny_config("factored electra", hidden_size=12)
    assert factored_size(config) is None
    model = AutoModelForSequenceClassification.from_config(config)
    assert not hasattr(model.electra, "embeddings_project")


def test_labels_come_in_their_numeric_order():
    config = BertConfig(id2label={str(i): f"class {i}" for i in reversed(range(12))})
    assert label_names(config) == [f"class {i}" for i in range(12)]
    assert label_count(config) == 12


def test_layers_come_first_to_last_and_alone_count_as_encoder(make_model, family):
    model = make_model(family, num_hidden_layers=3)
    stack = model.distilbert.transformer if family == "distilbert" else model.base_model.encoder
    assert [id(layer) for layer in encoder_layers(model)] == [id(stack.layer[i]) for i in range(3)]
    # Width 16, FFN 32: 4·(16² + 16) attention, 16·32 + 32 and 32·16 + 16 FFN, 2 norms of 2·16.
    assert encoder_parameters(model) == 3 * (1088 + 544 + 528 + 64)
