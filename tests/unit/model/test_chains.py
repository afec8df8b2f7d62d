"""Chains that are built as their architectures say, for teachers of every family."""

import pytest
import torch
from transformers import AlbertConfig, AutoModelForMaskedLM, AutoModelForSequenceClassification

from stillhouse.errors import SpaceError, TeacherError
from stillhouse.model.anatomy import (
    architecture_of,
    encoder_layers,
    encoder_parameters,
    ends_of,
    usable_positions,
)
from stillhouse.model.chains import chain_config, chain_of
from stillhouse.model.count import true_flops, true_parameters
from stillhouse.model.described import described
from stillhouse.model.encoders import bare_anatomy, build_encoder, load_encoder
from stillhouse.model.modeling_chain_bert import ChainBertConfig, ChainBertModel
from stillhouse.model.slicing import copy_slices
from stillhouse.model.students import build_student, set_dropout, student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import count_chain_parameters

CHAIN = ChainArchitecture(
    embedding_size=12,
    blocks=(
        ChainBlock(hidden_size=16, operations=("S3", "M", "F", "S5")),
        ChainBlock(hidden_size=8, operations=("S7", "M")),
        ChainBlock(hidden_size=8, operations=("F",)),
    ),
    head_size=4,
    ffn_ratio=3,
    activation="relu",
)
UNBRIDGED = ChainArchitecture(
    embedding_size=8, blocks=(ChainBlock(hidden_size=8, operations=("F",)),), head_size=8
)


def numbers(module):
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("architecture", [CHAIN, UNBRIDGED])
def test_chains_for_every_family_are_as_large_as_counted(architecture, tiny_config, family):
    teacher = tiny_config(family, labels=5, vocab_size=37)
    config = chain_config(architecture, teacher)
    model = AutoModelForSequenceClassification.from_config(config)
    assert ends_of(config).rows == ends_of(teacher).rows
    counted = count_chain_parameters(architecture, ends_of(teacher))
    bridges = [block.bridge for block in encoder_layers(model) if block.bridge is not None]
    assert numbers(model.bert.embeddings) == counted.embeddings
    assert sum(map(numbers, bridges)) == counted.bridges
    assert numbers(model.bert.encoder) == counted.bridges + counted.operations
    assert encoder_parameters(model) == counted.bridges + counted.operations
    assert numbers(model.bert.pooler) + numbers(model.classifier) == counted.head
    assert true_parameters(architecture, config) == numbers(model)
    assert true_parameters(architecture, teacher, bare=True) == numbers(model.bert)


def test_flops_are_the_spaces_count(tiny_config):
    # 10 tokens of one feed-forward operation of 8 × 32 twice, the pooler and 3 outputs for one.
    config = chain_config(UNBRIDGED, tiny_config("bert", labels=3))
    assert true_flops(UNBRIDGED, config, length=10) == 2 * (10 * 2 * 8 * 32 + 8 * 8 + 8 * 3)
    assert true_flops(UNBRIDGED, config, length=10, bare=True) == 2 * (10 * 2 * 8 * 32 + 8 * 8)


def test_what_is_not_shape_comes_from_the_teacher(tiny_config, family):
    teacher = tiny_config(family, labels=5, vocab_size=37)
    teacher.problem_type = "multi_label_classification"
    config = chain_config(CHAIN, teacher, dropout=0.25)
    assert config.id2label == {index: f"label {index}" for index in range(5)}
    assert config.label2id == {f"label {index}": index for index in range(5)}
    assert config.problem_type == "multi_label_classification"
    assert (config.vocab_size, config.pad_token_id) == (37, teacher.pad_token_id)
    assert (config.bos_token_id, config.eos_token_id) == (
        teacher.bos_token_id,
        teacher.eos_token_id,
    )
    follows = "roberta" in family or family == "camembert"
    assert config.position_offset == (teacher.pad_token_id + 1 if follows else 0)
    assert usable_positions(config) == usable_positions(teacher) == 24
    types = {"bert": 2, "electra": 2, "factored electra": 2, "distilbert": 0}.get(family, 1)
    assert config.type_vocab_size == types
    assert config.layer_norm_eps == getattr(teacher, "layer_norm_eps", 1e-12)
    dropouts = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    assert {getattr(config, name) for name in dropouts} == {0.25}


