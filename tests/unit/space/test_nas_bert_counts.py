"""The counter of NAS-BERT's paper against one chain by hand."""

from stillhouse.space.chain import ChainArchitecture, ChainBlock
from stillhouse.space.nas_bert_counts import paper_chain_flops


def chain(embedding_size, width, operations):
    return ChainArchitecture(
        embedding_size=embedding_size,
        blocks=(ChainBlock(hidden_size=width, operations=operations),),
        head_size=4,
        ffn_ratio=3,
    )


def added(operation):
    """FLOPs per token of one more operation of width 8, for 10 tokens."""
    shorter, longer = chain(8, 8, ("M",)), chain(8, 8, ("M", operation))
    counts = [paper_chain_flops(one, vocab_size=50, length=10) for one in (shorter, longer)]
    assert (counts[1] - counts[0]) % 10 == 0
    return (counts[1] - counts[0]) // 10


def test_attention_by_hand():
    # Four projections of 128 and 8 biases; 160 for scores and as many for context; 10 weights of
    # two heads at 10 each; dropout 32, residual 8; 5 for the normalisation.
    assert added("M") == 4 * 136 + 320 + 200 + 40 + 5


def test_feed_forward_by_hand():
    # Two products of 8 · 24; 24 + 8 biases; 24 activations of 8; dropout, residual, norm: 10 each.
    assert added("F") == 768 + 32 + 192 + 80


def test_a_convolution_by_hand():
    # Twice: ReLU 8, kernel 5 in 80, projection 128 + 8, norm 40; then dropout 32 and residual 8.
    assert added("S5") == 2 * (8 + 80 + 136 + 40) + 40
    assert added("S7") - added("S5") == added("S5") - added("S3") == 2 * 2 * 2 * 8


def test_embeddings_and_bridge_by_hand():
    attention = added("M")
    # Width 6: products with 50 words, 10 positions and 2 types; 11 each for sums, norm, dropout.
    # Then a bridge of 6 · 8 and 8 biases.
    expected = 6 * (2 * 62 + 11) + (2 * 48 + 8) + attention
    assert paper_chain_flops(chain(6, 8, ("M",)), vocab_size=50, length=10) == 10 * expected
