import pytest

from stillhouse.errors import SettingsError, SpaceError
from stillhouse.recipe.mobile_shapes import mobilebert_named
from stillhouse.space.architecture import BertArchitecture

# Half as wide as MobileBERT's own teacher, so that its sizes are halved.
TEACHER = BertArchitecture(layers=6, hidden_size=256, heads=4, ffn_size=1024)


def test_a_hand_crafted_one_is_known_by_its_name():
    whole, tiny = (mobilebert_named(name, TEACHER) for name in ("MobileBERT", "MobileBERT-tiny"))

    assert (whole.layers, whole.hidden_size, whole.bottleneck_size) == (6, 256, 64)
    assert (whole.ffn_size, whole.ffn_count, whole.embedding_size) == (256, 4, 64)
    assert (tiny.ffn_count, tiny.bottleneck_attention) == (2, True)


def test_what_a_shape_does_not_say_is_as_in_mobilebert():
    one = mobilebert_named(" hidden_size = 128, ffn_count=1,attention=bottleneck", TEACHER)

    assert (one.hidden_size, one.ffn_count, one.bottleneck_attention) == (128, 1, True)
    assert (one.layers, one.heads, one.embedding_size) == (6, 4, 64)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("mobilebert", "did you mean 'MobileBERT'?"),
        ("MobileBERT tiny", "did you mean 'MobileBERT-tiny'?"),
        ("org/checkpoint", "MobileBERT and MobileBERT-tiny, or a shape such as"),
    ],
)
def test_another_name_is_refused_with_the_nearest(text, hint):
    with pytest.raises(SettingsError) as refused:
        mobilebert_named(text, TEACHER)

    assert hint in str(refused.value)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("heads=", "name=value pairs"),
        ("heads=2,heads=4", "each name once, got 'heads=4'"),
        ("heads=2,", "name=value pairs"),
        ("head_size=8", "unknown: head_size"),
        ("heads=many", "heads must be a whole number"),
        ("heads=3", "multiple of heads, got 64 and 3"),
        ("family=bert", "family must be 'mobilebert'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(text, message):
    with pytest.raises(SpaceError, match=message):
        mobilebert_named(text, TEACHER)
