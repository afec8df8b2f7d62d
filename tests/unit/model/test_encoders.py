"""Encoders without a head: loaded, built, and where they keep their parts."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2Model

from stillhouse.errors import TeacherError
from stillhouse.model.anatomy import FAMILIES, LayeredAnatomy, anatomy_of
from stillhouse.model.encoders import bare_anatomy, build_encoder, load_encoder
from stillhouse.model.modeling_free_head_bert import FreeHeadBertModel
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture

SIZES = {
    "vocab_size": 9,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
}
FREE = BertArchitecture(layers=2, hidden_size=12, heads=3, head_size=8, ffn_size=20)


def same_weights(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_a_head_is_left_out(weather_teacher_folder, weather_teacher):
    encoder = load_encoder(str(weather_teacher_folder))
    assert encoder.name == str(weather_teacher_folder)
    assert type(encoder.model) is BertModel
    assert same_weights(encoder.model, weather_teacher.bert)
    assert not encoder.model.training
    ids = encoder.tokenizer("a sunny day", return_tensors="pt")
    with torch.no_grad():
        expected = weather_teacher.bert(**ids).last_hidden_state
        assert torch.equal(encoder.model(**ids).last_hidden_state, expected)


@pytest.mark.parametrize("shape", [None, FREE])
def test_a_bare_encoder_is_loaded_as_it_is(shape, tmp_path, tokenizer):
    config = BertConfig(**SIZES)
    config = config if shape is None else student_config(shape, config)
    model = build_encoder(config, seed=3)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_encoder(str(tmp_path)).model
    assert type(loaded) is (BertModel if shape is None else FreeHeadBertModel)
    assert same_weights(loaded, model)


def test_the_head_of_masked_words_is_left_out(tmp_path, tokenizer):
    model = BertForMaskedLM(BertConfig(**SIZES))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_encoder(str(tmp_path)).model.state_dict()
    for name, weight in model.bert.state_dict().items():
        assert torch.equal(loaded[name], weight)


def test_half_precision_becomes_whole(tmp_path, tokenizer):
    model = BertModel(BertConfig(**SIZES)).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    loaded = load_encoder(str(tmp_path)).model
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}


def damage(folder, what):
    if what == "nothing there":
        return folder / "elsewhere"
    build_encoder(BertConfig(**SIZES), seed=0).save_pretrained(folder)
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "cut weights":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif what == "no configuration":
        (folder / "config.json").unlink()
    elif what == "cut configuration":
        (folder / "config.json").write_text('{"model_type": "bert"')
    elif what == "unknown type":
        (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))
    return folder


@pytest.mark.parametrize(
    "what",
    [
        "nothing there",
        "no weights",
        "cut weights",
        "no configuration",
        "cut configuration",
        "unknown type",
    ],
)
def test_a_folder_that_gives_no_encoder_is_named(what, tmp_path):
    folder = damage(tmp_path / "broken", what)
    with pytest.raises(TeacherError) as refused:
        load_encoder(str(folder))
    told = str(refused.value)
    assert told.startswith(f"no encoder can be loaded from {str(folder)!r}: ")
    assert told.endswith("Give a folder with config.json and weights, or a hub id")
    assert "\n" not in told


def test_an_encoder_without_its_tokeniser_is_refused(tmp_path):
    folder = damage(tmp_path / "alone", "no tokeniser")
    with pytest.raises(TeacherError, match=r"alone' has no tokeniser: its vocabulary holds"):
        load_encoder(str(folder))


def test_another_family_is_refused(tmp_path):
    sizes = {"vocab_size": 9, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    GPT2Model(GPT2Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match=r"model type 'gpt2' is not supported; use one of: bert"):
        load_encoder(str(tmp_path))


def test_equal_seeds_build_equal_encoders_and_leave_the_global_state():
    config = BertConfig(**SIZES)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, same, other = (build_encoder(config, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert same_weights(first, same)
    assert not same_weights(first, other)


@pytest.fixture
def configurations(tiny_config):
    """One of every family in the table, and one with factored embeddings."""
    kinds = ["bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra"]
    made = [tiny_config(kind) for kind in [*kinds, "factored electra"]]
    return [*made, student_config(FREE, made[0])]


def test_paths_of_every_family_are_there_in_the_bare_encoder(configurations):
    layered = {name for name, one in FAMILIES.items() if isinstance(one, LayeredAnatomy)}
    assert {config.model_type for config in configurations} == layered
    for config in configurations:
        model = AutoModel.from_config(config)
        anatomy = bare_anatomy(config)
        layers = model.get_submodule(anatomy.layers)
        assert len(layers) == config.num_hidden_layers
        words = model.get_submodule(anatomy.embeddings).word_embeddings
        assert words is model.get_input_embeddings()
        for part in ("query", "key", "value", "attention_output", "ffn_input", "ffn_output"):
            weight = layers[-1].get_submodule(getattr(anatomy, part)).weight
            assert weight.ndim == 2
        for part in ("attention_norm", "ffn_norm"):
            assert layers[0].get_submodule(getattr(anatomy, part)).weight.ndim == 1


def test_the_projection_of_factored_embeddings_is_there_too(tiny_config):
    config = tiny_config("factored electra")
    projection = AutoModel.from_config(config).get_submodule(
        bare_anatomy(config).factored_projection
    )
    assert projection.weight.shape == (16, 12)


def test_all_else_of_the_anatomy_is_as_in_a_classifier(configurations):
    for config in configurations:
        bare, whole = bare_anatomy(config), anatomy_of(config)
        for name in ("query", "ffn_norm", "shared", "dropouts", "positions_follow_padding"):
            assert getattr(bare, name) == getattr(whole, name)
