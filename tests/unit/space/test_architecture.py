import dataclasses
import pickle

import pytest

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import (
    BertArchitecture,
    architecture_from_dict,
    parse_architecture,
)

TEACHER = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
SMALL = BertArchitecture(layers=3, hidden_size=384, heads=12, ffn_size=1536, activation="relu")
FREE = BertArchitecture(layers=7, hidden_size=160, heads=10, head_size=64, ffn_size=560)


def test_names():
    assert SMALL.key == "bert-3x384-a12-f1536-relu"
    assert SMALL.label == "3 × 384, 12 heads, FFN 1536, relu"
    assert SMALL.head_size == 32
    assert SMALL.family == "bert"


def test_names_of_free_heads():
    assert FREE.key == "bert-7x160-a10-k64-f560-gelu"
    assert FREE.label == "7 × 160, 10 heads of 64, FFN 560, gelu"
    one = dataclasses.replace(FREE, heads=1)
    assert one.label == "7 × 160, 1 head of 64, FFN 560, gelu"


def test_widths():
    assert (FREE.head_size, FREE.attention_width, FREE.has_free_heads) == (64, 640, True)
    assert (SMALL.head_size, SMALL.attention_width, SMALL.has_free_heads) == (32, 384, False)
    assert SMALL.intermediate_size == 1536


def test_a_given_head_size_that_shares_out_the_width_changes_nothing():
    given = BertArchitecture(
        layers=3, hidden_size=384, heads=12, head_size=32, ffn_size=1536, activation="relu"
    )
    assert given == SMALL
    assert hash(given) == hash(SMALL)
    assert given.to_dict() == SMALL.to_dict()
    assert repr(given) == repr(SMALL)


def test_replacing_keeps_the_head_size_of_free_heads_alone():
    assert dataclasses.replace(FREE, heads=7).head_size == 64
    assert dataclasses.replace(SMALL, heads=6).head_size == 64
    # 10 heads of 64 fill a width of 640, so they are not free there.
    filled = dataclasses.replace(FREE, hidden_size=640)
    assert filled == BertArchitecture(layers=7, hidden_size=640, heads=10, ffn_size=560)


def test_a_copy_through_pickle_is_the_same():
    for architecture in (SMALL, FREE):
        assert pickle.loads(pickle.dumps(architecture)) == architecture


def test_dict_of_free_heads_and_back():
    data = FREE.to_dict()
    assert data == {
        "family": "bert",
        "layers": 7,
        "hidden_size": 160,
        "heads": 10,
        "head_size": 64,
        "ffn_size": 560,
        "activation": "gelu",
    }
    assert architecture_from_dict(data) == FREE
    assert architecture_from_dict({**SMALL.to_dict(), "head_size": 32}) == SMALL


def test_dict_and_back():
    data = SMALL.to_dict()
    assert data == {
        "family": "bert",
        "layers": 3,
        "hidden_size": 384,
        "heads": 12,
        "ffn_size": 1536,
        "activation": "relu",
    }
    assert architecture_from_dict(data) == SMALL


def test_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.layers = 4
    assert len({SMALL, dataclasses.replace(SMALL), TEACHER}) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": 0}, "layers must be a whole number of at least 1, got 0"),
        ({"ffn_size": -4}, "ffn_size must be a whole number"),
        ({"hidden_size": 384.0}, r"got 384\.0"),
        ({"layers": True}, "got True"),
        ({"heads": 5}, "hidden_size must be a multiple of heads, got 384 and 5"),
        ({"activation": "tanh"}, "activation must be one of gelu, relu, silu, got 'tanh'"),
    ],
)
def test_rules(change, message):
    with pytest.raises(SpaceError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "gpt"}, "family must be one of bert, mobilebert, got 'gpt'"),
        ({"layers": "3"}, "layers must be a whole number"),
        ({"width": 3}, "unknown: width"),
        ({"head_size": "32"}, "head_size must be a whole number"),
    ],
)
def test_from_dict_refuses(change, message):
    with pytest.raises(SpaceError, match=message):
        architecture_from_dict({**SMALL.to_dict(), **change})


def test_from_dict_names_what_is_missing():
    data = SMALL.to_dict()
    del data["heads"], data["family"]
    with pytest.raises(SpaceError, match="missing: family, heads"):
        architecture_from_dict(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("layers=3", (3, 768, 12, 3072, "gelu")),
        ("layers=3,hidden_size=384", (3, 384, 6, 1536, "gelu")),
        (" layers = 3 , hidden_size = 384 , heads = 12 ", (3, 384, 12, 1536, "gelu")),
        ("hidden_size=312,ffn_size=1200", (12, 312, 6, 1200, "gelu")),  # head size 52 < 64
        ("hidden_size=97", (12, 97, 97, 388, "gelu")),  # a prime: head size 1
        ("activation=silu,family=bert", (12, 768, 12, 3072, "silu")),
    ],
)
def test_parse(text, expected):
    parsed = parse_architecture(text, like=TEACHER)
    assert expected == (
        parsed.layers,
        parsed.hidden_size,
        parsed.heads,
        parsed.ffn_size,
        parsed.activation,
    )


@pytest.mark.parametrize(
    ("text", "like", "expected"),
    [
        ("head_size=64", SMALL, (384, 6, 64)),
        ("heads=5,head_size=64", SMALL, (384, 5, 64)),
        ("heads=5,head_size=64,hidden_size=320", SMALL, (320, 5, 64)),
        ("layers=3", FREE, (160, 10, 64)),
        ("hidden_size=128", FREE, (128, 10, 64)),
        ("heads=7", FREE, (160, 7, 64)),
        ("head_size=16", FREE, (160, 10, 16)),
        ("head_size=8", FREE, (160, 10, 8)),
    ],
)
def test_parse_head_sizes(text, like, expected):
    parsed = parse_architecture(text, like=like)
    assert expected == (parsed.hidden_size, parsed.heads, parsed.head_size)


@pytest.mark.parametrize("size", [0, -1, 64.0, True])
def test_a_head_size_is_a_positive_whole_number(size):
    with pytest.raises(SpaceError, match="head_size must be a whole number of at least 1"):
        BertArchitecture(layers=1, hidden_size=8, heads=3, head_size=size, ffn_size=8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name=value pairs"),
        ("layers", "got 'layers'"),
        ("layers=", "got 'layers='"),
        ("depth=3", "got 'depth=3'"),
        ("layers=3,layers=4", "layers is given twice"),
        ("layers=three", "layers must be a whole number, got 'three'"),
        ("hidden_size=0", "hidden_size must be a whole number of at least 1, got 0"),
        ("family=chain", "family must be 'bert'"),
        ("heads=7", "multiple of heads"),
        ("head_size=100", "multiple of head_size where heads is not given, got 768 and 100"),
        ("head_size=0", "head_size must be a whole number of at least 1, got 0"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(SpaceError, match=message):
        parse_architecture(text, like=TEACHER)
