"""Parameter and FLOP counts against published figures, transformers' own models and torch."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import count_encoder_parameters, count_flops, count_parameters

ENGLISH = {"vocab_size": 30522, "positions": 512, "type_vocabulary": 2}


def bert(layers, hidden_size, heads, ffn_size):
    return BertArchitecture(layers=layers, hidden_size=hidden_size, heads=heads, ffn_size=ffn_size)


def test_bert_base_by_part():
    count = count_parameters(bert(12, 768, 12, 3072), labels=2, **ENGLISH)
    assert count.embeddings == 23_837_184
    assert count.encoder == 85_054_464
    assert count.head == 592_130
    assert count.total == 109_483_778


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
    count = count_parameters(architecture, labels=2, **ENGLISH)
    assert count.total / 1e6 == pytest.approx(millions, rel=0.015)


def small_models():
    return [
        (bert(1, 8, 2, 20), 2),
        (bert(3, 24, 3, 8), 1),
        (bert(2, 32, 4, 128), 7),
    ]


def build(architecture, labels):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=101,
            max_position_embeddings=40,
            type_vocab_size=3,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.ffn_size,
            num_labels=labels,
            attn_implementation="eager",
        )
    ).eval()


@pytest.mark.parametrize(("architecture", "labels"), small_models())
def test_parameters_equal_the_model_of_transformers(architecture, labels):
    model = build(architecture, labels)
    count = count_parameters(
        architecture, vocab_size=101, positions=40, type_vocabulary=3, labels=labels
    )

    def total(module):
        return sum(weight.numel() for weight in module.parameters())

    assert count.embeddings == total(model.bert.embeddings)
    assert count.encoder == total(model.bert.encoder)
    assert count.head == total(model.bert.pooler) + total(model.classifier)
    assert count.total == total(model)
    assert count_encoder_parameters(architecture) == count.encoder


@pytest.mark.parametrize(("architecture", "labels"), small_models())
@pytest.mark.parametrize("length", [1, 13])
def test_flops_equal_the_counter_of_torch(architecture, labels, length):
    model = build(architecture, labels)
    tokens = torch.ones(1, length, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=tokens, attention_mask=tokens)
    assert count_flops(architecture, length=length, labels=labels) == counter.get_total_flops()


def test_flops_of_bert_base_by_hand():
    # Per layer at 128 tokens: 12 H² weights per token, and 2·T·H for scores and context;
    # 2·(128·12·768² + 2·128²·768) = 1,862,270,976.
    flops = count_flops(bert(12, 768, 12, 3072), length=128, labels=2)
    assert flops == 12 * 1_862_270_976 + 2 * (589_824 + 1_536)
