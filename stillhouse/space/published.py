"""The search spaces of the papers, as they published them and scaled to another teacher."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import Architecture, BertArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture, mobilebert, mobilebert_tiny
from stillhouse.space.nas_bert import nas_bert, nas_bert_architectures, nas_bert_for
from stillhouse.space.search_space import Dimension, SearchSpace

__all__ = [
    "autodistil",
    "autodistil_ablation",
    "autodistil_for",
    "autodistill",
    "autodistill_for",
    "autodistill_references",
    "bounding_box",
    "kd_nas",
    "kd_nas_for",
    "nas_bert",
    "nas_bert_architectures",
    "nas_bert_for",
]

_LAYERS = (3, 4, 6, 10, 12)
_HEADS = (2, 3, 4, 6, 12)
_WIDTHS = (384, 768)
_WIDE_WIDTHS = (128, 256, 384, 512, 576, 768)
_FFN_SIZES = (384, 512, 576, 768, 1024, 1536, 2048, 3072)
_ACTIVATIONS = ("gelu", "relu", "silu")

_PUBLISHED_TEACHER = BertArchitecture(layers=12, hidden_size=768, heads=12, ffn_size=3072)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SubSpace:
    """Values of one sub-space of AutoDistil, for the published teacher."""

    layers: tuple[int, ...]
    hidden_size: tuple[int, ...]
    ffn_ratio: tuple[float, ...]
    heads: tuple[int, ...]


_TINY = _SubSpace(
    layers=(4, 5, 6, 7),
    hidden_size=(128, 160, 192, 224),
    ffn_ratio=(2.0, 2.5, 3.0, 3.5),
    heads=(7, 8, 9, 10),
)
_SMALL = _SubSpace(
    layers=(9, 10, 11, 12),
    hidden_size=(256, 288, 320, 352),
    ffn_ratio=(2.5, 3.0, 3.5, 4.0),
    heads=(7, 8, 9, 10),
)
_BASE = _SubSpace(
    layers=(9, 10, 11, 12),
    hidden_size=(544, 576, 608, 640),
    ffn_ratio=(2.5, 3.0, 3.5, 4.0),
    heads=(9, 10, 11, 12),
)
_AUTODISTIL = {"tiny": _TINY, "small": _SMALL, "base": _BASE}
_DEEP = (7, 8, 9, 10, 11, 12)

_ABLATIONS = {
    2: (replace(_TINY, layers=_DEEP), replace(_BASE, layers=_DEEP)),
    3: (_TINY, _SMALL, _BASE),
    4: (
        replace(_TINY, layers=(5, 6, 7)),
        replace(_SMALL, layers=(5, 6, 7)),
        replace(_SMALL, layers=(10, 11, 12)),
        replace(_BASE, layers=(10, 11, 12)),
    ),
    5: (
        replace(_TINY, layers=(6, 7)),
        replace(_SMALL, layers=(9, 10)),
        replace(_SMALL, layers=(11, 12)),
        replace(_BASE, layers=(9, 10)),
        replace(_BASE, layers=(11, 12)),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _MobileSpace:
    """Values of AutoDistill's space but depth and embeddings."""

    hidden_size: tuple[int, ...]
    bottleneck_size: tuple[int, ...]
    heads: tuple[int, ...]
    ffn_size: tuple[int, ...]
    ffn_count: tuple[int, ...]


_MOBILE_WIDTH = 512
_MOBILE = _MobileSpace(
    hidden_size=(128, 256, 384, 512),
    bottleneck_size=(64, 96, 128, 160),
    heads=(1, 2, 4, 8),
    ffn_size=(384, 512, 640),
    ffn_count=(2, 4, 6),
)


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
    head_size = min(teacher.head_size, teacher.hidden_size)  # free heads may be wider
    return _space(
        _scaled(_LAYERS, teacher.layers, reference.layers),
        _scaled(widths, teacher.hidden_size, reference.hidden_size, step=head_size),
        _scaled(_HEADS, teacher.heads, reference.heads),
        _scaled(_FFN_SIZES, teacher.ffn_size, reference.ffn_size, step=8),
    )


