import pytest

from stillhouse.errors import SpaceError
from stillhouse.recipe import space as space_module
from stillhouse.recipe.space import space_of
from stillhouse.space.published import autodistil_for


def values(space):
    return {dimension.name: dimension.values for dimension in space.dimensions}


def test_the_size_rule_leaves_the_smaller_half_silently(bench, talk):
    space = space_of(bench())
    assert talk.said == []
    # Encoder of a layer: 4 (D² + D) attention, 2 D F + F + D feed-forward, 4 D norms.
    half_of_teacher = 4 * (4 * (256 * 256 + 256) + 2 * 256 * 1024 + 1024 + 256 + 4 * 256) // 2
    for one in space.enumerate():
        width, inner = one.hidden_size, one.ffn_size
        layer = 4 * (width**2 + width) + 2 * width * inner + inner + width + 4 * width
        assert one.layers * layer < half_of_teacher
    assert max(one.hidden_size for one in space.enumerate()) == 256
    assert 0.05 < space.size() / 192 < 1  # 4 depths, 6 widths, 2 head sizes, 4 ratios


def test_no_student_as_wide_as_the_teacher_is_said(bench, talk):
    # Of one layer, attention alone is a third; with the narrowest FFN it is just over half.
    space = space_of(bench(layers=1))
    [said] = talk.said
    assert "none as wide as the teacher (widest 192)" in said
    assert f"leaves {space.size()} of" in said
    assert "encoder parameters below 0.5" in said


def test_few_architectures_left_is_said(bench, talk):
    space = space_of(bench({"space": {"size_fraction": 0.02}}))
    [said] = talk.said
    assert f"leaves {space.size()} of" in said
    assert "space.size_fraction" in said


def test_counting_the_embeddings_too(bench, talk):
    # 30,000 word vectors outweigh the encoder: below half of everything means below half the width.
    space = space_of(bench({"space": {"size_count": "total"}}))
    assert max(one.hidden_size for one in space.enumerate()) < 256
    assert "total parameters" in talk.said[0]


@pytest.mark.parametrize("count", ["encoder", "total"])
def test_nothing_left_is_an_error_that_names_the_rule(bench, count):
    settings = {"space": {"size_fraction": 0.0001, "size_count": count}}
    with pytest.raises(SpaceError, match=rf"fewer {count} parameters than 0\.0001.*size_fraction"):
        space_of(bench(settings))


@pytest.mark.parametrize("name", ["bottleneck_size", "ffn_count", "embedding_size"])
def test_a_dimension_of_another_family_is_refused(bench, name):
    with pytest.raises(SpaceError, match=f"space.{name} is no dimension of this space"):
        space_of(bench({"space": {name: [2, 4]}}))


def test_settings_replace_dimensions(bench):
    space = space_of(bench({"space": {"layers": [1, 3], "activation": ["relu", "gelu"]}}))
    assert values(space)["layers"] == (1, 3)
    assert values(space)["activation"] == ("relu", "gelu")
    assert values(space)["hidden_size"] == (32, 64, 96, 128, 192, 256)


def test_heads_replace_head_size_and_ffn_size_the_ratio(bench):
    space = space_of(bench({"space": {"heads": [1, 2], "ffn_size": [64, 128]}}))
    assert values(space)["heads"] == (1, 2)
    assert values(space)["ffn_size"] == (64, 128)
    assert not {"head_size", "ffn_ratio"} & values(space).keys()


@pytest.fixture
def of_free_heads(monkeypatch):
    """A base space with 5 to 7 heads, each as wide as the teacher's."""

    def tiny(_, teacher):
        return autodistil_for(teacher, "tiny")

    monkeypatch.setattr(space_module, "base_space", tiny)


@pytest.mark.parametrize(
    ("given", "heads", "head_size"),
    [
        ({}, (5, 6, 7), (32,)),
        ({"heads": [2, 3]}, (2, 3), (32,)),
        ({"head_size": [8, 16]}, (5, 6, 7), (8, 16)),
        ({"heads": [2, 3], "head_size": [8, 16]}, (2, 3), (8, 16)),
    ],
)
def test_free_heads_and_their_size_are_two_choices(bench, of_free_heads, given, heads, head_size):
    found = values(space_of(bench({"space": {**given, "size_fraction": 1.0}})))
    assert (found["heads"], found["head_size"]) == (heads, head_size)
    assert found["ffn_ratio"] == (2, 2.5, 3, 3.5)


def test_other_spellings_stay_one_choice_where_heads_are_free(bench, of_free_heads):
    space = {"heads": [2], "head_size": [8], "ffn_size": [64, 128]}
    found = values(space_of(bench({"space": space})))
    assert found["ffn_size"] == (64, 128)
    assert "ffn_ratio" not in found
    with pytest.raises(SpaceError, match=r"space.ffn_size and space.ffn_ratio say the same"):
        space_of(bench({"space": {**space, "ffn_ratio": [2]}}))


@pytest.mark.parametrize(("one", "other"), [("heads", "head_size"), ("ffn_size", "ffn_ratio")])
def test_two_spellings_of_one_dimension_are_refused(bench, one, other):
    with pytest.raises(SpaceError, match=f"space.{one} and space.{other} say the same"):
        space_of(bench({"space": {one: [2], other: [2]}}))


def test_values_that_are_no_dimension_are_refused(bench):
    with pytest.raises(SpaceError, match=r"layers must be strictly increasing.*\(2, 1\)"):
        space_of(bench({"space": {"layers": [2, 1]}}))
