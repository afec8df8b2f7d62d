"""Models of a few thousand weights, and small sets of examples of an easy task."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
)

from stillhouse.data.encoding import EncodedSet
from stillhouse.distill.teacher import LiveTeacher


def build_bert(*, seed=0, layers=2, hidden=16, labels=2, dropout=0.0, **more):
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        vocab_size=50,
        max_position_embeddings=24,
        num_labels=labels,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **more,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config).eval()


def build_set(count=64, *, seed=0, longest=12, tokens=range(1, 50), scores=False):
    """Examples of 1 to `longest` tokens; the class says whether the first token is odd."""
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(1, longest + 1, count))])
    ids = generator.choice(np.asarray(tokens), offsets[-1]).astype(np.int32)
    odd = ids[offsets[:-1]] % 2
    return EncodedSet(
        input_ids=ids,
        token_type_ids=generator.integers(0, 2, offsets[-1]).astype(np.int8),
        offsets=offsets,
        labels=odd.astype(np.float32) if scores else odd.astype(np.int64),
    )


@pytest.fixture(scope="session")
def make_bert():
    return build_bert


@pytest.fixture
def make_model(tiny_config, family):
    """Makes a classifier of the family under test: two layers, two labels."""

    def make(*, seed=0, **sizes):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = tiny_config(family, **{"labels": 2, **sizes})
            return AutoModelForSequenceClassification.from_config(config).eval()

    return make


@pytest.fixture(scope="session")
def make_set():
    return build_set


@pytest.fixture(scope="session")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture(scope="session")
def live_teacher():
    """A teacher of four layers that has much to say, asked at every step."""
    model = build_bert(seed=5, layers=4, hidden=24)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4, generator=generator)
    return LiveTeacher(model, frozenset({1, 3}), "float32")
