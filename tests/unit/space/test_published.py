import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.published import kd_nas, kd_nas_for

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
