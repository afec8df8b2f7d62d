"""The space that is searched when none is given."""

from stillhouse.space.architecture import Architecture
from stillhouse.space.constraints import HeadsAtMost
from stillhouse.space.search_space import Dimension, SearchSpace

_MOST_DEPTHS = 8
_WIDTH_FRACTIONS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
_NARROWEST_HEAD = 8
_FFN_RATIOS = (1, 2, 3, 4)


def default_space(teacher: Architecture) -> SearchSpace:
    """Return the plain BERT students that are no deeper and no wider than the teacher.

    Depths are 1 to the teacher's (eight evenly spread ones of a deeper teacher); widths are an
    eighth to all of the teacher's, rounded to whole teacher heads; heads are as wide as the
    teacher's or half of it, and never more than the teacher has. Students share their width out
    among their heads even if the teacher's are free.

    Args:
        teacher: The teacher's architecture; its activation is kept.

    Returns:
        A space of at most 384 architectures, the smallest first.
    """
    head_size = min(teacher.head_size, teacher.hidden_size)
    return SearchSpace(
        (
            Dimension("layers", _depths(teacher.layers)),
            Dimension("hidden_size", _widths(teacher.hidden_size // head_size, head_size)),
            Dimension("head_size", _head_sizes(head_size)),
            Dimension("ffn_ratio", _FFN_RATIOS),
            Dimension("activation", (teacher.activation,)),
        ),
        (HeadsAtMost(heads=teacher.heads),),
    )


def _depths(deepest: int) -> tuple[int, ...]:
    if deepest <= _MOST_DEPTHS:
        return tuple(range(1, deepest + 1))
    step = (deepest - 1) / (_MOST_DEPTHS - 1)
    return tuple(round(1 + step * index) for index in range(_MOST_DEPTHS))


def _widths(heads: int, head_size: int) -> tuple[int, ...]:
    counts = (max(1, round(heads * fraction)) for fraction in _WIDTH_FRACTIONS)
    return tuple(sorted({count * head_size for count in counts}))


def _head_sizes(widest: int) -> tuple[int, ...]:
    half, odd = divmod(widest, 2)
    return (widest,) if odd or half < _NARROWEST_HEAD else (half, widest)
