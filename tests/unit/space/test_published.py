import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.constraints import HeadsAtMost
from stillhouse.space.published import (
    autodistil,
    autodistil_ablation,
    autodistil_for,
    bounding_box,
    kd_nas,
    kd_nas_for,
)
from stillhouse.space.search_space import Dimension, SearchSpace

BERT_BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)
MINILM = BertArchitecture(layers=6, hidden_size=384, heads=12, ffn_size=1536)


def values(space):
    return {dimension.name: dimension.values for dimension in space.dimensions}


def test_kd_nas_has_1200_architectures_and_no_rule_removes_any():
    space = kd_nas()
    assert space.size() == space.grid_size == 1_200
    assert all(a.hidden_size % a.heads == 0 for a in space.enumerate())


def test_the_published_teacher_gets_the_published_space():
    assert values(kd_nas_for(BERT_BASE, wide=False)) == values(kd_nas())


def test_the_wide_space_adds_four_widths():
    wide = values(kd_nas_for(BERT_BASE))
    assert wide["hidden_size"] == (128, 256, 384, 512, 576, 768)
    assert {**wide, "hidden_size": (384, 768)} == values(kd_nas())


def test_a_smaller_teacher_gets_the_same_proportions():
    # 6 · (1/4, 1/3, 1/2, 5/6, 1) = 1.5, 2, 3, 5, 6, the half down; all else is exactly half.
    space = kd_nas_for(MINILM, wide=False)
    assert values(space) == {
        "layers": (1, 2, 3, 5, 6),
        "hidden_size": (192, 384),
        "heads": (2, 3, 4, 6, 12),
        "ffn_size": (192, 256, 288, 384, 512, 768, 1024, 1536),
        "activation": ("gelu", "relu", "silu"),
    }
    assert space.size() == 1_200


@given(
    layers=st.integers(1, 48),
    heads=st.integers(1, 32),
    head_size=st.sampled_from([8, 16, 32, 64, 80]),
    ratio=st.integers(1, 4),
    wide=st.booleans(),
)
def test_any_teacher_gets_a_space_within_its_own_sizes(layers, heads, head_size, ratio, wide):
    width = heads * head_size
    teacher = BertArchitecture(
        layers=layers, hidden_size=width, heads=heads, ffn_size=ratio * width
    )
    space = kd_nas_for(teacher, wide=wide)
    assert space.size() > 0
    for name in ("layers", "hidden_size", "heads", "ffn_size"):
        sizes = values(space)[name]
        assert max(sizes) <= max(getattr(teacher, name), 1)
        assert min(sizes) >= 1
    assert all(width % head_size == 0 for width in values(space)["hidden_size"])


@pytest.mark.parametrize("wide", [True, False])
def test_the_teacher_itself_is_in_its_space(wide):
    assert kd_nas_for(MINILM, wide=wide).contains(MINILM)


@pytest.mark.parametrize("head_size", [8, 64])
def test_the_space_for_a_teacher_of_free_heads_is_no_wider_than_it(head_size):
    teacher = BertArchitecture(
        layers=6, hidden_size=48, heads=12, head_size=head_size, ffn_size=192
    )
    space = kd_nas_for(teacher)
    assert space.size() > 0
    assert max(values(space)["hidden_size"]) == 48


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tiny", ((4, 5, 6, 7), (128, 160, 192, 224), (2, 2.5, 3, 3.5), (7, 8, 9, 10))),
        ("small", ((9, 10, 11, 12), (256, 288, 320, 352), (2.5, 3, 3.5, 4), (7, 8, 9, 10))),
        ("base", ((9, 10, 11, 12), (544, 576, 608, 640), (2.5, 3, 3.5, 4), (9, 10, 11, 12))),
    ],
)
def test_sub_spaces_of_autodistil(name, expected):
    found = values(autodistil(name))
    assert expected == tuple(
        found[dimension] for dimension in ("layers", "hidden_size", "ffn_ratio", "heads")
    )
    assert found["head_size"] == (64,)
    assert found["activation"] == ("gelu",)
    assert values(autodistil_for(BERT_BASE, name)) == found


def test_an_unknown_sub_space_is_refused():
    for build in (autodistil, lambda name: autodistil_for(MINILM, name)):
        with pytest.raises(SpaceError, match="one of tiny, small, base, got 'large'"):
            build("large")


def test_a_smaller_teacher_gets_the_sub_spaces_in_its_proportions():
    # 6 · (4, 5, 6, 7) / 12 = 2, 2.5, 3, 3.5, halves up; widths are half of the published ones.
    assert values(autodistil_for(MINILM, "tiny")) == {
        "layers": (2, 3, 4),
        "hidden_size": (64, 80, 96, 112),
        "ffn_ratio": (2, 2.5, 3, 3.5),
        "heads": (7, 8, 9, 10),
        "head_size": (32,),
        "activation": ("gelu",),
    }
    sizes = [autodistil_for(MINILM, name).size() for name in ("tiny", "small", "base")]
    assert sizes == [192, 128, 128]


