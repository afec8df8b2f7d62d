import dataclasses

import pytest

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import (
    BertArchitecture,
    architecture_from_dict,
    parse_architecture,
)

TEACHER = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
SMALL = BertArchitecture(layers=3, hidden_size=384, heads=12, ffn_size=1536, activation="relu")


def test_names():
    assert SMALL.key == "bert-3x384-a12-f1536-relu"
    assert SMALL.label == "3 × 384, 12 heads, FFN 1536, relu"
    assert SMALL.head_size == 32
    assert SMALL.family == "bert"


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
        ({"family": "mobilebert"}, "family must be 'bert', got 'mobilebert'"),
        ({"layers": "3"}, "layers must be a whole number"),
        ({"width": 3}, "unknown: width"),
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
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(SpaceError, match=message):
        parse_architecture(text, like=TEACHER)