@pytest.mark.parametrize(("kind", "labels"), [("tags", 5), ("spans", 2)])
def test_chains_that_answer_tokens_are_as_large_as_counted(tiny_config, family, kind, labels):
    teacher = tiny_config(family, labels=labels)
    config = chain_config(CHAIN, teacher)
    assert config.id2label == {index: f"label {index}" for index in range(labels)}
    assert config.problem_type is None
    model = build_student(config, seed=0, kind=kind)
    counted = count_chain_parameters(CHAIN, ends_of(teacher, kind))
    assert counted.head == 8 * labels + labels
    assert counted.total == numbers(model)
    assert chain_of(config) == CHAIN


def test_a_chain_reads_its_usable_positions_and_not_one_more(tiny_config, family):
    model = build_encoder(chain_config(UNBRIDGED, tiny_config(family)), seed=0).eval()
    with torch.no_grad():
        assert model(torch.full((1, 24), 5)).last_hidden_state.shape == (1, 24, 8)
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 25), 5))


def test_an_architecture_comes_back_from_its_configuration(tiny_config, tmp_path):
    config = chain_config(CHAIN, tiny_config("bert"))
    config.save_pretrained(tmp_path)
    assert chain_of(config) == CHAIN
    assert chain_of(ChainBertConfig.from_pretrained(tmp_path)) == CHAIN
    assert described(config) == CHAIN
    config.hidden_act = "gelu_new"
    with pytest.raises(SpaceError, match="gelu_new"):
        described(config)


def test_other_families_are_described_as_ever(tiny_config, family):
    config = tiny_config(family)
    assert described(config) == architecture_of(config)
    with pytest.raises(TeacherError, match="albert"):
        described(AlbertConfig())


def test_every_dropout_of_a_chain_is_set(tiny_config):
    model = build_student(chain_config(CHAIN, tiny_config("bert")), seed=0)
    set_dropout(model, 0.5)
    found = [one.p for one in model.modules() if isinstance(one, torch.nn.Dropout)]
    # Embeddings, head, 7 operations and the weights of 2 attentions.
    assert found == [0.5] * 11
    assert model.config.attention_probs_dropout_prob == model.config.classifier_dropout == 0.5


def test_a_bare_chain_and_one_with_a_head_are_loaded(tiny_config, tmp_path, tokenizer):
    config = chain_config(CHAIN, tiny_config("bert", vocab_size=9))
    bare, words = build_encoder(config, seed=3), AutoModelForMaskedLM.from_config(config)
    for name, model in (("bare", bare), ("words", words)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        loaded = load_encoder(str(tmp_path / name)).model
        assert type(loaded) is ChainBertModel
        expected = model.base_model.state_dict()
        found = {key: value for key, value in loaded.state_dict().items() if key in expected}
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)


REFUSAL = "'chain_bert' is a chain.*fine-tuned and evaluated, but not be a teacher .*: bert,"


def test_a_chain_is_no_teacher_and_nothing_is_cut_out_of_it(tiny_config):
    bert = tiny_config("bert")
    config = chain_config(CHAIN, bert)
    student = BertArchitecture(layers=1, hidden_size=8, heads=2, ffn_size=12)
    chain, other = build_student(config, seed=0), build_student(bert, seed=0)
    for refused in (
        lambda: architecture_of(config),
        lambda: bare_anatomy(config),
        lambda: chain_config(CHAIN, config),
        lambda: student_config(student, config),
        lambda: copy_slices(other, chain, (0, 1)),
        lambda: copy_slices(chain, other, (0, 1)),
    ):
        with pytest.raises(TeacherError, match=REFUSAL):
            refused()
