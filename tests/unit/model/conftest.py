"""Models of a few thousand weights, all of them random, and a small set of examples."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

from stillhouse.data.encoding import EncodedSet
from stillhouse.model.chains import chain_config
from stillhouse.model.students import student_config
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.mobilebert import MobileBertArchitecture

AUTO = {
    "classes": AutoModelForSequenceClassification,
    "tags": AutoModelForTokenClassification,
    "spans": AutoModelForQuestionAnswering,
}
LABELS = {"classes": 3, "tags": 5, "spans": 2}
OWN = {
    "free heads": BertArchitecture(layers=2, hidden_size=16, heads=3, head_size=8, ffn_size=20),
    "chain": ChainArchitecture(
        embedding_size=12,
        blocks=(
            ChainBlock(hidden_size=16, operations=("S3", "M", "F")),
            ChainBlock(hidden_size=8, operations=("M",)),
        ),
        head_size=4,
    ),
    "mobilebert": MobileBertArchitecture(
        layers=2,
        hidden_size=24,
        bottleneck_size=16,
        heads=2,
        ffn_size=20,
        ffn_count=2,
        embedding_size=12,
    ),
}
"""Architectures of students that are of another family than their teacher."""


def build_bert(*, seed=0, labels=3, **shape):
    """A classifier whose biases and norms are random too, so that no mix-up goes unseen."""
    sizes = {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "vocab_size": 50,
        "max_position_embeddings": 24,
        **shape,
    }
    config = BertConfig(id2label={i: f"label {i}" for i in range(labels)}, **sizes)
    return randomise(BertForSequenceClassification(config), seed)


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5, generator=generator)
    return model.eval()


@pytest.fixture(scope="session")
def make_bert():
    return build_bert


@pytest.fixture(scope="session")
def make_model(tiny_config):
    """Makes a model of any family with a head, its weights as random as those of `make_bert`."""

    def make(family, *, seed=0, head="classes", **sizes):
        stock = "bert" if family in OWN else family
        config = tiny_config(stock, **{"labels": LABELS[head], **sizes})
        if family in OWN:
            config = student_config(OWN[family], config)
        return randomise(AUTO[head].from_config(config), seed)

    return make


@pytest.fixture(params=["classes", "tags", "spans"])
def head(request):
    """What the head of a model answers."""
    return request.param


@pytest.fixture(params=["tags", "spans"])
def token_head(request):
    """What a head that reads every token answers."""
    return request.param


@pytest.fixture(params=sorted(OWN))
def own_family(request):
    """A family of students whose teacher is of another one."""
    return request.param


@pytest.fixture(scope="session")
def own_config(tiny_config):
    """Makes the configuration of a small model of such a family, for students of BERT."""

    def make(own_family, *, labels=3):
        teacher, shape = tiny_config("bert", labels=labels), OWN[own_family]
        if isinstance(shape, ChainArchitecture):
            return chain_config(shape, teacher)
        return student_config(shape, teacher)

    return make


@pytest.fixture(scope="session")
def make_own(own_config):
    """Makes a model of such a family with a head, its weights as random as those of `make_bert`."""

    def make(own_family, *, seed=0, head="classes"):
        return randomise(AUTO[head].from_config(own_config(own_family, labels=LABELS[head])), seed)

    return make


@pytest.fixture
def own_architecture(own_family):
    return OWN[own_family]


@pytest.fixture
def family_tokens(tiny_config, family):
    """Two rows of token numbers, the second padded with the family's own number."""
    rows = torch.randint(3, 50, (2, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(rows)
    mask[1, 7:] = 0
    padding = tiny_config("bert" if family in OWN else family).pad_token_id
    return {"input_ids": torch.where(mask == 1, rows, padding), "attention_mask": mask}


@pytest.fixture(scope="session")
def tokens():
    """Two rows of token numbers, the second padded."""
    rows = torch.randint(1, 50, (2, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(rows)
    mask[1, 7:] = 0
    return {"input_ids": rows * mask, "attention_mask": mask}


@pytest.fixture(scope="session")
def ragged_set():
    """Thirty examples of 1 to 20 tokens, in no order of length."""
    generator = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(generator.integers(1, 21, 30))])
    return EncodedSet(
        input_ids=generator.integers(1, 50, offsets[-1]).astype(np.int32),
        token_type_ids=generator.integers(0, 2, offsets[-1]).astype(np.int8),
        offsets=offsets,
    )


@pytest.fixture
def tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})
