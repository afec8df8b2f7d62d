import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.nas_bert import (
    embedding_size_for,
    nas_bert,
    nas_bert_architectures,
    nas_bert_for,
)

BERT_BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
MINILM = BertArchitecture(layers=6, hidden_size=384, heads=12, ffn_size=1536, activation="relu")


def test_the_published_teacher_gets_the_published_space():
    assert nas_bert_for(BERT_BASE, blocks=4) == nas_bert()


def test_a_smaller_teacher_gets_the_same_proportions():
    space = nas_bert_for(MINILM, blocks=2)
    assert space.block.hidden_sizes == (64, 96, 128, 192, 256)
    assert space.embedding_sizes == (32, 64, 128, 192, 256)
    assert space.block.most_operations == 6
    assert (space.blocks, space.head_size, space.ffn_ratio) == (2, 32, 4)
    assert space.activation == "relu"


def test_sizes_that_meet_are_merged_and_halves_go_up():
    # 32 / 768 of the published ones, in heads of 16: 0.33, 0.5, 0.67, 1, 1.33; embeddings in
    # steps of 8: 0.33, 0.67, 1.33, 2, 2.67. In heads of 4: 1.33, 2, 2.67, 4, 5.33.
    space = nas_bert_for(
        BertArchitecture(layers=4, hidden_size=32, heads=2, ffn_size=128), blocks=4
    )
    assert space.block.hidden_sizes == (16,)
    assert space.embedding_sizes == (8, 16, 24)
    assert space.block.most_operations == 2
    # 48 / 768, in heads of 8: 1, 1.5, 2, 3, 4.
    halves = BertArchitecture(layers=1, hidden_size=48, heads=6, ffn_size=9)
    assert nas_bert_for(halves, blocks=1).block.hidden_sizes == (8, 16, 24, 32)


@settings(deadline=None, database=None, max_examples=60)
@given(
    layers=st.integers(1, 48),
    heads=st.integers(1, 32),
    head_size=st.sampled_from([1, 8, 12, 64, 80]),
    free=st.booleans(),
    data=st.data(),
)
def test_any_teacher_gets_a_space_within_its_own_sizes(layers, heads, head_size, free, data):
    teacher = BertArchitecture(
        layers=layers,
        hidden_size=40 if free else heads * head_size,
        heads=heads,
        head_size=head_size if free else None,
        ffn_size=7,
    )
    divisors = [count for count in range(1, layers + 1) if layers % count == 0]
    blocks = data.draw(st.sampled_from(divisors))
    space = nas_bert_for(teacher, blocks=blocks)
    assert space.block.most_operations * blocks == 2 * layers
    assert max(space.block.hidden_sizes) <= teacher.hidden_size
    assert list(space.block.hidden_sizes) == sorted(set(space.block.hidden_sizes))
    assert all(size % 8 == 0 for size in space.embedding_sizes)


@pytest.mark.parametrize(
    ("blocks", "nearest"), [(5, "4 or 6"), (7, "6 or 12"), (13, "12"), (0, "1"), (-3, "1")]
)
def test_blocks_that_do_not_divide_the_teacher_are_refused(blocks, nearest):
    message = f"divide the teacher's 12 layers, got {blocks}; the nearest that does is {nearest}$"
    with pytest.raises(SpaceError, match=message):
        nas_bert_for(BERT_BASE, blocks=blocks)


def test_blocks_end_where_the_width_changes():
    networks = nas_bert_architectures()
    widths = {name: [one.hidden_size for one in net.blocks] for name, net in networks.items()}
    assert widths["25M"] == [384, 512]
    assert widths["20M"] == [384, 512, 384]
    assert widths["60M"] == [512] * 4
    assert widths["5M"] == [192]
    assert networks["25M"].blocks[1].key == "512-S7-S5-M-F-F-M-S5-M-M-F"


@pytest.mark.parametrize(
    ("limit", "size"),
    # 1,000 words: 64 wide take 64,000 numbers, half of 128,000.
    [(None, 512), (10**9, 512), (128_000, 64), (255_999, 64), (256_000, 128), (10, 64)],
)
def test_the_words_take_at_most_half_of_the_parameters(limit, size):
    assert embedding_size_for(nas_bert(), vocab_size=1_000, params_limit=limit) == size
