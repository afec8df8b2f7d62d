"""The search spaces of the papers, as they published them and scaled to another teacher."""

from collections.abc import Sequence
from fractions import Fraction

from stillhouse.space.architecture import Architecture, BertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace

_LAYERS = (3, 4, 6, 10, 12)
_HEADS = (2, 3, 4, 6, 12)
_WIDTHS = (384, 768)
_WIDE_WIDTHS = (128, 256, 384, 512, 576, 768)
_FFN_SIZES = (384, 512, 576, 768, 1024, 1536, 2048, 3072)
_ACTIVATIONS = ("gelu", "relu", "silu")

_PUBLISHED_TEACHER = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)


def kd_nas() -> SearchSpace:
    """Return KD-NAS's space of 1,200 architectures for teachers of 12 layers of 768.

    Source: Trivedi et al., arXiv 2303.09639 v2, as two independent re-implementations list it.
    Every number of heads divides both widths, so nothing is ruled out.
    """
    return _space(_LAYERS, _WIDTHS, _HEADS, _FFN_SIZES)


def kd_nas_for(teacher: Architecture, *, wide: bool = True) -> SearchSpace:
    """Return KD-NAS's space in the proportions of another teacher.

    Depths, widths, heads and feed-forward sizes are the published fractions of a 12-layer teacher
    of 768 with 12 heads. Depths round to the nearest whole one, halves down, so that the
    shallowest stays a quarter at most; widths round to whole teacher heads, feed-forward sizes to
    multiples of 8; values that meet are merged.

    Args:
        teacher: The teacher's architecture.
        wide: Adds the widths of 1/6, 1/3, 2/3 and 3/4, which the first version of the paper
            probably had (its list is not public); without them the two published ones stay.

    Returns:
        The space; the published one, plus widths if `wide`, for the published teacher.
    """
    reference = _PUBLISHED_TEACHER
    widths = _WIDE_WIDTHS if wide else _WIDTHS
    head_size = teacher.head_size
    return _space(
        _scaled(_LAYERS, teacher.layers, reference.layers),
        _scaled(widths, teacher.hidden_size, reference.hidden_size, step=head_size),
        _scaled(_HEADS, teacher.heads, reference.heads),
        _scaled(_FFN_SIZES, teacher.ffn_size, reference.ffn_size, step=8),
    )


def _space(
    layers: Sequence[int], widths: Sequence[int], heads: Sequence[int], ffn_sizes: Sequence[int]
) -> SearchSpace:
    return SearchSpace(
        (
            Dimension("layers", tuple(layers)),
            Dimension("hidden_size", tuple(widths)),
            Dimension("heads", tuple(heads)),
            Dimension("ffn_size", tuple(ffn_sizes)),
            Dimension("activation", _ACTIVATIONS),
        )
    )


def _scaled(values: Sequence[int], ours: int, theirs: int, *, step: int = 1) -> tuple[int, ...]:
    """Scale by ours/theirs and round to multiples of `step`, halves down, at least one step."""
    found = set()
    for value in values:
        steps = Fraction(value * ours, theirs * step)
        rounded = -int(-(steps - Fraction(1, 2)) // 1)  # ceiling of steps - 1/2: halves go down
        found.add(max(1, rounded) * step)
    return tuple(sorted(found))
