"""Models of a few thousand weights, and a clock that does not count the machine's moods."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from stillhouse.space.architecture import BertArchitecture


def describe(layers=1, hidden_size=16):
    return BertArchitecture(
        layers=layers, hidden_size=hidden_size, heads=2, ffn_size=2 * hidden_size
    )


def build_bert(architecture, *, positions=24):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=50,
            max_position_embeddings=positions,
            num_hidden_layers=architecture.layers,
            hidden_size=architecture.hidden_size,
            num_attention_heads=architecture.heads,
            intermediate_size=architecture.ffn_size,
        )
    )


@pytest.fixture(scope="session")
def make_bert():
    return build_bert


@pytest.fixture(scope="session")
def shape():
    return describe


@pytest.fixture(scope="session")
def cpu():
    return torch.device("cpu")
