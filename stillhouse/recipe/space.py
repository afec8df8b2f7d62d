"""The search space of a run: the default one for the teacher, with what the settings change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillhouse.errors import SpaceError
from stillhouse.model.anatomy import label_count
from stillhouse.space.constraints import EncoderBelow, TotalBelow
from stillhouse.space.default import default_space
from stillhouse.space.search_space import Dimension, SearchSpace

if TYPE_CHECKING:
    from stillhouse.recipe.workbench import Workbench
    from stillhouse.run.settings import SpaceSettings

SMALL_SHARE = 0.05
"""Below this share of the space left by the size rule, the user is told before the search."""

ALTERNATIVES = {"heads": "head_size", "ffn_size": "ffn_ratio"}


def space_of(bench: Workbench) -> SearchSpace:
    """Builds the space and tells the user what the size rule does to it.

    Raises:
        SpaceError: If the rule leaves nothing.
    """
    settings = bench.settings.space
    base = default_space(bench.teacher_architecture)
    base = SearchSpace(_dimensions(base.dimensions, settings), base.constraints)
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


def _dimensions(defaults: Sequence[Dimension], settings: SpaceSettings) -> tuple[Dimension, ...]:
    """Replaces dimensions that the settings give, each with its alternative spelling."""
    chosen = {dimension.name: dimension for dimension in defaults}
    for name in ("layers", "hidden_size", "head_size", "ffn_ratio", "activation"):
        values = getattr(settings, name)
        if values is not None:
            chosen[name] = Dimension(name, tuple(values))
    for name, replaced in ALTERNATIVES.items():
        values = getattr(settings, name)
        if values is not None:
            if getattr(settings, replaced) is not None:
                raise SpaceError(f"space.{name} and space.{replaced} say the same: give only one")
            chosen = {
                name if key == replaced else key: Dimension(name, tuple(values))
                if key == replaced
                else dimension
                for key, dimension in chosen.items()
            }
    return tuple(chosen.values())


def _size_rule(bench: Workbench, settings: SpaceSettings) -> EncoderBelow | TotalBelow:
    counts = bench.counts(bench.teacher_architecture)
    if settings.size_count == "encoder":
        return EncoderBelow(parameters=round(settings.size_fraction * counts.encoder))
    config = bench.teacher.config
    return TotalBelow(
        parameters=round(settings.size_fraction * counts.total),
        vocab_size=config.vocab_size,
        positions=config.max_position_embeddings,
        type_vocabulary=config.type_vocab_size,
        labels=label_count(config),
    )


def _nothing_left(bench: Workbench, settings: SpaceSettings, before: int) -> str:
    return (
        f"size rule: none of {before} architectures has fewer {settings.size_count} parameters "
        f"than {settings.size_fraction:g} of the teacher's ({bench.teacher_architecture.label}): "
        "raise space.size_fraction, or add smaller values to the space"
    )
