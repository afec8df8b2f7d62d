import dataclasses
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import SpaceError
from stillhouse.space.chain import (
    OPERATIONS,
    BlockSpace,
    ChainArchitecture,
    ChainBlock,
    ChainSpace,
    chain_from_dict,
)

PROPERTY = settings(deadline=None, database=None, max_examples=60)


def block(hidden_size, operations):
    return ChainBlock(hidden_size=hidden_size, operations=tuple(operations.split()))


def chain(*blocks, **more):
    return ChainArchitecture(**{"embedding_size": 64, "blocks": blocks, **more})


@st.composite
def chains(draw):
    head_size = draw(st.sampled_from([1, 8, 64]))
    blocks = st.builds(
        ChainBlock,
        hidden_size=st.integers(1, 8).map(lambda heads: heads * head_size),
        operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=4).map(tuple),
    )
    return ChainArchitecture(
        embedding_size=draw(st.integers(1, 200)),
        blocks=tuple(draw(st.lists(blocks, min_size=1, max_size=3))),
        head_size=head_size,
        ffn_ratio=draw(st.integers(1, 4)),
        activation=draw(st.sampled_from(["gelu", "relu", "silu"])),
    )


@st.composite
def block_spaces(draw):
    return BlockSpace(
        hidden_sizes=tuple(
            draw(st.lists(st.integers(1, 512), min_size=1, max_size=3, unique=True))
        ),
        operations=tuple(
            draw(st.lists(st.sampled_from(OPERATIONS), min_size=1, max_size=3, unique=True))
        ),
        most_operations=draw(st.integers(1, 4)),
    )


def test_names_of_a_block():
    one = block(192, "M F S3")
    assert one.key == "192-M-F-S3"
    assert one.label == "192: M F S3"


def test_names_of_a_chain():
    one = chain(block(192, "S3 M"), block(128, "F"), activation="relu")
    assert one.family == "chain"
    assert one.layers == 3
    assert one.key == "chain-e64-k64-f4-relu_192-S3M_128-F"
    assert one.label == "embeddings 64 | 192: S3 M | 128: F, heads of 64, FFN × 4, relu"


def test_a_chain_of_96_operations_still_names_a_file():
    longest = chain(*[block(4096, "S3 " * 24)] * 4)
    assert longest.layers == 96
    assert len(longest.key.encode()) < 250


def test_where_blocks_end_makes_another_chain():
    whole, split = chain(block(64, "M F S3")), chain(block(64, "M"), block(64, "F S3"))
    assert whole != split
    assert whole.key != split.key


@PROPERTY
@given(chains(), chains())
def test_keys_and_hashes_tell_chains_apart_as_equality_does(one, other):
    assert (one.key == other.key) == (one == other)
    assert len({one, dataclasses.replace(one)}) == 1


@PROPERTY
@given(chains())
def test_a_chain_comes_back_from_json(one):
    assert chain_from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_what_a_chain_says_of_itself():
    assert chain(block(128, "M S5")).to_dict() == {
        "family": "chain",
        "embedding_size": 64,
        "blocks": [{"hidden_size": 128, "operations": ["M", "S5"]}],
        "head_size": 64,
        "ffn_ratio": 4,
        "activation": "gelu",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "bert"}, "family must be 'chain', got 'bert'"),
        ({"embedding_size": "64"}, "embedding_size must be a whole number of at least 1, got '64'"),
        ({"head_size": True}, "head_size must be a whole number"),
        ({"ffn_ratio": 2.5}, "ffn_ratio must be a whole number"),
        ({"activation": "tanh"}, "activation must be one of gelu, relu, silu, got 'tanh'"),
        ({"blocks": "M"}, "blocks must be a list, got 'M'"),
        ({"blocks": []}, "blocks must be a tuple of at least one"),
        ({"blocks": ["M"]}, "a block must have the keys hidden_size, operations, got 'M'"),
        ({"blocks": [{"hidden_size": 64}]}, "missing: operations, unknown: none"),
        ({"blocks": [{"hidden_size": 64, "operations": "MF"}]}, "operations must be a list"),
        ({"layers": 3}, "a chain has the keys .* unknown: layers"),
    ],
)
def test_damaged_data_is_refused(change, message):
    with pytest.raises(SpaceError, match=message):
        chain_from_dict({**chain(block(64, "M")).to_dict(), **change})


def test_missing_keys_are_named():
    with pytest.raises(SpaceError, match="missing: family, blocks, head_size, ffn_ratio, activat"):
        chain_from_dict({"embedding_size": 64})


@pytest.mark.parametrize(
    ("hidden_size", "operations", "message"),
    [
        (0, ("M",), "hidden_size must be a whole number of at least 1, got 0"),
        (64, (), r"operations must be a tuple of at least one, got \(\)"),
        (64, ["M"], r"operations must be a tuple of at least one, got \['M'\]"),
        (64, ("M", "S9"), "an operation is one of M, F, S3, S5, S7, got 'S9'"),
        (64, ("M", "identity", "F"), "got 'identity'"),
    ],
)
def test_impossible_blocks_are_refused(hidden_size, operations, message):
    with pytest.raises(SpaceError, match=message):
        ChainBlock(hidden_size=hidden_size, operations=operations)


def test_a_width_that_heads_do_not_fill_is_refused_with_or_without_attention():
    for operations in ("M", "S3"):
        with pytest.raises(
            SpaceError, match="multiple of head_size 64, got 200; the nearest is 19"
        ):
            chain(block(128, "F"), block(200, operations))


