"""Parameter and FLOP counts against published figures, transformers' own models and torch."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from stillhouse.model.anatomy import ends_of
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import Ends, count_encoder_parameters, count_flops, count_parameters

ENGLISH = Ends(vocab_size=30522, positions=512, token_types=2, labels=2)


def bert(layers, hidden_size, heads, ffn_size):
    return BertArchitecture(layers=layers, hidden_size=hidden_size, heads=heads, ffn_size=ffn_size)


def test_bert_base_by_part():
    count = count_parameters(bert(12, 768, 12, 3072), ENGLISH)
    assert count.embeddings == 23_837_184
    assert count.encoder == 85_054_464
    assert count.head == 592_130
    assert count.total == 109_483_778


@pytest.mark.parametrize(
    ("architecture", "ends", "parameters"),
    [
        # The numbers in the published checkpoint's encoder, and D² + D and 2 (D + 1) in a head.
        # Liu et al. 2019, RoBERTa base, without the pooler.
        (
            bert(12, 768, 12, 3072),
            Ends(vocab_size=50265, positions=514, token_types=1, labels=2),
            124_055_040 + 768 * 769 + 2 * 769,
        ),
        # Sanh et al. 2019, DistilBERT base.
        (
            bert(6, 768, 12, 3072),
            Ends(vocab_size=30522, positions=512, token_types=0, labels=2),
            66_362_880 + 768 * 769 + 2 * 769,
        ),
        # Clark et al. 2020, ELECTRA small, discriminator.
        (
            bert(12, 256, 4, 1024),
            Ends(vocab_size=30522, positions=512, token_types=2, labels=2, factored_size=128),
            13_483_008 + 256 * 257 + 2 * 257,
        ),
    ],
)
def test_published_checkpoints_of_other_families(architecture, ends, parameters):
    assert count_parameters(architecture, ends).total == parameters


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        # Jiao et al. 2020, TinyBERT: 4 and 6 layers.
        (bert(4, 312, 12, 1200), 14.5),
        (bert(6, 768, 12, 3072), 67.0),
        # Devlin et al. 2019: base and large, pre-training head included.
        (bert(12, 768, 12, 3072), 110),
        (bert(24, 1024, 16, 4096), 340),
    ],
)
def test_published_sizes(architecture, millions):
    count = count_parameters(architecture, ENGLISH)
    assert count.total / 1e6 == pytest.approx(millions, rel=0.015)


def small_models():
    return [
        (bert(1, 8, 2, 20), 2),
        (bert(3, 24, 3, 8), 1),
        (bert(2, 32, 4, 128), 7),
    ]


@pytest.fixture
def build(tiny_config, family):
    def make(architecture, labels):
        config = tiny_config(
            family,
            vocab_size=101,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.ffn_size,
            labels=labels,
        )
        return AutoModelForSequenceClassification.from_config(
            config, attn_implementation="eager"
        ).eval()

    return make


def total(*modules):
    return sum(weight.numel() for module in modules for weight in module.parameters())


@pytest.mark.parametrize(("architecture", "labels"), small_models())
def test_parameters_equal_the_model_of_transformers(build, architecture, labels):
    model = build(architecture, labels)
    count = count_parameters(architecture, ends_of(model.config))
    base = model.base_model
    layers = base.transformer if model.config.model_type == "distilbert" else base.encoder
    tables = [
        getattr(base, name) for name in ("embeddings", "embeddings_project") if hasattr(base, name)
    ]
    assert count.embeddings == total(*tables)
    assert count.encoder == total(layers)
    assert count.head == total(model) - total(*tables, layers)
    assert count.total == total(model)
    assert count_encoder_parameters(architecture) == count.encoder


@pytest.mark.parametrize(("architecture", "labels"), small_models())
@pytest.mark.parametrize("length", [1, 13])
def test_flops_equal_the_counter_of_torch(build, architecture, labels, length):
    model = build(architecture, labels)
    tokens = torch.full((1, length), 5)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    counted = count_flops(architecture, ends_of(model.config), length=length)
    assert counted == counter.get_total_flops()


def free_heads(layers, hidden_size, heads, head_size, ffn_size):
    return BertArchitecture(
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        head_size=head_size,
        ffn_size=ffn_size,
    )


FREE_HEADS = [free_heads(2, 16, 3, 8, 24), free_heads(1, 24, 5, 2, 40), free_heads(3, 8, 1, 32, 7)]


def free_layer(hidden_size, heads, head_size, ffn_size):
    width = heads * head_size
    return nn.ModuleDict(
        {
            "query": nn.Linear(hidden_size, width),
            "key": nn.Linear(hidden_size, width),
            "value": nn.Linear(hidden_size, width),
            "output": nn.Linear(width, hidden_size),
            "attention_norm": nn.LayerNorm(hidden_size),
            "ffn_input": nn.Linear(hidden_size, ffn_size),
            "ffn_output": nn.Linear(ffn_size, hidden_size),
            "ffn_norm": nn.LayerNorm(hidden_size),
        }
    )


def run_free_layer(layer, hidden_TD, heads):
    query_HTK, key_HTK, value_HTK = (
        layer[name](hidden_TD).unflatten(-1, (heads, -1)).transpose(0, 1)
        for name in ("query", "key", "value")
    )
    context_HTK = (query_HTK @ key_HTK.transpose(1, 2)).softmax(-1) @ value_HTK
    hidden_TD = layer["attention_norm"](
        hidden_TD + layer["output"](context_HTK.transpose(0, 1).flatten(1))
    )
    inner_TF = torch.relu(layer["ffn_input"](hidden_TD))
    return layer["ffn_norm"](hidden_TD + layer["ffn_output"](inner_TF))


@pytest.mark.parametrize("architecture", FREE_HEADS)
def test_free_heads_are_counted_as_torch_counts_them(architecture):
    a, length = architecture, 13
    layers = [free_layer(a.hidden_size, a.heads, a.head_size, a.ffn_size) for _ in range(a.layers)]
    tables = [nn.Embedding(rows, a.hidden_size) for rows in (101, 40, 2)]
    norm = nn.LayerNorm(a.hidden_size)
    pooler, outputs = nn.Linear(a.hidden_size, a.hidden_size), nn.Linear(a.hidden_size, 3)
    ends = Ends(vocab_size=101, positions=40, token_types=2, labels=3)

    count = count_parameters(a, ends)
    assert count.encoder == count_encoder_parameters(a) == total(*layers)
    assert count.total == total(*layers, *tables, norm, pooler, outputs)

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        hidden_TD = norm(sum(table(torch.ones(length, dtype=torch.long)) for table in tables))
        for layer in layers:
            hidden_TD = run_free_layer(layer, hidden_TD, a.heads)
        outputs(torch.tanh(pooler(hidden_TD[:1])))
    assert count_flops(a, ends, length=length) == counter.get_total_flops()


def test_embeddings_as_wide_as_the_layers_need_no_projection():
    """Factored ones of 8 beside layers of 8 are the plain ones."""
    plain = Ends(vocab_size=101, positions=40, token_types=2, labels=2)
    factored = Ends(vocab_size=101, positions=40, token_types=2, labels=2, factored_size=8)
    for count in (count_parameters, lambda one, ends: count_flops(one, ends, length=9)):
        assert count(bert(1, 8, 2, 20), factored) == count(bert(1, 8, 2, 20), plain)
        assert count(bert(1, 16, 2, 20), factored) != count(bert(1, 16, 2, 20), plain)


def test_flops_of_bert_base_by_hand():
    # Per layer at 128 tokens: 12 H² weights per token, and 2·T·H for scores and context;
    # 2·(128·12·768² + 2·128²·768) = 1,862,270,976.
    flops = count_flops(bert(12, 768, 12, 3072), ENGLISH, length=128)
    assert flops == 12 * 1_862_270_976 + 2 * (589_824 + 1_536)
