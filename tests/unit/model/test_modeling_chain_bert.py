"""Chains beside transformers' BERT and beside plain arithmetic with the same weights.

Letters in names: B batch, T tokens, D hidden.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import (
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

import stillhouse.model.own_families  # noqa: F401  registers them
from stillhouse.model import modeling_chain_bert as code
from stillhouse.model.modeling_chain_bert import OPERATIONS, ChainBertConfig, ChainOperation

BARE = code.ChainBertModel
SEQUENCES = code.ChainBertForSequenceClassification
TOKENS = code.ChainBertForTokenClassification
ANSWERS = code.ChainBertForQuestionAnswering
WORDS = code.ChainBertForMaskedLM
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
SIZES = {"vocab_size": 50, "max_position_embeddings": 24, "head_size": 4}
MIXED = [
    {"hidden_size": 16, "operations": ["S3", "M", "F"]},
    {"hidden_size": 8, "operations": ["S7", "M"]},
    {"hidden_size": 8, "operations": ["S5"]},
]
LENGTHS = (11, 7)

kinds = pytest.mark.parametrize("kind", STOCK, ids=lambda kind: kind.__name__)
operations = pytest.mark.parametrize("operation", OPERATIONS)


def randomised(model):
    """Random biases and norms too, so that no mix-up goes unseen; norms that keep tokens apart."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            is_scale = name.endswith("LayerNorm.weight")
            weight.normal_(mean=float(is_scale), std=0.3, generator=generator)
    return model.eval()


def chain(kind, **more):
    """A model of every operation at two widths, neither of them that of the embeddings."""
    given = {**SIZES, "embedding_size": 12, "blocks": MIXED, "num_labels": 3, **more}
    return randomised(kind(ChainBertConfig(**given)))


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


def assert_same(first, second):
    """Compares whole outputs, in which tuples may be nested."""
    if isinstance(first, torch.Tensor):
        scale = first.abs().max().item()
        torch.testing.assert_close(first, second, atol=1e-5 * scale, rtol=1e-5)
        return
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


# A chain of attention and feed-forward in turn is BERT.

NAMES = {
    "attention.self.query": (0, "inner.query"),
    "attention.self.key": (0, "inner.key"),
    "attention.self.value": (0, "inner.value"),
    "attention.output.dense": (0, "inner.output"),
    "attention.output.LayerNorm": (0, "LayerNorm"),
    "intermediate.dense": (1, "inner.intermediate"),
    "output.dense": (1, "inner.output"),
    "output.LayerNorm": (1, "LayerNorm"),
}


def of_chain(name):
    """The name that a weight of BERT's two layers has in a chain of M F M F in two blocks."""
    before, found, rest = name.partition("encoder.layer.")
    if not found:
        return name.removeprefix("cls.")
    layer, _, part = rest.partition(".")
    place, own = NAMES[part.rpartition(".")[0]]
    return f"{before}encoder.block.{layer}.operation.{place}.{own}.{part.rpartition('.')[2]}"


def pair_of(kind, **more):
    """transformers' BERT of 2 layers and the chain that is the same, with the same weights."""
    labels = {} if kind is ANSWERS else {"num_labels": more.pop("num_labels", 3)}
    sizes = {"vocab_size": 50, "max_position_embeddings": 24, **labels, **more}
    stock = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32, **sizes
    )
    own = ChainBertConfig(
        embedding_size=16,
        blocks=[{"hidden_size": 16, "operations": ["M", "F"]}] * 2,
        head_size=4,
        ffn_ratio=2,
        **sizes,
    )
    models = randomised(STOCK[kind](stock)), kind(own).eval()
    state = models[0].state_dict()
    state.pop("cls.predictions.bias", None)  # the decoder's once more
    models[1].load_state_dict({of_chain(name): weight for name, weight in state.items()})
    return models


@kinds
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
@torch.no_grad()
def test_attention_and_feed_forward_in_turn_are_bert(kind, activation, batch):
    stock, own = pair_of(kind, hidden_act=activation, layer_norm_eps=1e-5, type_vocab_size=3)
    for inputs in (batch, {"input_ids": batch["input_ids"]}):
        expected, found = stock(**inputs), own(**inputs)
        assert list(expected.keys()) == list(found.keys())
        assert_same(expected.to_tuple(), found.to_tuple())


