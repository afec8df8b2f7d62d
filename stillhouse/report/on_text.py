"""What a student that was distilled on plain text tells of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.report.fields import Fields, number, numbers, text


@dataclass(frozen=True, slots=True, kw_only=True)
class OnText:
    """Losses on held-out text by their names, before the distillation and after it.

    `layer_map` has for each student layer its teacher layer, counted from 1, or 0.
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    layer_map: str
    tokens: float | None
    flops_fraction: float | None


def read_on_text(fields: Fields) -> OnText | None:
    """What a student's metrics.json tells; None for one that learnt on a task."""
    after = numbers(fields, "held_out_losses")
    if not after:
        return None
    return OnText(
        before=numbers(fields, "held_out_losses_before"),
        after=after,
        layer_map=text(fields, "layer_map"),
        tokens=number(fields, "tokens"),
        flops_fraction=number(fields, "flops_fraction"),
    )
