"""Heads for masked words beside the models of transformers that they were read from."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, BertModel

from stillhouse.errors import TeacherError
from stillhouse.model.chains import chain_config
from stillhouse.model.mlm_teachers import (
    MlmHead,
    load_mlm_head,
    load_mlm_teacher,
    mlm_logits,
    save_mlm_head,
)
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock

CHAIN = ChainArchitecture(
    embedding_size=12,
    blocks=(ChainBlock(hidden_size=24, operations=("M", "S3")),),
    head_size=8,
)
FREE = BertArchitecture(layers=2, hidden_size=12, heads=3, head_size=8, ffn_size=20)
PLACES = torch.tensor([0, 3, 12, 17])


def randomised(model):
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4, generator=generator)
    return model.eval()


FAMILIES = ["bert", "roberta", "camembert", "xlm-roberta", "distilbert", "electra"]
KINDS = [
    *((family, variant) for family in [*FAMILIES, "factored electra"] for variant in ("", "relu")),
    *((family, variant) for family in ("bert", "roberta") for variant in ("free heads", "chain")),
]
every_kind = pytest.mark.parametrize(("family", "variant"), KINDS)


@pytest.fixture
def masked_lm(tiny_config, family, variant):
    """A model for masked words, all of it random."""
    config = tiny_config(family, **({"hidden_act": "relu"} if variant == "relu" else {}))
    if variant == "free heads":
        config = student_config(FREE, config)
    if variant == "chain":
        config = chain_config(CHAIN, config)
    return randomised(AutoModelForMaskedLM.from_config(config))


@pytest.fixture
def saved(masked_lm, tmp_path, weather_tokenizer):
    masked_lm.save_pretrained(tmp_path / "teacher")
    weather_tokenizer.save_pretrained(tmp_path / "teacher")
    return str(tmp_path / "teacher")


@every_kind
@torch.no_grad()
def test_a_trained_head_scores_as_transformers_does(masked_lm, saved, family_tokens):
    teacher = load_mlm_teacher(saved)
    body, head = teacher.encoder.model, teacher.head
    expected_BTV = masked_lm(**family_tokens).logits
    hidden_BTD = body(**family_tokens).last_hidden_state
    found_NV = head(hidden_BTD.flatten(0, 1)[PLACES])
    torch.testing.assert_close(found_NV, expected_BTV.flatten(0, 1)[PLACES], rtol=1e-4, atol=1e-4)
    assert found_NV.std() > 0.5
    assert teacher.encoder.name == saved


@every_kind
@torch.no_grad()
def test_a_models_own_head_scores_chosen_tokens(masked_lm, family_tokens):
    hidden_BTD = masked_lm.base_model(**family_tokens).last_hidden_state
    found_NV = mlm_logits(masked_lm, hidden_BTD.flatten(0, 1)[PLACES])
    expected_BTV = masked_lm(**family_tokens).logits
    torch.testing.assert_close(found_NV, expected_BTV.flatten(0, 1)[PLACES], rtol=1e-4, atol=1e-4)


def test_a_model_without_such_a_head_is_refused(make_bert):
    with pytest.raises(TeacherError, match="BertForSequenceClassification has no head for masked"):
        mlm_logits(make_bert(), torch.zeros(1, 16))


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_an_encoder_alone_has_no_head(tiny_config, family, tmp_path, weather_tokenizer):
    model = AutoModel.from_config(tiny_config(family))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    teacher = load_mlm_teacher(save(model, weather_tokenizer, tmp_path))
    assert teacher.head is None
    assert torch.equal(torch.get_rng_state(), before)


def test_a_head_for_classes_is_none_for_words(make_bert, tmp_path, weather_tokenizer):
    folder = save(make_bert(), weather_tokenizer, tmp_path)
    assert load_mlm_teacher(folder).head is None


def test_an_untied_decoder_counts_as_none(tmp_path, tiny_config, weather_tokenizer):
    model = randomised(BertForMaskedLM(tiny_config("bert", tie_word_embeddings=False)))
    assert not torch.equal(
        model.get_output_embeddings().weight, model.get_input_embeddings().weight
    )
    assert load_mlm_teacher(save(model, weather_tokenizer, tmp_path)).head is None


def fresh(config, *, seed=0, of=0):
    with torch.random.fork_rng():
        torch.manual_seed(of)
        model = AutoModel.from_config(config)
    return MlmHead(model, seed=seed), model


def test_a_fresh_head_is_a_matter_of_its_seed_alone(tiny_config):
    torch.manual_seed(3)
    first, same, other = (fresh(tiny_config("bert"), seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.dense.weight, same.dense.weight)
    assert not torch.equal(first.dense.weight, other.dense.weight)
    assert first.dense.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert not first.bias.any()


def test_the_word_embeddings_are_shared_frozen_and_not_in_the_state(tiny_config, family):
    head, model = fresh(tiny_config(family))
    table = model.get_input_embeddings().weight
    assert head.words_VE.data_ptr() == table.data_ptr()
    assert not head.words_VE.requires_grad
    names = {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()} == names
    assert head.dense.weight.shape == (table.shape[1], 16)
    head(torch.rand(3, 16)).sum().backward()
    assert table.grad is None
    assert all(parameter.grad is not None for parameter in head.parameters())


@torch.no_grad()
def test_logits_are_float32_in_any_precision(tiny_config):
    head, _ = fresh(tiny_config("bert"))
    hidden_ND = torch.rand(5, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(hidden_ND)
    assert half.dtype == torch.float32
    assert half.shape == (5, 50)
    torch.testing.assert_close(half, head(hidden_ND), rtol=0.05, atol=0.02)


@torch.no_grad()
def test_a_saved_head_is_read_back(tiny_config, family, tmp_path):
    head, model = fresh(tiny_config(family))
    for weight in head.parameters():
        weight.normal_()
    save_mlm_head(head, tmp_path / "head.safetensors")
    sizes = {
        name: tensor.numel() for name, tensor in load_file(tmp_path / "head.safetensors").items()
    }
    assert max(sizes.values()) < model.get_input_embeddings().weight.numel()
    loaded = load_mlm_head(tmp_path / "head.safetensors", model)
    hidden_ND = torch.rand(5, 16)
    assert torch.equal(loaded(hidden_ND), head(hidden_ND))


@pytest.mark.parametrize("what", ["missing", "cut", "of another encoder"])
def test_a_head_that_cannot_be_read_is_named(what, tiny_config, tmp_path):
    head, model = fresh(tiny_config("bert"))
    file = tmp_path / "head.safetensors"
    if what != "missing":
        save_mlm_head(head, file)
    if what == "cut":
        file.write_bytes(file.read_bytes()[:100])
    if what == "of another encoder":
        model = BertModel(BertConfig(vocab_size=60, hidden_size=24, num_attention_heads=2))
    with pytest.raises(TeacherError, match=r"head\.safetensors holds no head .* train the head"):
        load_mlm_head(file, model)
