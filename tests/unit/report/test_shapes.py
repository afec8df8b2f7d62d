import pytest

from stillhouse.report.shapes import MOST_LAYERS, Layer, Part, read_shape

BERT = {"family": "bert", "layers": 2, "hidden_size": 64, "heads": 2, "ffn_size": 256}
MOBILE = {
    "family": "mobilebert",
    "layers": 3,
    "hidden_size": 384,
    "bottleneck_size": 96,
    "heads": 4,
    "ffn_size": 288,
    "ffn_count": 2,
    "embedding_size": 96,
    "attention": "shared",
}
CHAIN = {
    "family": "chain",
    "embedding_size": 32,
    "blocks": [
        {"hidden_size": 64, "operations": ["M", "F"]},
        {"hidden_size": 128, "operations": ["S7"]},
    ],
    "head_size": 32,
    "ffn_ratio": 4,
}


def test_layers_of_a_plain_encoder_are_alike():
    shape = read_shape(BERT)

    attention = Part(kind="attention", width=64, count=2)
    assert (
        shape.layers
        == (Layer(width=64, parts=(attention, Part(kind="feed-forward", width=256))),) * 2
    )
    assert shape.widest == 256
    assert shape.told == "layers 1 to 2, hidden 64: attention 64 wide, 2 heads, feed-forward 256"


def test_free_heads_are_as_wide_as_they_are_together():
    shape = read_shape({**BERT, "heads": 3, "head_size": 16})

    assert shape.layers[0].parts[0] == Part(kind="attention", width=48, count=3)


def test_layers_may_differ():
    shape = read_shape({**BERT, "heads": [1, 4], "ffn_size": [128, 512], "head_size": 16})

    assert [layer.parts[0].width for layer in shape.layers] == [16, 64]
    assert [layer.parts[1].width for layer in shape.layers] == [128, 512]
    assert shape.told.count("layer ") == 2


def test_lists_alone_tell_the_number_of_layers():
    told = {"hidden_size": 64, "heads": [2, 2, 2], "ffn_sizes": [64, 128, 64]}

    assert [layer.parts[1].width for layer in read_shape(told).layers] == [64, 128, 64]


def test_mobilebert_works_inside_its_bottleneck():
    shape = read_shape(MOBILE)
    [layer] = set(shape.layers)

    assert (len(shape.layers), layer.width, layer.bottleneck) == (3, 384, 96)
    assert [(part.kind, part.width) for part in layer.parts] == [
        ("attention", 96),
        ("feed-forward", 288),
        ("feed-forward", 288),
    ]
    assert "bottleneck 96: attention 96 wide, 4 heads, 2 × feed-forward 288" in shape.told


def test_a_chain_has_a_layer_for_each_operation():
    shape = read_shape(CHAIN)

    assert [(layer.width, layer.parts[0]) for layer in shape.layers] == [
        (64, Part(kind="attention", width=64, count=2)),
        (64, Part(kind="feed-forward", width=256)),
        (128, Part(kind="convolution", width=128, count=7)),
    ]
    assert "layer 3, hidden 128: convolution of 7 tokens, 128 wide" in shape.told


@pytest.mark.parametrize(
    "described",
    [
        None,
        "3 × 384",
        {},
        {**BERT, "layers": 0},
        {**BERT, "layers": MOST_LAYERS + 1},
        {**BERT, "layers": 10**12},
        {**BERT, "heads": [1]},
        {**BERT, "ffn_size": -1},
        {**BERT, "hidden_size": "<script>"},
        {**MOBILE, "bottleneck_size": None},
        {**CHAIN, "blocks": [{"hidden_size": 64, "operations": ["X9"]}]},
        {**CHAIN, "blocks": [{"hidden_size": 64, "operations": [["M"]]}]},
        {**CHAIN, "blocks": "none"},
    ],
)
def test_what_cannot_be_drawn_has_no_shape(described):
    assert read_shape(described) is None
