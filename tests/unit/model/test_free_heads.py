"""The family of ours beside transformers' BERT and RoBERTa with the same weights.

Letters in names: B batch, T tokens.
"""

import inspect
import logging

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional
from transformers import (
    AttentionInterface,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    RobertaConfig,
    RobertaModel,
)

from stillhouse.errors import TeacherError
from stillhouse.model import modeling_free_head_bert as code
from stillhouse.model.anatomy import architecture_of, ends_of
from stillhouse.model.modeling_free_head_bert import FreeHeadBertConfig
from stillhouse.model.students import build_student, student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import count_parameters

BARE = code.FreeHeadBertModel
SEQUENCES = code.FreeHeadBertForSequenceClassification
TOKENS = code.FreeHeadBertForTokenClassification
ANSWERS = code.FreeHeadBertForQuestionAnswering
WORDS = code.FreeHeadBertForMaskedLM
STOCK = {
    BARE: BertModel,
    SEQUENCES: BertForSequenceClassification,
    TOKENS: BertForTokenClassification,
    ANSWERS: BertForQuestionAnswering,
    WORDS: BertForMaskedLM,
}
AUTO = {
    BARE: AutoModel,
    SEQUENCES: AutoModelForSequenceClassification,
    TOKENS: AutoModelForTokenClassification,
    ANSWERS: AutoModelForQuestionAnswering,
    WORDS: AutoModelForMaskedLM,
}
SIZES = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
LENGTHS = (11, 7)

kinds = pytest.mark.parametrize("kind", STOCK, ids=lambda kind: kind.__name__)


def randomised(model):
    """Random biases and norms too, so that no mix-up goes unseen; norms that keep tokens apart."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("LayerNorm.weight")
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


def free(kind, **more):
    """A model whose 5 heads of 6 are together wider than its 16 dimensions."""
    sizes = {**SIZES, "num_attention_heads": 5, "head_size": 6, "num_labels": 3, **more}
    return randomised(kind(FreeHeadBertConfig(**sizes)))


def pair_of(kind, **more):
    """transformers' model and ours, of heads that share the width, with the same weights."""
    labels = {} if kind is ANSWERS else {"num_labels": more.pop("num_labels", 3)}
    stock = randomised(STOCK[kind](BertConfig(**SIZES, **labels, **more)))
    own = kind(FreeHeadBertConfig(**SIZES, **labels, head_size=4, **more)).eval()
    state = stock.state_dict()
    if kind is WORDS:  # BERT has the same bias by two names, and "cls." before both
        del state["cls.predictions.bias"]
        state = {name.removeprefix("cls."): weight for name, weight in state.items()}
    own.load_state_dict(state)
    return stock, own


@pytest.fixture(scope="module")
def batch():
    """Two texts, the second one padded, of two segments each."""
    generator = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(1, 50, (2, 11), generator=generator)
    mask_BT = (torch.arange(11) < torch.tensor(LENGTHS)[:, None]).long()
    return {
        "input_ids": ids_BT * mask_BT,
        "attention_mask": mask_BT,
        "token_type_ids": (torch.arange(11)[None] > 4).long() * mask_BT,
    }


def labels_for(kind, mask_BT):
    classes_BT = torch.arange(22).reshape(2, 11) % 3
    ignored_BT = torch.where(mask_BT == 1, classes_BT, -100)
    return {
        BARE: {},
        SEQUENCES: {"labels": torch.tensor([2, 0])},
        TOKENS: {"labels": ignored_BT},
        ANSWERS: {"start_positions": torch.tensor([2, 40]), "end_positions": torch.tensor([3, 5])},
        WORDS: {"labels": ignored_BT},
    }[kind]


def assert_same(first, second):
    """Compares whole outputs, in which tuples may be nested."""
    if isinstance(first, torch.Tensor):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)
        return
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


@kinds
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
@torch.no_grad()
def test_heads_that_share_the_width_give_the_outputs_of_bert(kind, activation, batch):
    stock, own = pair_of(kind, hidden_act=activation, layer_norm_eps=1e-5, type_vocab_size=3)
    expected, found = stock(**batch), own(**batch)
    assert list(expected.keys()) == list(found.keys())
    assert_same(expected.to_tuple(), found.to_tuple())


