"""A student of a few thousand weights with a tokeniser of whole words, and its measures."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer


def build_bert(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=9,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=24,
                id2label={0: "no", 1: "perhaps", 2: "yes"},
                label2id={"no": 0, "perhaps": 1, "yes": 2},
            )
        )


@pytest.fixture(scope="session")
def make_bert():
    return build_bert


@pytest.fixture(scope="session")
def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)})


@pytest.fixture
def metrics():
    return {
        "metric": "accuracy",
        "quality": 0.912345,
        "quality_low": 0.88,
        "quality_high": 0.934567,
        "quality_count": 872,
        "teacher_quality": 0.93,
        "latency_ms": 1.23456,
        "teacher_latency_ms": 9.87654,
        "speedup": 8.0000,
        "parameters": 14350248,
        "teacher_parameters": 109483778,
        "device": "Some Chip, PyTorch 2",
        "workload": {"batch": 1, "length": 64, "precision": "float32", "threads": 2},
        "workload_label": "batch 1, length 64, float32, 2 threads",
        "architecture": {"family": "bert", "layers": 4},
        "architecture_label": "4 × 312, 12 heads, FFN 1200, gelu",
        "initialisation": {"kind": "slices", "layers": [0, 5]},
    }
