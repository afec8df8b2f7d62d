"""NAS-BERT's published figures: size of its space, sizes and FLOPs of its networks."""

import time

import pytest

from stillhouse.space.chain import OPERATIONS, ChainArchitecture, ChainBlock
from stillhouse.space.chain_counts import count_chain_parameters
from stillhouse.space.counts import Ends
from stillhouse.space.nas_bert import embedding_size_for
from stillhouse.space.nas_bert_counts import paper_chain_flops
from stillhouse.space.published import nas_bert, nas_bert_architectures

NETWORKS = nas_bert_architectures()
FLOPS = {"60M": 1.265e10, "30M": 7.05e9, "10M": 2.34e9, "5M": 8.66e8}  # recomputed elsewhere
PRINTED_FLOPS = {"60M": 1.3e10, "30M": 7.0e9, "10M": 2.3e9, "5M": 8.7e8}  # in the paper


def test_the_space():
    space = nas_bert()
    assert space.block.size == len(space.block) == 97_650
    assert space.blocks == 4
    assert space.size == 97_650**4
    assert space.block.hidden_sizes == (128, 192, 256, 384, 512)
    assert space.block.operations == OPERATIONS == ("M", "F", "S3", "S5", "S7")
    assert space.block.most_operations * space.blocks == 24
    assert [width // space.head_size for width in space.block.hidden_sizes] == [2, 3, 4, 6, 8]
    assert [width * space.ffn_ratio for width in space.block.hidden_sizes] == [
        512, 768, 1024, 1536, 2048,
    ]  # fmt: skip
    assert space.embedding_sizes == (64, 128, 256, 384, 512)


def test_all_blocks_are_listed_in_less_than_a_second():
    start = time.perf_counter()
    hidden, operations = nas_bert().block.columns()
    assert time.perf_counter() - start < 1
    assert hidden.shape == (97_650,)
    assert operations.shape == (97_650, 6)


def test_names_and_depths_of_the_networks():
    assert {name: one.layers for name, one in NETWORKS.items()} == {
        "60M": 24, "55M": 23, "50M": 22, "45M": 23, "40M": 21, "35M": 20,
        "30M": 20, "25M": 16, "20M": 16, "15M": 24, "10M": 12, "5M": 12,
    }  # fmt: skip
    assert all(one.head_size == 64 and one.activation == "gelu" for one in NETWORKS.values())


@pytest.mark.parametrize("name", ["60M", "15M"])
def test_networks_of_four_whole_blocks_are_in_the_space(name):
    one = NETWORKS[name]
    assert nas_bert().architecture(one.blocks, one.embedding_size) == one


@pytest.mark.parametrize(
    ("vocab_size", "millions"),
    [
        (30_522, {"60M": "48.5", "30M": "27.1", "10M": "8.8", "5M": "3.2"}),
        (50_265, {"60M": "58.6", "30M": "32.1", "10M": "11.3", "5M": "4.5"}),
    ],
)
def test_true_parameters_without_a_head(vocab_size, millions):
    """The names of the networks fit the larger vocabulary better."""
    ends = Ends(vocab_size=vocab_size, positions=512, token_types=2, labels=0)
    for name, expected in millions.items():
        count = count_chain_parameters(NETWORKS[name], ends)
        assert f"{(count.total - count.head) / 1e6:.1f}" == expected


def test_only_25m_and_20m_change_their_width_between_operations():
    """And those that do not are bridged from narrower embeddings alone."""
    ends = Ends(vocab_size=30_522, positions=512, token_types=2, labels=0)
    bridges = {name: count_chain_parameters(one, ends).bridges for name, one in NETWORKS.items()}
    assert bridges["60M"] == bridges["55M"] == 0
    assert bridges["50M"] == 385 * 512
    assert bridges["25M"] == 257 * 384 + 385 * 512
    assert bridges["20M"] == 129 * 384 + 385 * 512 + 513 * 384
    assert bridges["5M"] == 65 * 192


@pytest.mark.parametrize("name", FLOPS)
def test_the_papers_flops(name):
    assert paper_chain_flops(NETWORKS[name]) == pytest.approx(FLOPS[name], rel=0.005)


@pytest.mark.parametrize("name", ["60M", "10M", "5M"])
def test_flops_to_the_digits_that_the_paper_prints(name):
    assert float(f"{paper_chain_flops(NETWORKS[name]):.1e}") == PRINTED_FLOPS[name]


def test_flops_of_30m_are_one_off_in_the_last_digit_that_the_paper_prints():
    assert paper_chain_flops(NETWORKS["30M"]) == pytest.approx(PRINTED_FLOPS["30M"], rel=0.01)


@pytest.mark.parametrize(
    ("width", "embedding_size", "flops"),
    # What flops_computation.py of google-research/electra gives for inference at 128 tokens: BERT
    # base, and a small one of 12 layers, each less the pooler of all tokens that it adds.
    [(768, 768, 28_616_498_688 - 152_076_288), (256, 128, 3_677_281_792 - 17_137_664)],
)
def test_the_counter_is_electras(width, embedding_size, flops):
    bert = ChainArchitecture(
        embedding_size=embedding_size,
        blocks=(ChainBlock(hidden_size=width, operations=("M", "F") * 12),),
    )
    assert paper_chain_flops(bert) == flops


def test_our_rule_of_the_embedding_size_agrees_with_ten_of_the_twelve():
    chosen = {
        name: embedding_size_for(
            nas_bert(), vocab_size=50_265, params_limit=int(name.removesuffix("M")) * 10**6
        )
        for name in NETWORKS
    }
    published = {name: one.embedding_size for name, one in NETWORKS.items()}
    differing = {name: (chosen[name], published[name]) for name in NETWORKS
                 if chosen[name] != published[name]}  # fmt: skip
    assert differing == {"25M": (128, 256), "10M": (64, 128)}
