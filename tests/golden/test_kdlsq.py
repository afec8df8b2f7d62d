"""The size that KDLSQ-BERT and TernaryBERT print of BERT-base in 2 bits."""

from dataclasses import replace

import pytest

from stillhouse.model.packing_bits import count_packed
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import Ends

MIB = 2**20
BERT_BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
ENGLISH = Ends(vocab_size=30522, positions=512, token_types=2, labels=0)
FLOAT_BYTES = 4 * 109_482_240


def test_what_is_quantised_of_bert_base():
    count = count_packed(BERT_BASE, ENGLISH)
    tables = (30522 + 512) * 768
    layers = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert count.codes == tables + layers + 768 * 768 == 109_358_592
    token_types, norms = 2 * 768, 25 * 2 * 768
    biases = 12 * (4 * 768 + 3072 + 768) + 768
    clips = 12 * 16 + 2 + 2
    assert count.floats == token_types + norms + biases + clips


def test_the_published_factor():
    """418 MB and 28 MB are MiB: positions in float32, and a scale for each row of the words."""
    ours = count_packed(BERT_BASE, ENGLISH)
    positions = 512 * 768
    published = replace(
        ours, codes=ours.codes - positions, floats=ours.floats + positions + 30522 - 1
    )
    assert round(FLOAT_BYTES / MIB) == 418
    assert round(published.size_bytes(2) / MIB) == 28
    assert FLOAT_BYTES / published.size_bytes(2) == pytest.approx(14.9, abs=0.05)


@pytest.mark.parametrize(("bits", "times"), [(2, 15.7), (4, 7.94), (8, 3.99)])
def test_ours_with_positions_quantised(bits, times):
    size = count_packed(BERT_BASE, ENGLISH).size_bytes(bits)
    assert FLOAT_BYTES / size == pytest.approx(times, abs=0.05)
