"""Models of a few thousand weights, and small sets of examples of easy tasks."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from stillhouse.data.encoding import EncodedSet
from stillhouse.distill.teacher import LiveTeacher


def build_bert(
    *,
    head=BertForSequenceClassification,
    seed=0,
    layers=2,
    hidden=16,
    labels=2,
    dropout=0.0,
    **more,
):
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
        return head(config).eval()


def build_tagged_set(count=64, *, seed=0, tokens=range(3, 50)):
    """Examples of 3 to 12 tokens; a word's tag is its number modulo 3.

    None is asked of the first token and of the last, and every seventh is unknown.
    """
    generator = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(3, 13, count))])
    ids = generator.choice(np.asarray(tokens), offsets[-1]).astype(np.int32)
    tags = (ids % 3).astype(np.int64)
    tags[::7] = -1
    tags[offsets[:-1]] = tags[offsets[1:] - 1] = -100
    return EncodedSet(
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], dtype=np.int8),
        offsets=offsets,
        tags=tags,
        tag_names=("zero", "one", "two"),
    )


FIRST, LAST = 48, 49
"""Words that begin and end the answers of `build_span_set`."""


def build_span_set(count=64, *, seed=0, tokens=range(3, 48)):
    """Examples of 3 to 12 tokens; the answer goes from word 48 to word 49.

    Every fourth example holds none, and of every tenth nobody knows.
    """
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, 13, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = generator.choice(np.asarray(tokens), offsets[-1]).astype(np.int32)
    places = np.zeros((count, 2), dtype=np.int64)
    for example, (start, length) in enumerate(zip(offsets[:-1], lengths, strict=True)):
        if example % 4:
            places[example] = np.sort(generator.choice(np.arange(1, length), 2, replace=False))
            ids[start + places[example]] = FIRST, LAST
    places[::10] = -100
    return EncodedSet(
        input_ids=ids,
        token_type_ids=np.zeros(offsets[-1], dtype=np.int8),
        offsets=offsets,
        labels=places,
    )


@dataclass(frozen=True)
class TokenTask:
    """An easy task whose models answer tokens."""

    kind: str

    @property
    def outputs(self):
        return {"tags": 3, "spans": 2}[self.kind]

    def encoded(self, *arguments, **more):
        build = {"tags": build_tagged_set, "spans": build_span_set}[self.kind]
        return build(*arguments, **more)

    def model(self, **more):
        head = {"tags": BertForTokenClassification, "spans": BertForQuestionAnswering}[self.kind]
        return build_bert(head=head, labels=self.outputs, **more)

    def teacher(self, layers=frozenset({1, 3})):
        """A teacher of four layers that has much to say, asked at every step."""
        model = self.model(seed=5, layers=4, hidden=24)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(std=0.4, generator=generator)
        return LiveTeacher(model, layers, "float32")


@pytest.fixture(params=["tags", "spans"])
def token_task(request):
    return TokenTask(request.param)


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
def make_tagged_set():
    return build_tagged_set


@pytest.fixture(scope="session")
def make_span_set():
    return build_span_set


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
