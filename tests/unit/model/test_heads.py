"""Heads of every family: where they are, how they are told, and what they put out."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, BertForTokenClassification

from stillhouse.model.anatomy import encoder_layers, head_paths
from stillhouse.model.heads import (
    answers_tokens,
    auto_class_of,
    head_for,
    head_named,
    head_of,
    outputs_of,
)

ENDINGS = {
    "classes": "ForSequenceClassification",
    "tags": "ForTokenClassification",
    "spans": "ForQuestionAnswering",
}
OUTPUTS = {"classes": (2, 3), "tags": (2, 11, 5), "spans": (2, 11, 2)}


def check(model, head, inputs):
    assert type(model).__name__.endswith(ENDINGS[head])
    assert head_of(model) == head
    assert answers_tokens(model) == (head != "classes")
    with torch.no_grad():
        output = model(**inputs)
    found = outputs_of(output)
    assert found.shape == OUTPUTS[head]
    if head == "spans":
        assert torch.equal(found[..., 0], output.start_logits)
        assert torch.equal(found[..., 1], output.end_logits)
    else:
        assert torch.equal(found, output.logits)


def parameters_outside_the_encoder(model):
    parts = {"embeddings", "embeddings_project"}
    base = model.base_model
    inner = [getattr(base, part) for part in parts if hasattr(base, part)]
    inner.append(base.transformer if hasattr(base, "transformer") else base.encoder)
    known = {id(weight) for part in inner for weight in part.parameters()}
    return {id(weight) for weight in model.parameters()} - known


def named_parameters(model, head):
    names = head_paths(model.config, head)
    parts = [model.get_submodule(name) for name in names]
    return {id(weight) for part in parts for weight in part.parameters()}


def test_heads_of_every_family_are_known(make_model, family, head, family_tokens):
    model = make_model(family, head=head)
    check(model, head, family_tokens)
    assert named_parameters(model, head) == parameters_outside_the_encoder(model)
    assert len(encoder_layers(model)) == 2


def test_heads_of_students_of_other_families_are_known(make_own, own_family, head, tokens):
    model = make_own(own_family, head=head)
    check(model, head, tokens)
    *projections, outputs = head_paths(model.config, head)
    # The pooler of a MobileBERT that classifies is none: it takes the first state as it is.
    kept = [] if own_family == "mobilebert" else projections
    parts = [model.get_submodule(name) for name in (*kept, outputs)]
    named = {id(weight) for part in parts for weight in part.parameters()}
    assert named == parameters_outside_the_encoder(model)
    assert len(projections) == (head == "classes")


@pytest.mark.parametrize("kind", ["classes", "multi_label", "scores"])
def test_tasks_of_whole_texts_share_a_head(kind):
    assert head_for(kind) == "classes"
    assert auto_class_of(kind).__name__ == "AutoModelForSequenceClassification"


def test_tasks_of_tokens_have_their_own(token_head):
    assert head_for(token_head) == token_head
    assert auto_class_of(token_head).__name__ == f"AutoModel{ENDINGS[token_head]}"


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM])
def test_encoders_and_models_of_masked_words_have_no_head_of_a_task(auto, tiny_config):
    model = auto.from_config(tiny_config("bert"))
    assert head_of(model) is None
    assert not answers_tokens(model)


def test_a_class_of_another_name_has_the_head_of_what_it_extends(tiny_config):
    class Mine(BertForTokenClassification):
        pass

    assert head_named("Mine") is None
    assert head_of(Mine(tiny_config("bert"))) == "tags"


def test_start_and_end_stand_side_by_side():
    start, end = torch.tensor([[1.0, 2, 3]]), torch.tensor([[4.0, 5, 6]])
    found = outputs_of(SimpleNamespace(start_logits=start, end_logits=end))
    assert found.tolist() == [[[1, 4], [2, 5], [3, 6]]]