@kinds
@torch.no_grad()
def test_without_a_mask_and_segments_outputs_are_those_of_bert(kind, batch):
    stock, own = pair_of(kind)
    ids = {"input_ids": batch["input_ids"]}
    assert_same(stock(**ids).to_tuple(), own(**ids).to_tuple())


@kinds
@torch.no_grad()
def test_everything_that_bert_gives_back_is_given_back(kind, batch):
    stock, own = pair_of(kind)
    stock.set_attn_implementation("eager")  # its other kernels give no attentions
    asked = {"output_hidden_states": True, "output_attentions": True}
    labels = labels_for(kind, batch["attention_mask"])
    expected, found = (model(**batch, **asked, **labels) for model in (stock, own))
    expected = {name: value for name, value in expected.items() if name != "cross_attentions"}
    assert list(expected) == list(found.keys())
    assert (len(found.hidden_states), len(found.attentions)) == (4, 3)
    assert_same(tuple(expected.values()), found.to_tuple())
    plain = own(**batch, **asked, **labels, return_dict=False)
    assert isinstance(plain, tuple)
    assert_same(tuple(expected.values()), plain)


@torch.no_grad()
def test_attention_may_be_a_function_that_is_registered(batch):
    """One of transformers' form: its mask is added, its context has heads behind tokens."""
    seen = []

    def attend(module, query, key, value, mask, *, scaling, dropout):
        seen.append((type(module).__name__, query.shape, mask is None, scaling, dropout))
        scores = torch.einsum("bhtk,bhsk->bhts", query, key) * scaling
        weights = (scores if mask is None else scores + mask).softmax(-1)
        return torch.einsum("bhts,bhsk->bthk", weights, value), weights

    AttentionInterface.register("of the test", attend)
    model = free(SEQUENCES)
    asked = {"output_hidden_states": True, "output_attentions": True}
    for given in (batch, {"input_ids": batch["input_ids"]}):
        model.set_attn_implementation("sdpa")
        expected = model(**given, **asked)
        model.set_attn_implementation("of the test")
        assert_same(expected.to_tuple(), model(**given, **asked).to_tuple())
    shape = (2, 5, 11, 6)
    assert seen == [("FreeHeadBertHeads", shape, none, 6**-0.5, 0.0) for none in (False, True)
                    for _ in range(3)]  # fmt: skip


@torch.no_grad()
def test_the_configuration_may_ask_for_states_too(batch):
    model = free(SEQUENCES, output_hidden_states=True)
    assert len(model(**batch).hidden_states) == 4
    assert model(**batch, output_hidden_states=False).hidden_states is None


@pytest.mark.parametrize(
    ("problem", "labels", "outputs"),
    [
        ("multi_label_classification", [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], 3),
        ("regression", [0.25, -3.0], 1),
        (None, [0.25, -3.0], 1),
    ],
)
@torch.no_grad()
def test_losses_of_label_sets_and_scores_are_those_of_bert(problem, labels, outputs, batch):
    stock, own = pair_of(SEQUENCES, num_labels=outputs, problem_type=problem)
    wanted = torch.tensor(labels)
    assert_same(stock(**batch, labels=wanted).loss, own(**batch, labels=wanted).loss)


@torch.no_grad()
def test_embeddings_may_be_given_instead_of_tokens(batch):
    model = free(BARE)
    embedded = {**batch, "inputs_embeds": model.get_input_embeddings()(batch["input_ids"])}
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(**embedded)
    del embedded["input_ids"]
    assert_same(model(**batch).to_tuple(), model(**embedded).to_tuple())
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(attention_mask=batch["attention_mask"])


@torch.no_grad()
def test_positions_may_be_given():
    model = free(BARE)
    ids_BT = torch.full((1, 5), 9)  # told apart by their positions alone
    usual = model(ids_BT).last_hidden_state
    same = model(ids_BT, position_ids=torch.arange(5)[None]).last_hidden_state
    turned = model(ids_BT, position_ids=torch.arange(4, -1, -1)[None]).last_hidden_state
    assert_same(usual, same)
    assert_same(usual.flip(1), turned)
    assert not torch.allclose(usual, turned, atol=1e-2)