def autodistil(name: str) -> SearchSpace:
    """Return one of AutoDistil's three sub-spaces of 256 architectures each.

    Heads are free: they are 64 wide whatever the width of the layers.

    Source: Xu et al., arXiv 2201.12507; its published code has the same ranges.

    Args:
        name: tiny, small or base.

    Raises:
        SpaceError: There is no such sub-space.
    """
    return autodistil_for(_PUBLISHED_TEACHER, name)


def autodistil_for(teacher: Architecture, name: str) -> SearchSpace:
    """Return a sub-space of AutoDistil in the proportions of another teacher.

    Depths, widths and heads are the published fractions of a teacher of 12 layers of 768 with 12
    heads; ratios of the feed-forward size are the published ones, heads are as wide as the
    teacher's. Depths and heads round to the nearest whole number, widths to the nearest multiple
    of 16 within the teacher's, halves up, and all are at least one step; values that meet are
    merged.

    Args:
        teacher: The teacher's architecture; its activation is kept.
        name: tiny, small or base.

    Returns:
        The space, of 256 architectures at most; the published one for the published teacher.

    Raises:
        SpaceError: There is no such sub-space.
    """
    if name not in _AUTODISTIL:
        raise SpaceError(
            f"a sub-space of AutoDistil is one of {', '.join(_AUTODISTIL)}, got {name!r}"
        )
    return _autodistil_space(teacher, _AUTODISTIL[name])


def autodistil_ablation(count: int) -> tuple[SearchSpace, ...]:
    """Return the sub-spaces of AutoDistil's ablation over their number, the smallest first.

    The published code has both of two (384 architectures each) and the largest of four (192) and
    of five (128). The other ones of four and five are ours: the same sizes with the depths, widths
    and heads of the three, no two sharing an architecture. Three are `autodistil`'s. The single
    one is ours as well, the bounding box of the three (2,880): the paper's one-shot spaces of 27 to
    11,232 architectures have other values.

    Args:
        count: Number of sub-spaces, 1 to 5.

    Raises:
        SpaceError: The ablation has no such number.
    """
    if count == 1:
        return (bounding_box(autodistil_ablation(3)),)
    if count not in _ABLATIONS:
        raise SpaceError(f"the ablation of AutoDistil has 1 to 5 sub-spaces, got {count}")
    return tuple(_autodistil_space(_PUBLISHED_TEACHER, item) for item in _ABLATIONS[count])


def autodistill(*, literal: bool = False) -> SearchSpace:
    """Return AutoDistill's space of 576 MobileBERTs, all of 24 layers.

    Source: the open re-implementation of Zhang et al., arXiv 2201.08539, whose own table could not
    be read. It lists 246 as the second hidden size, certainly a slip for 256.

    Args:
        literal: Keeps the 246.
    """
    widths = (128, 246, 384, 512) if literal else _MOBILE.hidden_size
    return _mobile_space(replace(_MOBILE, hidden_size=widths), layers=(24,), embedding_size=128)


def autodistill_for(teacher: Architecture) -> SearchSpace:
    """Return AutoDistill's space in the proportions of another teacher.

    Students are as deep as the teacher, for each layer learns from one of the teacher's. Widths are
    the published fractions of 512, the width of MobileBERT's own teacher, rounded to multiples of 8
    (halves up, at least 8); values that meet are merged. Numbers of heads and of feed-forward
    networks stay as they are; where heads do not divide a bottleneck, the point is left out.

    Args:
        teacher: The teacher's architecture.
    """

    def scaled(values: Sequence[int]) -> tuple[int, ...]:
        return _scaled_up(values, teacher.hidden_size, _MOBILE_WIDTH, step=8)

    space = _MobileSpace(
        hidden_size=scaled(_MOBILE.hidden_size),
        bottleneck_size=scaled(_MOBILE.bottleneck_size),
        heads=_MOBILE.heads,
        ffn_size=scaled(_MOBILE.ffn_size),
        ffn_count=_MOBILE.ffn_count,
    )
    # As narrow as the narrowest student, so that all have the same embeddings.
    return _mobile_space(space, layers=(teacher.layers,), embedding_size=min(space.hidden_size))


