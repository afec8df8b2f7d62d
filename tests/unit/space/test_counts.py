"""Heads counted by hand; whole networks are compared with built ones in tests/unit/model."""

from dataclasses import replace

import pytest

from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import count_chain_flops, count_chain_parameters
from stillhouse.space.counts import Ends, count_flops, count_parameters
from stillhouse.space.mobilebert import mobilebert_tiny

POOLED = Ends(vocab_size=50, positions=24, token_types=2, labels=3)
TOKENS = replace(POOLED, answers_tokens=True)


def test_heads_by_hand():
    """Width 8, 3 outputs, 10 tokens: the pooler is 8 × 8, and 8 biases."""
    assert POOLED.head_parameters(8) == 8 * 8 + 8 + 8 * 3 + 3
    assert POOLED.head_parameters(8, has_pooler=False) == 8 * 3 + 3
    assert POOLED.head_multiply_adds(8, length=10) == 8 * 8 + 8 * 3
    assert POOLED.head_multiply_adds(8, length=10, has_pooler=False) == 8 * 3
    for has_pooler in (True, False):
        assert TOKENS.head_parameters(8, has_pooler=has_pooler) == 8 * 3 + 3
        assert TOKENS.head_multiply_adds(8, length=10, has_pooler=has_pooler) == 10 * 8 * 3


def test_an_encoder_alone_keeps_its_pooler_where_it_has_one():
    assert replace(POOLED, labels=0).head_parameters(8) == 8 * 8 + 8
    assert replace(TOKENS, labels=0).head_parameters(8) == 0


BERT = BertArchitecture(layers=2, hidden_size=16, heads=2, ffn_size=24)
CHAIN = ChainArchitecture(
    embedding_size=8, blocks=(ChainBlock(hidden_size=16, operations=("M", "F")),), head_size=4
)
COUNTS = {
    "bert": (BERT, count_parameters, count_flops, 16, 16 * 17),
    "chain": (CHAIN, count_chain_parameters, count_chain_flops, 16, 16 * 17),
    "mobilebert": (mobilebert_tiny(), count_parameters, count_flops, 512, 0),
}


@pytest.mark.parametrize("family", sorted(COUNTS))
def test_only_the_head_of_a_network_differs(family):
    architecture, parameters, flops, width, pooler = COUNTS[family]
    pooled, tokens = (parameters(architecture, ends) for ends in (POOLED, TOKENS))
    assert pooled.embeddings == tokens.embeddings
    assert pooled.total - tokens.total == pooler
    assert tokens.head == width * 3 + 3
    more = flops(architecture, TOKENS, length=7) - flops(architecture, POOLED, length=7)
    weights = width * width if pooler else 0
    assert more == 2 * (6 * width * 3 - weights)