@kinds
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("length", [8, 13, 24])
@torch.no_grad()
def test_padding_changes_nothing(kind, kernel, length):
    model = free(kind)
    model.set_attn_implementation(kernel)
    generator = torch.Generator().manual_seed(length)
    ids_BT = torch.randint(1, 50, (3, 7), generator=generator)
    padding_BT = torch.randint(0, 50, (3, length - 7), generator=generator)
    padded = model(
        input_ids=torch.cat([ids_BT, padding_BT], dim=1),
        attention_mask=torch.tensor([[1] * 7 + [0] * (length - 7)] * 3),
        token_type_ids=torch.cat([torch.zeros_like(ids_BT), padding_BT % 2], dim=1),
    )
    per_text = ("pooler_output",) if kind is not SEQUENCES else ("logits",)
    for name, expected in model(input_ids=ids_BT).items():
        found = padded[name] if name in per_text else padded[name][:, :7]
        assert_same(expected, found)


@kinds
@torch.no_grad()
def test_both_kernels_give_the_same_and_the_wanted_one_is_run(kind, batch, monkeypatch):
    model = free(kind)
    fast = model(**batch).to_tuple()
    attend, calls = functional.scaled_dot_product_attention, []

    def counted(*arguments, **keywords):
        calls.append(1)
        return attend(*arguments, **keywords)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", counted)
    model.set_attn_implementation("eager")
    assert_same(fast, model(**batch).to_tuple())
    assert not calls
    model.set_attn_implementation("sdpa")
    assert_same(fast, model(**batch).to_tuple())
    assert len(calls) == 3


