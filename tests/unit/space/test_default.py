import pytest

from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.default import default_space

BASE = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)


def values(space):
    return {dimension.name: dimension.values for dimension in space.dimensions}


def test_space_of_bert_base():
    space = default_space(BASE)
    assert values(space) == {
        "layers": (1, 3, 4, 6, 7, 9, 10, 12),
        "hidden_size": (128, 192, 256, 384, 576, 768),
        "head_size": (32, 64),
        "ffn_ratio": (1, 2, 3, 4),
        "activation": ("gelu",),
    }
    # With heads of 32, the widths 576 and 768 would need 18 and 24 heads: 8 × (6 + 4) × 4 stay.
    assert space.grid_size == 384
    assert space.size() == 320


def test_holds_the_teacher_and_nothing_larger():
    space = default_space(BASE)
    assert space.contains(BASE)
    for architecture in space.enumerate():
        assert architecture.layers <= 12
        assert architecture.hidden_size <= 768
        assert architecture.heads <= 12


def test_smallest_comes_first():
    space = default_space(BASE)
    smallest = BertArchitecture(layers=1, hidden_size=128, heads=4, ffn_size=128)
    assert next(space.enumerate()) == smallest
    assert space.smallest() == smallest


@pytest.mark.parametrize(
    ("layers", "hidden_size", "heads", "depths", "widths", "head_sizes"),
    [
        (2, 128, 2, (1, 2), (64, 128), (32, 64)),
        (8, 512, 8, (1, 2, 3, 4, 5, 6, 7, 8), (64, 128, 192, 256, 384, 512), (32, 64)),
        (1, 12, 1, (1,), (12,), (12,)),  # half of 12 is under 8
        (3, 54, 2, (1, 2, 3), (27, 54), (27,)),  # 27 has no half
        (24, 64, 4, (1, 4, 8, 11, 14, 17, 21, 24), (16, 32, 48, 64), (8, 16)),
    ],
)
def test_other_teachers(layers, hidden_size, heads, depths, widths, head_sizes):
    teacher = BertArchitecture(
        layers=layers, hidden_size=hidden_size, heads=heads, ffn_size=99, activation="relu"
    )
    space = values(default_space(teacher))
    assert space["layers"] == depths
    assert space["hidden_size"] == widths
    assert space["head_size"] == head_sizes
    assert space["activation"] == ("relu",)


@pytest.mark.parametrize(
    ("hidden_size", "heads", "head_size", "widths"),
    [
        (160, 10, 64, (64, 128)),  # two whole heads fit into the width
        (48, 4, 64, (48,)),  # none does
    ],
)
def test_students_of_free_heads_share_their_width_out(hidden_size, heads, head_size, widths):
    teacher = BertArchitecture(
        layers=2, hidden_size=hidden_size, heads=heads, head_size=head_size, ffn_size=99
    )
    space = default_space(teacher)
    assert values(space)["hidden_size"] == widths
    assert space.size() > 0
    assert not any(architecture.has_free_heads for architecture in space)