def autodistill_references(teacher: Architecture) -> dict[str, MobileBertArchitecture]:
    """Return the hand-crafted MobileBERT and MobileBERT-tiny in the proportions of a teacher.

    They are what AutoDistill has to beat, scaled as `autodistill_for` scales its space.

    Args:
        teacher: The teacher's architecture.
    """

    def width(value: int) -> int:
        return _scaled_up([value], teacher.hidden_size, _MOBILE_WIDTH, step=8)[0]

    def scaled(one: MobileBertArchitecture) -> MobileBertArchitecture:
        return replace(
            one,
            layers=teacher.layers,
            hidden_size=width(one.hidden_size),
            bottleneck_size=width(one.bottleneck_size),
            ffn_size=width(one.ffn_size),
            embedding_size=width(one.embedding_size),
        )

    return {"MobileBERT": scaled(mobilebert()), "MobileBERT-tiny": scaled(mobilebert_tiny())}


def bounding_box(spaces: Sequence[SearchSpace]) -> SearchSpace:
    """Return the smallest grid that holds every one of several spaces.

    Args:
        spaces: At least one; all with the same dimensions.

    Returns:
        The space of all their values, with the constraints that all of them have.

    Raises:
        SpaceError: No space is given, or their dimensions differ.
    """
    if not spaces:
        raise SpaceError("a bounding box needs at least one search space, got none")
    first, *others = spaces
    names = [dimension.name for dimension in first.dimensions]
    for other in others:
        found = [dimension.name for dimension in other.dimensions]
        if sorted(found) != sorted(names):
            raise SpaceError(
                f"search spaces of one bounding box have the same dimensions, got "
                f"{', '.join(names)} and {', '.join(found)}"
            )
    shared = (rule for rule in first.constraints if all(rule in o.constraints for o in others))
    return SearchSpace(tuple(_spanned(name, spaces) for name in names), tuple(shared))


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


def _autodistil_space(teacher: Architecture, published: _SubSpace) -> SearchSpace:
    reference = _PUBLISHED_TEACHER
    layers = _scaled_up(published.layers, teacher.layers, reference.layers)
    widest = max(16, teacher.hidden_size // 16 * 16)
    widths = _scaled_up(published.hidden_size, teacher.hidden_size, reference.hidden_size, step=16)
    widths = tuple(sorted({min(width, widest) for width in widths}))
    heads = _scaled_up(published.heads, teacher.heads, reference.heads)
    return SearchSpace(
        (
            Dimension("layers", layers),
            Dimension("hidden_size", widths),
            Dimension("ffn_ratio", published.ffn_ratio),
            Dimension("heads", heads),
            Dimension("head_size", (teacher.head_size,)),
            Dimension("activation", (teacher.activation,)),
        )
    )


def _mobile_space(
    values: _MobileSpace, *, layers: tuple[int, ...], embedding_size: int
) -> SearchSpace:
    return SearchSpace(
        (
            Dimension("layers", layers),
            Dimension("hidden_size", values.hidden_size),
            Dimension("bottleneck_size", values.bottleneck_size),
            Dimension("heads", values.heads),
            Dimension("ffn_size", values.ffn_size),
            Dimension("ffn_count", values.ffn_count),
            Dimension("embedding_size", (embedding_size,)),
        )
    )


def _spanned(name: str, spaces: Sequence[SearchSpace]) -> Dimension:
    dimensions = (item for space in spaces for item in space.dimensions if item.name == name)
    values = dict.fromkeys(value for dimension in dimensions for value in dimension.values)
    if name == "activation":
        return Dimension(name, tuple(values))  # in the order of the spaces
    return Dimension(name, tuple(sorted(values, key=float)))


def _scaled(values: Sequence[int], ours: int, theirs: int, *, step: int = 1) -> tuple[int, ...]:
    """Scale by ours/theirs and round to multiples of `step`, halves down, at least one step."""
    steps = (Fraction(value * ours, theirs * step) for value in values)
    return _multiples((math.ceil(item - Fraction(1, 2)) for item in steps), step)


def _scaled_up(values: Sequence[int], ours: int, theirs: int, *, step: int = 1) -> tuple[int, ...]:
    """Scale by ours/theirs and round to multiples of `step`, halves up, at least one step."""
    steps = (Fraction(value * ours, theirs * step) for value in values)
    return _multiples((math.floor(item + Fraction(1, 2)) for item in steps), step)


def _multiples(counts: Iterable[int], step: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, count) * step for count in counts}))
