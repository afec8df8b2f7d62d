"""MobileBERTs as architectures, and the space of them that AutoDistill searches."""

from dataclasses import replace

import numpy as np
import pytest

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture, architecture_from_dict
from stillhouse.space.counts import count_encoder_parameters
from stillhouse.space.mobilebert import MobileBertArchitecture, mobilebert, mobilebert_tiny
from stillhouse.space.published import autodistill, autodistill_for, autodistill_references
from stillhouse.space.search_space import Dimension, SearchSpace

BERT_BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
BERT_LARGE_NARROW = BertArchitecture(layers=24, hidden_size=512, heads=8, ffn_size=2048)
MINILM = BertArchitecture(layers=6, hidden_size=384, heads=12, ffn_size=1536)


def dimension(space, name):
    return next(item.values for item in space.dimensions if item.name == name)


def test_plain_data_describes_a_mobilebert_fully():
    for one in (mobilebert(), mobilebert_tiny(), replace(mobilebert(), embedding_size=64)):
        assert architecture_from_dict(one.to_dict()) == one


def test_equal_names_mean_equal_architectures():
    space = list(autodistill())
    others = [mobilebert_tiny(), replace(mobilebert(), embedding_size=64, layers=12)]
    assert len({one.key for one in [*space, *others]}) == len(space) + len(others)
    assert "bottleneck 128" in mobilebert().label
    assert mobilebert().head_size == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "bottleneck_size must be a multiple of heads, got 128 and 3"),
        ({"embedding_size": 640}, "embedding_size must be at most hidden_size, got 640 and 512"),
        ({"ffn_count": 0}, "ffn_count must be a whole number of at least 1, got 0"),
        ({"layers": 2.0}, "layers must be a whole number of at least 1, got 2.0"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message):
    with pytest.raises(SpaceError, match=message):
        replace(mobilebert(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ffn_count": None}, "missing: ffn_count, unknown: none"),
        ({"depth": 3}, "missing: none, unknown: depth"),
        ({"heads": 2.5}, "heads must be a whole number"),
        ({"attention": "none"}, "attention must be one of shared, bottleneck, got 'none'"),
    ],
)
def test_plain_data_with_a_slip_is_refused(change, message):
    data = {**mobilebert().to_dict(), **change}
    data = {name: value for name, value in data.items() if value is not None}
    with pytest.raises(SpaceError, match=message):
        architecture_from_dict(data)


def test_the_published_space_has_576_points_and_none_is_left_out():
    space = autodistill()
    assert space.size() == space.grid_size == 576
    assert {one.layers for one in space} == {24}
    assert mobilebert() in list(space)
    assert mobilebert_tiny() not in list(space)
    assert not space.contains(mobilebert_tiny())
    assert not space.contains(MINILM)
    with pytest.raises(SpaceError, match="choose among layers"):
        space.encode(MINILM)


def test_the_slip_of_the_published_list_is_kept_on_demand():
    assert dimension(autodistill(), "hidden_size") == (128, 256, 384, 512)
    literal = autodistill(literal=True)
    assert dimension(literal, "hidden_size") == (128, 246, 384, 512)
    assert literal.size() == 576


def test_every_point_comes_back_from_its_indices():
    space = autodistill_for(MINILM)
    everything = list(space)
    assert len(everything) == len({one.key for one in everything})
    assert all(space.decode(space.encode(one)) == one for one in everything)
    smallest = space.smallest()
    assert count_encoder_parameters(smallest) == min(map(count_encoder_parameters, everything))
    mutant = space.mutate(smallest, np.random.default_rng(0))
    assert mutant in everything
    assert mutant != smallest


def test_a_teacher_of_the_published_width_gets_the_published_space():
    space = autodistill_for(BERT_LARGE_NARROW)
    assert list(space) == list(autodistill())
    assert autodistill_references(BERT_LARGE_NARROW) == {
        "MobileBERT": mobilebert(),
        "MobileBERT-tiny": mobilebert_tiny(),
    }


def test_the_space_follows_the_teacher():
    space = autodistill_for(BERT_BASE)
    assert dimension(space, "layers") == (12,)
    assert dimension(space, "hidden_size") == (192, 384, 576, 768)
    assert dimension(space, "bottleneck_size") == (96, 144, 192, 240)
    assert dimension(space, "ffn_size") == (576, 768, 960)
    assert dimension(space, "embedding_size") == (192,)
    assert autodistill_references(BERT_BASE)["MobileBERT"] in list(space)


def test_heads_that_do_not_divide_a_bottleneck_are_left_out():
    space = autodistill_for(BertArchitecture(layers=2, hidden_size=64, heads=2, ffn_size=128))
    assert dimension(space, "bottleneck_size") == (8, 16, 24)
    assert space.size() == space.grid_size
    odd = SearchSpace(
        tuple(
            Dimension("bottleneck_size", (12, 20)) if item.name == "bottleneck_size" else item
            for item in space.dimensions
        )
    )
    assert {(one.bottleneck_size, one.heads) for one in odd} == {
        (size, heads) for size in (12, 20) for heads in (1, 2, 4)
    }


def test_embeddings_wider_than_the_layers_are_left_out():
    dimensions = [item for item in autodistill().dimensions if item.name != "embedding_size"]
    widths = Dimension("hidden_size", (64, 256))
    space = SearchSpace(
        tuple(widths if item.name == "hidden_size" else item for item in dimensions)
    )
    assert {one.hidden_size for one in space} == {256}
    assert {one.embedding_size for one in space} == {128}


def test_dimensions_of_two_families_do_not_go_together():
    mobile, plain = autodistill().dimensions, Dimension("ffn_ratio", (2, 4))
    with pytest.raises(SpaceError, match="missing: none, unknown: ffn_ratio"):
        SearchSpace((*mobile, plain))
    with pytest.raises(SpaceError, match="missing: ffn_count, unknown: none"):
        SearchSpace(tuple(item for item in mobile if item.name != "ffn_count"))
    without = tuple(item for item in mobile if item.name != "bottleneck_size")
    with pytest.raises(SpaceError, match="ffn_count, embedding_size: only a space with the dim"):
        SearchSpace(without)


def test_a_mobilebert_is_no_reference_for_free_heads():
    assert not mobilebert().has_free_heads
    assert isinstance(mobilebert(), MobileBertArchitecture)
