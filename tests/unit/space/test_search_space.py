import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.constraints import EncoderBelow, HeadsAtMost
from stillhouse.space.search_space import Dimension, SearchSpace

PROPERTY = settings(deadline=None, database=None, max_examples=60)


def numbers(low, high, most=4):
    sizes = st.lists(st.integers(low, high), min_size=1, max_size=most, unique=True)
    return sizes.map(lambda values: tuple(sorted(values)))


@st.composite
def spaces(draw):
    heads = draw(st.sampled_from((("heads",), ("head_size",), ("heads", "head_size"))))
    inner = draw(
        st.one_of(
            numbers(1, 64).map(lambda values: Dimension("ffn_size", values)),
            numbers(1, 16).map(
                lambda quarters: Dimension("ffn_ratio", tuple(count / 4 for count in quarters))
            ),
        )
    )
    dimensions = [
        Dimension("layers", draw(numbers(1, 12))),
        # Multiples of 4, so that quarters of them are whole and no two ratios collide.
        Dimension("hidden_size", tuple(4 * width for width in draw(numbers(1, 16)))),
        *(Dimension(name, draw(numbers(1, 12))) for name in heads),
        inner,
    ]
    if draw(st.booleans()):
        dimensions.append(Dimension("activation", ("silu", "gelu")))
    rules = draw(st.sampled_from(((), (HeadsAtMost(heads=4),), (EncoderBelow(parameters=9_000),))))
    return SearchSpace(tuple(draw(st.permutations(dimensions))), rules)


def grid(space):
    names = [dimension.name for dimension in space.dimensions]
    ranges = (range(len(dimension.values)) for dimension in space.dimensions)
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*ranges)]


@PROPERTY
@given(spaces())
def test_encode_undoes_decode_and_decode_undoes_encode(space):
    for architecture in space.enumerate():
        assert space.decode(space.encode(architecture)) == architecture
    for indices in grid(space):
        architecture = space.try_decode(indices)
        if architecture is not None:
            assert space.encode(architecture) == indices


@PROPERTY
@given(spaces())
def test_size_counts_distinct_architectures(space):
    decoded = [space.try_decode(indices) for indices in grid(space)]
    assert len(decoded) == space.grid_size
    assert {item for item in decoded if item is not None} == set(space.enumerate())
    assert space.size() == sum(item is not None for item in decoded)


@PROPERTY
@given(spaces(), st.integers(0, 2**32 - 1))
def test_samples_and_mutants_stay_inside(space, seed):
    generator = np.random.default_rng(seed)
    if space.size() == 0:
        with pytest.raises(SpaceError, match="holds no architecture"):
            space.sample(generator)
        with pytest.raises(SpaceError, match="holds no architecture"):
            space.smallest()
        return
    parent = space.sample(generator)
    assert space.contains(parent)
    for probability in (0.0, 0.3, 1.0):
        mutant = space.mutate(parent, generator, probability)
        assert space.contains(mutant)
        assert (mutant == parent) == (space.size() == 1)


@PROPERTY
@given(spaces(), st.integers(1, 12))
def test_another_constraint_only_takes_away(space, heads):
    narrow = space.with_constraint(HeadsAtMost(heads=heads))
    assert set(narrow.enumerate()) == {a for a in space.enumerate() if a.heads <= heads}
    assert narrow.grid_size == space.grid_size


def tiny(**changes):
    dimensions = {
        "layers": Dimension("layers", (1, 2)),
        "hidden_size": Dimension("hidden_size", (8, 12)),
        "heads": Dimension("heads", (2, 3)),
        "ffn_ratio": Dimension("ffn_ratio", (1, 2.5)),
        **changes,
    }
    return SearchSpace(tuple(dimension for dimension in dimensions.values() if dimension))


def test_points_that_cannot_be_built_are_left_out():
    space = tiny()
    assert space.grid_size == 16
    assert space.size() == 12  # 3 heads do not divide a width of 8: 2 × 1 × 1 × 2 points fewer
    point = {"layers": 0, "hidden_size": 0, "heads": 1, "ffn_ratio": 0}
    assert space.try_decode(point) is None
    with pytest.raises(SpaceError, match="not in the search space"):
        space.decode(point)


def test_decode_by_hand():
    assert tiny().decode({"layers": 1, "hidden_size": 1, "heads": 1, "ffn_ratio": 1}) == (
        BertArchitecture(layers=2, hidden_size=12, heads=3, ffn_size=30)
    )
    by_head_size = tiny(heads=Dimension("head_size", (2, 4)), ffn_ratio=Dimension("ffn_size", (7,)))
    point = {"layers": 0, "hidden_size": 1, "head_size": 1, "ffn_size": 0}
    assert by_head_size.decode(point) == (
        BertArchitecture(layers=1, hidden_size=12, heads=3, ffn_size=7)
    )


def test_a_space_of_heads_and_head_sizes_builds_every_point():
    space = tiny(more=Dimension("head_size", (3, 4)))
    assert space.size() == space.grid_size == 32
    point = {"layers": 0, "hidden_size": 0, "heads": 1, "head_size": 0, "ffn_ratio": 0}
    free = BertArchitecture(layers=1, hidden_size=8, heads=3, head_size=3, ffn_size=8)
    assert space.decode(point) == free
    assert space.encode(free) == point
    # 2 heads of 4 and 3 of 4 fill the widths 8 and 12, 2 ratios and 2 depths each.
    assert sum(not architecture.has_free_heads for architecture in space) == 2 * 4