@kinds
@torch.no_grad()
def test_losses_are_those_of_bert(kind, batch):
    classes_BT = torch.arange(22).reshape(2, 11) % 3
    ignored_BT = torch.where(batch["attention_mask"] == 1, classes_BT, -100)
    starts, ends = torch.tensor([2, 40]), torch.tensor([3, 5])
    labels = {
        BARE: {},
        SEQUENCES: {"labels": torch.tensor([2, 0])},
        TOKENS: {"labels": ignored_BT},
        ANSWERS: {"start_positions": starts, "end_positions": ends},
        WORDS: {"labels": ignored_BT},
    }[kind]
    stock, own = pair_of(kind)
    expected, found = stock(**batch, **labels), own(**batch, **labels)
    assert list(expected.keys()) == list(found.keys())
    assert_same(expected.to_tuple(), found.to_tuple())
    plain = own(**batch, **labels, return_dict=False)
    assert isinstance(plain, tuple)
    assert_same(expected.to_tuple(), plain)


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
    given = torch.tensor(labels)
    assert_same(stock(**batch, labels=given).loss, own(**batch, labels=given).loss)


@torch.no_grad()
def test_positions_may_begin_where_those_of_roberta_do(batch):
    shared = {"vocab_size": 50, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
    stock = randomised(
        RobertaModel(
            RobertaConfig(
                hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=32,
                max_position_embeddings=26, **shared,
            )
        )
    )  # fmt: skip
    own = BARE(
        ChainBertConfig(
            embedding_size=16, blocks=[{"hidden_size": 16, "operations": ["M", "F"]}], head_size=4,
            ffn_ratio=2, max_position_embeddings=26, position_offset=2, **shared,
        )
    ).eval()  # fmt: skip
    own.load_state_dict({of_chain(name): weight for name, weight in stock.state_dict().items()})
    mask_BT = batch["attention_mask"]
    ids_BT = torch.where(mask_BT == 1, batch["input_ids"] + 2, 1).clamp(max=49)
    expected, found = (model(input_ids=ids_BT, attention_mask=mask_BT) for model in (stock, own))
    assert_same(expected.pooler_output, found.pooler_output)
    # The longest text that RoBERTa reads is the longest that ours reads.
    ids_BT = torch.full((1, 24), 7)
    assert_same(stock(ids_BT).last_hidden_state, own(ids_BT).last_hidden_state)


# Separable convolutions, and what all operations have in common.


def operation_of(name, width=8, **more):
    return randomised(ChainOperation(name, width, ChainBertConfig(head_size=4, **more)))


def normed(states_TD, weight, bias):
    centred = states_TD - states_TD.mean(axis=1, keepdims=True)
    return centred / np.sqrt(states_TD.var(axis=1, keepdims=True) + 1e-12) * weight + bias


def convolved(states_TD, weights, name, kernel, real_T):
    """ReLU, then for each token the sum over its neighbours that are tokens, then features."""
    tokens = len(states_TD)
    depthwise = weights[f"inner.{name}.depthwise.weight"]
    summed_TD = np.zeros_like(states_TD)
    for token in range(tokens):
        for place in range(kernel):
            other = token + place - (kernel - 1) // 2
            if 0 <= other < tokens and real_T[other]:
                summed_TD[token] += depthwise[:, 0, place] * states_TD[other].clip(min=0)
    mixing = weights[f"inner.{name}.pointwise.weight"]
    return np.stack([mixing @ row for row in summed_TD]) + weights[f"inner.{name}.pointwise.bias"]


@pytest.mark.parametrize(("name", "kernel"), [("S3", 3), ("S5", 5), ("S7", 7)])
@pytest.mark.parametrize("length", [1, 2, 9])
@torch.no_grad()
def test_a_separable_convolution_by_hand(name, kernel, length):
    operation = operation_of(name).double()
    weights = {key: value.numpy() for key, value in operation.state_dict().items()}
    assert weights["inner.first.depthwise.weight"].shape == (8, 1, kernel)
    generator = np.random.default_rng(kernel)
    hidden_BTD = generator.standard_normal((2, length, 8))
    mask_BT = np.array([[1] * length, [1] * math.ceil(length / 2) + [0] * (length // 2)])
    found = operation(torch.from_numpy(hidden_BTD), torch.from_numpy(mask_BT)).numpy()
    for states_TD, real_T, result_TD in zip(hidden_BTD, mask_BT, found, strict=True):
        half = convolved(states_TD, weights, "first", kernel, real_T)
        half = normed(half, weights["inner.LayerNorm.weight"], weights["inner.LayerNorm.bias"])
        whole = states_TD + convolved(half, weights, "second", kernel, real_T)
        expected = normed(whole, weights["LayerNorm.weight"], weights["LayerNorm.bias"])
        assert np.abs(expected - result_TD).max() <= 1e-10 * np.abs(expected).max()


@operations
@pytest.mark.parametrize("kind", [torch.bool, torch.long])
@torch.no_grad()
def test_padding_changes_no_token(operation, kind):
    one = operation_of(operation, 16)
    generator = torch.Generator().manual_seed(3)
    hidden_BTD = torch.randn(3, 7, 16, generator=generator)
    padded_BTD = torch.cat([hidden_BTD, 9 * torch.randn(3, 6, 16, generator=generator)], dim=1)
    mask_BT = (torch.arange(13) < 7).to(kind).expand(3, -1)
    expected = one(hidden_BTD)
    assert_same(expected, one(padded_BTD, mask_BT)[:, :7])
    assert_same(expected, one(hidden_BTD, mask_BT[:, :7]))
    if operation != "F":  # padding would be seen
        assert not torch.allclose(expected, one(padded_BTD)[:, :7], atol=1e-2)


@operations
def test_no_gradient_leads_from_tokens_to_padding(operation):
    one = operation_of(operation, 16)
    hidden_BTD = torch.randn(2, 10, 16, generator=torch.Generator().manual_seed(3))
    hidden_BTD.requires_grad_()
    one(hidden_BTD, (torch.arange(10) < 6).expand(2, -1))[:, :6].pow(2).sum().backward()
    assert torch.equal(hidden_BTD.grad[:, 6:], torch.zeros(2, 4, 16))
    assert hidden_BTD.grad[:, :6].abs().amax(dim=-1).min() > 0


@operations
def test_an_operation_drops_out_while_training_alone(operation):
    one = operation_of(operation, hidden_dropout_prob=0.5)
    hidden_BTD = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert torch.equal(one(hidden_BTD), one(hidden_BTD))
        one.train()
        assert not torch.equal(one(hidden_BTD), one(hidden_BTD))


def test_attention_has_a_dropout_of_its_own_which_may_be_set_later():
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    one = operation_of("M", **config).train()
    hidden_BTD = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert not torch.equal(one(hidden_BTD), one(hidden_BTD))
        for module in one.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        assert torch.equal(one(hidden_BTD), one(hidden_BTD))


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        ([], "at least one block"),
        ([{"hidden_size": 8, "operations": []}], r"one or more of M, F, S3, S5, S7, got \[\]"),
        ([{"hidden_size": 8, "operations": ["M", "S4"]}], "S4"),
        ([{"hidden_size": 10, "operations": ["F", "M"]}], "multiple of the head size 4, got 10"),
    ],
)
def test_what_no_model_can_be_built_of_is_refused(blocks, told):
    with pytest.raises(ValueError, match=told):
        ChainBertConfig(head_size=4, blocks=blocks)


@pytest.mark.parametrize(
    ("operation", "width", "told"), [("S4", 8, "S4"), ("M", 10, "head size 4, got 10")]
)
def test_an_operation_that_cannot_be_is_refused(operation, width, told):
    with pytest.raises(ValueError, match=told):
        ChainOperation(operation, width, ChainBertConfig(head_size=4))


def test_a_width_without_attention_need_not_be_a_multiple_of_the_head_size(batch):
    model = chain(BARE, blocks=[{"hidden_size": 10, "operations": ["F", "S3"]}])
    with torch.no_grad():
        assert model(**batch).last_hidden_state.shape == (2, 11, 10)


# Whole models.


def test_bridges_are_there_only_where_widths_differ():
    def bridges(embedding_size, *widths):
        blocks = [{"hidden_size": width, "operations": ["F"]} for width in widths]
        model = chain(BARE, embedding_size=embedding_size, blocks=blocks)
        linears = [block.bridge for block in model.encoder.block]
        return [one and (one.in_features, one.out_features) for one in linears]

    assert bridges(12, 16, 8, 8) == [(12, 16), (16, 8), None]
    assert bridges(8, 8, 8, 12) == [None, None, (8, 12)]


@kinds
@pytest.mark.parametrize("length", [8, 13, 24])
@torch.no_grad()
def test_padding_changes_nothing(kind, length):
    model = chain(kind)
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


@torch.no_grad()
def test_hidden_states_are_those_after_every_operation(batch):
    model = chain(SEQUENCES)
    states = model(**batch, output_hidden_states=True).hidden_states
    assert [state.shape[-1] for state in states] == [12, 16, 16, 16, 8, 8, 8]
    assert model.config.num_hidden_layers == len(states) - 1
    assert_same(model.bert(**batch).last_hidden_state, states[-1])
    mask_BT = batch["attention_mask"]
    first, second, _ = model.bert.encoder.block
    assert_same(states[1], first.operation[0](first.bridge(states[0]), mask_BT))
    assert_same(states[2], first.operation[1](states[1], mask_BT))
    assert_same(states[4], second.operation[0](second.bridge(states[3]), mask_BT))
    assert model(**batch).hidden_states is None
    model.config.output_hidden_states = True
    assert len(model(**batch).hidden_states) == 7


@torch.no_grad()
def test_embeddings_and_positions_may_be_given(batch):
    model = chain(BARE)
    ids_BT, mask_BT = batch["input_ids"], batch["attention_mask"]
    usual = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
    given = {
        "inputs_embeds": model.get_input_embeddings()(ids_BT),
        "attention_mask": mask_BT,
        "position_ids": torch.arange(11)[None],
    }
    assert_same(usual, model(**given).last_hidden_state)
    given["position_ids"] = torch.arange(10, -1, -1)[None]
    assert not torch.allclose(usual, model(**given).last_hidden_state, atol=1e-2)
    for wrong in ({}, {**given, "input_ids": ids_BT}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**wrong)


@torch.no_grad()
def test_a_chain_may_know_no_segments(batch):
    model = chain(BARE, type_vocab_size=0)
    assert not [name for name in model.state_dict() if "token_type" in name]
    expected = model(input_ids=batch["input_ids"]).last_hidden_state
    named = model(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
    assert_same(expected, named.last_hidden_state)


@kinds
def test_there_is_no_buffer_and_no_class_that_promises_transformers_attention(kind):
    model = chain(kind)
    assert list(model.named_buffers()) == []
    assert not [type(one) for one in model.modules() if "Attention" in type(one).__name__]


def test_every_model_of_the_file_is_tested():
    models = {
        value
        for name, value in inspect.getmembers(code, inspect.isclass)
        if name.startswith("ChainBert") and "forward" in vars(value)
        if issubclass(value, code.ChainBertPreTrainedModel)
    }
    assert models == set(STOCK)


@kinds
def test_a_gradient_reaches_every_parameter(kind, batch):
    model = chain(kind).double()
    generator = torch.Generator().manual_seed(5)
    outputs = model(**batch).to_tuple()
    sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("key.bias"):  # moves all scores of a query alike, which changes nothing
            assert parameter.grad is not None
        else:
            assert parameter.grad.abs().max() > 1e-9, name


def test_fresh_convolutions_keep_the_size_of_what_they_add():
    blocks = [{"hidden_size": 512, "operations": ["S3", "S7", "F"]}]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BARE(ChainBertConfig(embedding_size=8, blocks=blocks, vocab_size=50))
    [block] = model.encoder.block
    for operation, kernel in zip(block.operation, (3, 7), strict=False):
        weight = operation.inner.first.depthwise.weight
        assert weight.std().item() == pytest.approx(1 / math.sqrt(kernel), rel=0.1)
        assert operation.inner.second.pointwise.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert operation.inner.second.pointwise.bias.abs().max() == 0
    assert block.operation[2].inner.output.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_a_head_has_its_own_dropout_or_that_of_the_layers():
    assert chain(SEQUENCES, hidden_dropout_prob=0.3).dropout.p == 0.3
    assert chain(TOKENS, hidden_dropout_prob=0.3, classifier_dropout=0.0).dropout.p == 0.0


@torch.no_grad()
def test_a_tied_decoder_stays_tied(tmp_path, batch):
    model = chain(WORDS)
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
    assert "predictions.decoder.bias" in stored
    assert "predictions.decoder.weight" not in stored
    again = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    words = again.bert.embeddings.word_embeddings.weight
    assert again.predictions.decoder.weight is words
    assert_same(expected, again(**batch).logits)
    again.resize_token_embeddings(60, mean_resizing=False)
    assert again.predictions.decoder.weight is again.bert.embeddings.word_embeddings.weight
    assert again(torch.tensor([[55, 1]])).logits.shape == (1, 2, 60)


def test_configurations_come_back_as_they_were(tmp_path):
    given = {
        "vocab_size": 51,
        "embedding_size": 24,
        "blocks": [
            {"hidden_size": 10, "operations": ["M", "S7"]},
            {"hidden_size": 20, "operations": ["F"]},
        ],
        "head_size": 5,
        "ffn_ratio": 3,
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
        for name in inspect.signature(ChainBertConfig).parameters
        if name not in ("self", "kwargs", "args")
    }
    config = ChainBertConfig(**given)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is ChainBertConfig
    for name, value in given.items():
        assert getattr(again, name) == getattr(config, name) == value, name
    assert (again.hidden_size, again.num_hidden_layers) == (20, 3)
    assert ChainBertConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@kinds
@torch.no_grad()
def test_models_come_back_as_they_were(kind, tmp_path, batch):
    model = chain(kind)
    model.save_pretrained(tmp_path)
    again = AUTO[kind].from_pretrained(tmp_path).eval()
    assert type(again) is kind
    assert_same(model(**batch).to_tuple(), again(**batch).to_tuple())


@torch.no_grad()
def test_half_precision_is_near(batch):
    model = chain(SEQUENCES)
    expected = model(**batch).logits
    found = model.to(torch.bfloat16)(**batch).logits.float()
    torch.testing.assert_close(found, expected, atol=0.1 * expected.abs().max().item(), rtol=0)
