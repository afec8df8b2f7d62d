"""The search space of a run: the default one for the teacher, with what the settings change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, assert_never

from stillhouse.errors import SpaceError
from stillhouse.space.constraints import EncoderBelow, TotalBelow
from stillhouse.space.default import default_space
from stillhouse.space.families import DIMENSION_NAMES
from stillhouse.space.published import kd_nas_for
from stillhouse.space.search_space import Dimension, SearchSpace

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.settings import SpaceSettings
    from stillhouse.space.architecture import Architecture

SMALL_SHARE = 0.05
"""Below this share of the space left by the size rule, the user is told before the search."""

SPELLINGS = (("heads", "head_size"), ("ffn_size", "ffn_ratio"))
"""Pairs of dimensions that say the same in other words, in a space that has one of them.

Where heads are free, a space has both heads and head_size, and each is a choice of its own.
"""


def space_of(bench: Workbench) -> SearchSpace:
    """Builds the space and tells the user what the size rule does to it.

    Raises:
        SpaceError: If the rule leaves nothing.
    """
    settings = bench.settings.space
    base = bench.own.space or base_space(settings, bench.teacher_architecture)
    base = with_given(base, settings)
    before = base.size()
    space = base.with_constraint(_size_rule(bench, settings))
    try:
        left = space.size()
    except SpaceError as error:
        raise SpaceError(_nothing_left(bench, settings, before)) from error
    if left == 0:
        raise SpaceError(_nothing_left(bench, settings, before))
    widest = max(architecture.hidden_size for architecture in space.enumerate())
    excluded = widest < bench.teacher_architecture.hidden_size
    if left < SMALL_SHARE * before or excluded:
        width = f", none as wide as the teacher (widest {widest})" if excluded else ""
        bench.narrator.say(
            f"Size rule ({settings.size_count} parameters below {settings.size_fraction:g} of the "
            f"teacher's) leaves {left} of {before} architectures{width}; "
            "space.size_fraction and space.size_count change it."
        )
    return space


def base_space(settings: SpaceSettings, teacher: Architecture) -> SearchSpace:
    """Builds the space that the settings start from, for a teacher of any shape."""
    match settings.base:
        case "default":
            return default_space(teacher)
        case "kd-nas":
            return kd_nas_for(teacher, wide=False)
        case "kd-nas-wide":
            return kd_nas_for(teacher)
        case _:
            assert_never(settings.base)


def with_given(space: SearchSpace, settings: SpaceSettings) -> SearchSpace:
    """Replaces dimensions that the settings give, each in its own or in the alternative spelling.

    Raises:
        SpaceError: If both spellings of one dimension are given, or one that the space has not.
    """
    return SearchSpace(_dimensions(space.dimensions, settings), space.constraints)


def _dimensions(base: Sequence[Dimension], settings: SpaceSettings) -> tuple[Dimension, ...]:
    present = {dimension.name for dimension in base}
    known = present.union(*(pair for pair in SPELLINGS if present.intersection(pair)))
    foreign = [n for n in DIMENSION_NAMES if n not in known and getattr(settings, n) is not None]
    if foreign:
        raise SpaceError(
            f"space.{foreign[0]} is no dimension of this space, which has "
            f"{', '.join(sorted(known))}: leave it out"
        )
    spellings = [pair for pair in SPELLINGS if not present.issuperset(pair)]
    for one, other in spellings:
        if getattr(settings, one) is not None and getattr(settings, other) is not None:
            raise SpaceError(f"space.{one} and space.{other} say the same: give only one")
    return tuple(_given(dimension.name, spellings, settings) or dimension for dimension in base)


def _given(
    name: str, spellings: Sequence[tuple[str, str]], settings: SpaceSettings
) -> Dimension | None:
    names = next((pair for pair in spellings if name in pair), (name,))
    given = [(other, getattr(settings, other)) for other in names]
    return next((Dimension(n, tuple(values)) for n, values in given if values is not None), None)


def _size_rule(bench: Workbench, settings: SpaceSettings) -> EncoderBelow | TotalBelow:
    counts = bench.counts(bench.teacher_architecture)
    if settings.size_count == "encoder":
        return EncoderBelow(parameters=round(settings.size_fraction * counts.encoder))
    return TotalBelow(
        parameters=round(settings.size_fraction * counts.total),
        ends=bench.ends_of(bench.teacher.config),
    )


def _nothing_left(bench: Workbench, settings: SpaceSettings, before: int) -> str:
    return (
        f"size rule: none of {before} architectures has fewer {settings.size_count} parameters "
        f"than {settings.size_fraction:g} of the teacher's ({bench.teacher_architecture.label}): "
        "raise space.size_fraction, or add smaller values to the space"
    )