@pytest.mark.parametrize("kept", [("heads", (2, 3)), ("head_size", (3, 4))])
def test_free_heads_are_not_in_a_space_of_heads_or_of_head_sizes(kept):
    space = tiny(heads=Dimension(*kept))
    shared = BertArchitecture(layers=1, hidden_size=12, heads=3, ffn_size=12)
    free = BertArchitecture(layers=1, hidden_size=12, heads=3, head_size=3, ffn_size=12)
    assert space.contains(shared)
    assert not space.contains(free)
    with pytest.raises(SpaceError, match=r"3 heads of 3, .* its heads must share hidden_size"):
        space.encode(free)


def test_a_space_is_iterated_and_has_a_length():
    space = tiny()
    assert list(space) == list(space.enumerate())
    assert len(space) == space.size() == 12


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"layers": 0}, "indices are needed for"),
        ({"layers": 2, "hidden_size": 0, "heads": 0, "ffn_ratio": 0}, "index of layers must be 0"),
        ({"layers": -1, "hidden_size": 0, "heads": 0, "ffn_ratio": 0}, "got -1"),
    ],
)
def test_indices_that_do_not_fit(point, message):
    with pytest.raises(SpaceError, match=message):
        tiny().try_decode(point)


@pytest.mark.parametrize(
    "change",
    [{"layers": 3}, {"hidden_size": 16}, {"heads": 1}, {"ffn_size": 9}, {"activation": "relu"}],
)
def test_encode_refuses_what_is_not_on_the_grid(change):
    inside = {"layers": 1, "hidden_size": 8, "heads": 2, "ffn_size": 8}
    assert tiny().encode(BertArchitecture(**inside))["layers"] == 0
    outside = BertArchitecture(**{**inside, **change})
    assert not tiny().contains(outside)
    with pytest.raises(SpaceError, match="is not in the search space; choose among layers"):
        tiny().encode(outside)


def test_encode_names_the_constraint_that_refuses():
    space = tiny().with_constraint(HeadsAtMost(heads=2))
    with pytest.raises(SpaceError, match="it must have at most 2 heads"):
        space.encode(BertArchitecture(layers=1, hidden_size=12, heads=3, ffn_size=12))


def test_sample_is_uniform():
    space = tiny()
    generator = np.random.default_rng(0)
    drawn = [space.sample(generator) for _ in range(6_000)]
    counts = [drawn.count(architecture) for architecture in space.enumerate()]
    # 500 expected each, standard deviation 21.4: five of those.
    assert max(abs(count - 500) for count in counts) < 107


def test_same_generator_same_draws():
    space = tiny()

    def draws():
        generator = np.random.default_rng(7)
        start = space.sample(generator)
        return [start] + [space.mutate(start, generator) for _ in range(5)]

    assert draws() == draws()


def test_smallest_is_by_encoder_parameters():
    space = tiny(layers=Dimension("layers", (3, 9)))
    # 3 layers of width 8 with one FFN unit per width unit, against 9 layers or width 12.
    assert space.smallest() == BertArchitecture(layers=3, hidden_size=8, heads=2, ffn_size=8)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("depth", (1,), "a dimension is one of layers"),
        ("layers", (), "has no values"),
        ("layers", (2, 1), "strictly increasing positive whole numbers"),
        ("layers", (1, 1), "strictly increasing"),
        ("layers", (0, 1), "positive"),
        ("layers", (1.0,), "whole numbers"),
        ("layers", (True,), "whole numbers"),
        ("layers", ("1",), "whole numbers"),
        ("ffn_ratio", (1.0, float("inf")), "positive numbers"),
        ("ffn_ratio", (float("nan"),), "positive numbers"),
        ("activation", ("gelu", "gelu"), "distinct"),
        ("activation", ("gelu", "tanh"), "among gelu, relu, silu"),
        ("activation", (1,), "among gelu, relu, silu"),
    ],
)
def test_dimension_rules(name, values, message):
    with pytest.raises(SpaceError, match=message):
        Dimension(name, values)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": None}, "exactly one of the dimensions layers, got none"),
        ({"heads": None}, "needs the dimension heads or head_size, or both"),
        ({"more": Dimension("ffn_size", (4,))}, "exactly one of the dimensions ffn_size"),
        ({"more": Dimension("layers", (4,))}, "layers is there twice"),
        ({"ffn_ratio": Dimension("ffn_ratio", (1, 1.01))}, "different feed-forward sizes"),
        ({"ffn_ratio": Dimension("ffn_ratio", (0.01,))}, "at least 1 for every width"),
    ],
)
def test_space_rules(changes, message):
    with pytest.raises(SpaceError, match=message):
        tiny(**changes)


def test_an_empty_space_says_why():
    empty = tiny().with_constraint(HeadsAtMost(heads=1))
    assert empty.size() == 0
    with pytest.raises(SpaceError, match=r"of 16 points none .* \(at most 1 heads\)"):
        empty.smallest()