def test_numbers_and_order_by_hand():
    space = BlockSpace(hidden_sizes=(128, 64), operations=("F", "M"), most_operations=2)
    assert space.size == len(space) == 2 * (2 + 4)
    assert [one.key for one in space] == [
        "128-F", "128-M", "128-F-F", "128-F-M", "128-M-F", "128-M-M",
        "64-F", "64-M", "64-F-F", "64-F-M", "64-M-F", "64-M-M",
    ]  # fmt: skip
    hidden, operations = space.columns()
    assert hidden.tolist() == [0] * 6 + [1] * 6
    assert operations[:6].tolist() == [[0, -1], [1, -1], [0, 0], [0, 1], [1, 0], [1, 1]]
    assert operations.dtype == np.int8


@PROPERTY
@given(block_spaces())
def test_every_way_to_list_the_blocks_agrees(space):
    listed = list(space)
    assert len(set(listed)) == len(listed) == space.size
    assert [space[place] for place in range(space.size)] == listed
    assert [space.index(one) for one in listed] == list(range(space.size))
    hidden, operations = space.columns()
    assert [
        ChainBlock(
            hidden_size=space.hidden_sizes[width],
            operations=tuple(space.operations[kind] for kind in kinds if kind >= 0),
        )
        for width, kinds in zip(hidden, operations.tolist(), strict=True)
    ] == listed


@PROPERTY
@given(block_spaces())
def test_blocks_are_all_words_with_identity_only_at_the_end(space):
    """The paper's way to write them: as long as the longest, with identities behind."""
    letters = (None, *space.operations)
    words = itertools.product(letters, repeat=space.most_operations)
    kept = {
        word
        for word in words
        if word[0] is not None
        and all(left is not None or right is None for left, right in itertools.pairwise(word))
    }
    found = [(*one.operations, *[None] * space.most_operations)[: space.most_operations]
             for one in space if one.hidden_size == space.hidden_sizes[0]]  # fmt: skip
    assert set(found) == kept
    assert len(found) == len(kept)


def test_a_place_may_be_a_number_of_numpy():
    space = BlockSpace(hidden_sizes=(64, 128))
    last = space[np.int64(space.size - 1)]
    assert last == block(128, "S7 S7 S7 S7 S7 S7")
    assert type(last.hidden_size) is int


@pytest.mark.parametrize("index", [-1, 12])
def test_a_place_outside_is_refused(index):
    space = BlockSpace(hidden_sizes=(128, 64), operations=("F", "M"), most_operations=2)
    with pytest.raises(SpaceError, match=f"index of a block must be 0 to 11, got {index}"):
        space[index]


@pytest.mark.parametrize("foreign", [block(96, "M"), block(64, "S3"), block(64, "M F M")])
def test_a_foreign_block_has_no_place(foreign):
    space = BlockSpace(hidden_sizes=(128, 64), operations=("F", "M"), most_operations=2)
    with pytest.raises(SpaceError, match=f"at most 2 of the operations F, M, got {foreign.key}"):
        space.index(foreign)


def test_a_space_too_large_to_list_is_still_counted_and_indexed():
    space = BlockSpace(hidden_sizes=(64, 128), most_operations=40)
    assert space.size == 2 * (5**41 - 5) // 4
    assert space.index(space[space.size - 3]) == space.size - 3
    with pytest.raises(SpaceError, match="at most 20,000,000 blocks can be listed, got 22,7"):
        space.columns()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_sizes": ()}, "hidden_sizes must be a tuple of at least one"),
        ({"hidden_sizes": (64, 64)}, r"values of hidden_sizes must be distinct, got \(64, 64\)"),
        ({"hidden_sizes": (64, 1.5)}, "each of hidden_sizes must be a whole number"),
        ({"operations": ("M", "M")}, "values of operations must be distinct"),
        ({"operations": ("M", "X")}, "an operation is one of .* got 'X'"),
        ({"most_operations": 0}, "most_operations must be a whole number of at least 1, got 0"),
    ],
)
def test_impossible_spaces_of_blocks_are_refused(change, message):
    with pytest.raises(SpaceError, match=message):
        BlockSpace(**{"hidden_sizes": (64,), **change})


def space_of(**change):
    given = {
        "block": BlockSpace(hidden_sizes=(32, 64), operations=("M", "F"), most_operations=2),
        "blocks": 3,
        "embedding_sizes": (16, 24),
        "head_size": 32,
        "ffn_ratio": 2,
        "activation": "silu",
    }
    return ChainSpace(**{**given, **change})


def test_a_space_puts_its_own_blocks_together():
    space = space_of()
    assert space.size == 12**3
    blocks = [block(32, "M"), block(32, "F"), block(64, "M F")]
    assert space.architecture(blocks, 24) == ChainArchitecture(
        embedding_size=24, blocks=tuple(blocks), head_size=32, ffn_ratio=2, activation="silu"
    )


def test_a_space_refuses_what_is_not_in_it():
    space, one = space_of(), block(32, "M")
    with pytest.raises(SpaceError, match="has 3 blocks, got 2"):
        space.architecture([one, one], 16)
    with pytest.raises(SpaceError, match=r"embedding_size must be one of \(16, 24\), got 32"):
        space.architecture([one, one, one], 32)
    with pytest.raises(SpaceError, match="got 32-S3"):
        space.architecture([one, one, block(32, "S3")], 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks": 0}, "blocks must be a whole number of at least 1, got 0"),
        ({"embedding_sizes": (16, 16)}, "values of embedding_sizes must be distinct"),
        ({"embedding_sizes": (16, -8)}, "each of embedding_sizes must be a whole number"),
        ({"head_size": 48}, "multiple of head_size 48, got 32; the nearest is 48"),
        ({"ffn_ratio": 0}, "ffn_ratio must be"),
        ({"activation": "tanh"}, "activation must be one of"),
    ],
)
def test_impossible_spaces_of_chains_are_refused(change, message):
    with pytest.raises(SpaceError, match=message):
        space_of(**change)