@kinds
def test_choosing_a_kernel_warns_of_nothing(kind, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        for kernel in ("eager", "sdpa"):
            model = free(kind)
            model.set_attn_implementation(kernel)
            chosen = AUTO[kind].from_config(model.config, attn_implementation=kernel)
            for one in (model, chosen):
                assert one.config._attn_implementation == kernel
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records


@torch.no_grad()
def test_positions_may_begin_where_those_of_roberta_do(batch):
    own_sizes = {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
    stock = randomised(RobertaModel(RobertaConfig(**own_sizes)))
    own = BARE(FreeHeadBertConfig(**own_sizes, head_size=4, position_offset=2)).eval()
    own.load_state_dict(stock.state_dict())
    mask_BT = batch["attention_mask"]
    ids_BT = torch.where(mask_BT == 1, batch["input_ids"] + 2, 1).clamp(max=49)
    expected, found = (model(input_ids=ids_BT, attention_mask=mask_BT) for model in (stock, own))
    assert_same(expected.pooler_output, found.pooler_output)
    real_BT = mask_BT == 1
    assert_same(expected.last_hidden_state[real_BT], found.last_hidden_state[real_BT])
    # The longest text that RoBERTa reads is the longest that ours reads.
    ids_BT = torch.full((1, 22), 7)
    assert_same(stock(ids_BT).last_hidden_state, own(ids_BT).last_hidden_state)


@kinds
def test_there_is_no_buffer(kind):
    assert list(free(kind).named_buffers()) == []


def test_every_model_of_the_file_is_tested():
    models = {
        value
        for name, value in inspect.getmembers(code, inspect.isclass)
        if name.startswith("FreeHeadBert") and "forward" in vars(value)
        if issubclass(value, code.FreeHeadBertPreTrainedModel)
    }
    assert models == set(STOCK)


@kinds
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_a_gradient_reaches_every_parameter(kind, kernel, batch):
    model = free(kind).double()
    model.set_attn_implementation(kernel)
    generator = torch.Generator().manual_seed(5)
    outputs = model(**batch).to_tuple()
    sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("key.bias"):  # moves all scores of a query alike, which changes nothing
            assert parameter.grad is not None
        else:
            assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_attention_drops_out_while_training_alone(kernel, batch):
    model = free(BARE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    model.set_attn_implementation(kernel)

    def is_deterministic():
        with torch.no_grad():
            first, second = (model(**batch).last_hidden_state for _ in range(2))
            return torch.equal(first, second)

    assert is_deterministic()
    model.train()
    assert not is_deterministic()


def test_a_head_has_its_own_dropout_or_that_of_the_layers():
    assert free(SEQUENCES, hidden_dropout_prob=0.3).dropout.p == 0.3
    assert free(TOKENS, hidden_dropout_prob=0.3, classifier_dropout=0.0).dropout.p == 0.0


@torch.no_grad()
def test_a_tied_decoder_stays_tied(tmp_path, batch):
    model = free(WORDS)
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        stored = [name for name in file.keys() if "dense" not in name]  # noqa: SIM118  no mapping
    assert "predictions.decoder.bias" in stored
    assert "predictions.decoder.weight" not in stored
    again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    words = again.bert.embeddings.word_embeddings.weight
    assert again.predictions.decoder.weight is words
    assert_same(expected, again(**batch).logits)
    words.add_(1.0)
    assert not torch.allclose(expected, again(**batch).logits, atol=1e-2)


@torch.no_grad()
def test_a_vocabulary_that_grows_stays_tied():
    model = free(WORDS)
    model.resize_token_embeddings(60, mean_resizing=False)
    assert model.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model(torch.tensor([[55, 1]])).logits.shape == (1, 2, 60)


def test_configurations_come_back_as_they_were(tmp_path):
    given = {
        "vocab_size": 51,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 7,
        "head_size": 5,
        "intermediate_size": 33,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.3,
        "max_position_embeddings": 31,
        "type_vocab_size": 3,
        "initializer_range": 0.05,
        "layer_norm_eps": 1e-6,
        "pad_token_id": 4,
        "classifier_dropout": 0.4,
        "position_offset": 5,
        "tie_word_embeddings": False,
        "problem_type": "regression",
        "id2label": {0: "score"},
    }
    assert given.keys() > {
        name
        for name in inspect.signature(FreeHeadBertConfig).parameters
        if name not in ("self", "kwargs", "args")
    }
    config = FreeHeadBertConfig(**given)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is FreeHeadBertConfig
    for name, value in given.items():
        assert getattr(again, name) == getattr(config, name) == value, name
    assert FreeHeadBertConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@kinds
@torch.no_grad()
def test_models_come_back_as_they_were(kind, tmp_path, batch):
    model = free(kind)
    model.save_pretrained(tmp_path)
    again = AUTO[kind].from_pretrained(tmp_path).eval()
    assert type(again) is kind
    assert_same(model(**batch).to_tuple(), again(**batch).to_tuple())


@torch.no_grad()
def test_half_precision_is_near(batch):
    model = free(SEQUENCES)
    expected = model(**batch).logits
    model.to(torch.bfloat16)
    for kernel in ("eager", "sdpa"):
        model.set_attn_implementation(kernel)
        torch.testing.assert_close(model(**batch).logits.float(), expected, atol=0.1, rtol=0.1)


FREE = BertArchitecture(layers=2, hidden_size=8, heads=3, head_size=4, ffn_size=20)


@pytest.mark.parametrize("family", ["bert", "roberta", "camembert", "xlm-roberta"])
def test_students_of_free_heads_are_as_large_as_counted(tiny_config, family):
    teacher = tiny_config(family, labels=5, vocab_size=37)
    config = student_config(FREE, teacher, dropout=0.25)
    student = build_student(config, seed=0)
    assert type(student) is SEQUENCES
    assert architecture_of(config) == FREE
    assert ends_of(config) == ends_of(teacher)
    assert config.id2label == {index: f"label {index}" for index in range(5)}
    assert config.position_offset == (0 if family == "bert" else teacher.pad_token_id + 1)
    assert {config.hidden_dropout_prob, config.attention_probs_dropout_prob} == {0.25}
    counted = count_parameters(FREE, ends_of(teacher)).total
    assert sum(weight.numel() for weight in student.parameters()) == counted


def test_students_of_a_teacher_of_free_heads_stay_in_the_family(tiny_config):
    teacher = student_config(FREE, tiny_config("roberta"))
    shared = BertArchitecture(layers=1, hidden_size=8, heads=2, ffn_size=12)
    config = student_config(shared, teacher)
    assert (type(config), config.position_offset) == (FreeHeadBertConfig, teacher.position_offset)
    assert architecture_of(config) == shared


@pytest.mark.parametrize("family", ["distilbert", "electra", "factored electra"])
def test_other_families_have_no_students_of_free_heads(tiny_config, family):
    teacher = tiny_config(family)
    with pytest.raises(TeacherError, match="cannot have 3 heads of 4 at a width of 8"):
        student_config(FREE, teacher)