def test_halves_of_widths_go_up_to_the_next_multiple_of_16():
    # 128 · 144 / 768 = 24 is 1.5 steps; 160, 192 and 224 come to 30, 36 and 42.
    teacher = BertArchitecture(layers=1, hidden_size=144, heads=1, ffn_size=5, activation="silu")
    space = values(autodistil_for(teacher, "tiny"))
    assert space["hidden_size"] == (32, 48)
    assert (space["layers"], space["heads"], space["head_size"]) == ((1,), (1,), (144,))
    assert space["activation"] == ("silu",)


@example(layers=1, heads=1, head_size=8, hidden_size=29, name="base")
@example(layers=1, heads=1, head_size=8, hidden_size=29, name="base")
@given(
    layers=st.integers(1, 48),
    heads=st.integers(1, 32),
    head_size=st.sampled_from([8, 16, 64, 80]),
    hidden_size=st.integers(16, 2000),
    name=st.sampled_from(["tiny", "small", "base"]),
)
def test_any_teacher_gets_sub_spaces_of_whole_sizes(layers, heads, head_size, hidden_size, name):
    teacher = BertArchitecture(
        layers=layers, hidden_size=hidden_size, heads=heads, head_size=head_size, ffn_size=9
    )
    space = autodistil_for(teacher, name)
    assert 4 <= space.size() == space.grid_size <= 256
    found = values(space)
    assert max(found["layers"]) <= layers
    assert max(found["heads"]) <= heads
    assert max(found["hidden_size"]) <= hidden_size
    for width in found["hidden_size"]:
        assert all(float(width * ratio).is_integer() for ratio in found["ffn_ratio"])


def test_the_ablation_has_what_was_published():
    smaller, larger = autodistil_ablation(2)
    deep = {"layers": (7, 8, 9, 10, 11, 12)}
    assert values(smaller) == {**values(autodistil("tiny")), **deep}
    assert values(larger) == {**values(autodistil("base")), **deep}
    assert values(autodistil_ablation(4)[-1]) == {
        **values(autodistil("base")),
        "layers": (10, 11, 12),
    }
    assert values(autodistil_ablation(5)[-1]) == {**values(autodistil("base")), "layers": (11, 12)}


@pytest.mark.parametrize("count", [1, 4, 5])
def test_our_sub_spaces_of_the_ablation_have_values_of_the_published_ones(count):
    published = values(bounding_box([autodistil(name) for name in ("tiny", "small", "base")]))
    for space in autodistil_ablation(count):
        for name, found in values(space).items():
            assert set(found) <= set(published[name])


@pytest.mark.parametrize("count", [0, 6])
def test_an_unknown_ablation_is_refused(count):
    with pytest.raises(SpaceError, match=f"has 1 to 5 sub-spaces, got {count}"):
        autodistil_ablation(count)


def test_the_bounding_box_spans_the_three_sub_spaces():
    spaces = [autodistil(name) for name in ("base", "tiny", "small")]
    box = bounding_box(spaces)
    assert values(box) == {
        "layers": (4, 5, 6, 7, 9, 10, 11, 12),
        "hidden_size": (128, 160, 192, 224, 256, 288, 320, 352, 544, 576, 608, 640),
        "ffn_ratio": (2, 2.5, 3, 3.5, 4),
        "heads": (7, 8, 9, 10, 11, 12),
        "head_size": (64,),
        "activation": ("gelu",),
    }
    assert all(box.contains(architecture) for space in spaces for architecture in space)


def plain(*, activations=("gelu",), rules=(), divisor="heads"):
    sizes = [Dimension(name, (2,)) for name in ("layers", "hidden_size", divisor, "ffn_size")]
    return SearchSpace((*sizes, Dimension("activation", activations)), rules)


def test_the_bounding_box_keeps_the_constraints_that_all_have():
    few, fewer = HeadsAtMost(heads=2), HeadsAtMost(heads=1)
    box = bounding_box([plain(rules=(few, fewer)), plain(rules=(few,))])
    assert box.constraints == (few,)


def test_the_bounding_box_keeps_activations_in_order():
    box = bounding_box([plain(activations=("silu",)), plain(activations=("relu", "silu"))])
    assert values(box)["activation"] == ("silu", "relu")


def test_spaces_of_other_dimensions_have_no_bounding_box():
    with pytest.raises(SpaceError, match=r"the same dimensions, got layers, .* and layers, hid"):
        bounding_box([plain(), plain(divisor="head_size")])
    with pytest.raises(SpaceError, match="at least one search space"):
        bounding_box([])
