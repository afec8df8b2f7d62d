"""What the trials of a run are compared by: who beats whom, and who is beaten by none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias, TypeVar

import moocore
import numpy as np

Names: TypeAlias = tuple[str, ...]

QUALITY, LATENCY, REWARD = "quality", "latency_ms", "reward"
TWO: Names = (QUALITY, LATENCY)
KNOWN: Names = (*TWO, "size_mb", "flops_fraction")


class Compared(Protocol):
    """A trial, or what is set beside trials."""

    @property
    def quality(self) -> float | None:
        """The only one of the objectives that is made high."""
        ...

    @property
    def latency_ms(self) -> float | None:
        """Latency on the device of the search."""
        ...

    @property
    def size_mb(self) -> float | None:
        """Size of the weights in 10⁶ bytes."""
        ...

    @property
    def flops_fraction(self) -> float | None:
        """Operations as a share of the teacher's."""
        ...


Kind = TypeVar("Kind", bound=Compared)


def compared_by(objectives: Sequence[str]) -> Names:
    """The objectives of the front; under a reward, which weighs them in one number, both of these.

    Args:
        objectives: Those of the search; names that this version does not know are left out.
    """
    known = tuple(name for name in KNOWN if name in objectives)
    return TWO if REWARD in objectives or not known else known


def value(one: Compared, name: str) -> float | None:
    """What is known of an objective."""
    known = {
        QUALITY: one.quality,
        LATENCY: one.latency_ms,
        "size_mb": one.size_mb,
        "flops_fraction": one.flops_fraction,
    }
    return known[name]


def beats(one: Compared, other: Compared, names: Names) -> bool:
    """Whether one is at least as good in every objective and better in one."""
    ours, theirs = _losses(one, names), _losses(other, names)
    if ours is None or theirs is None:
        return False
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


def unbeaten(several: Iterable[Kind], names: Names) -> list[Kind]:
    """Those that no other beats; what lacks the value of an objective is left out."""
    pairs = [(one, losses) for one in several if (losses := _losses(one, names)) is not None]
    if not pairs:
        return []
    kept = moocore.is_nondominated(np.array([losses for _, losses in pairs]), keep_weakly=True)
    return [one for (one, _), is_kept in zip(pairs, kept, strict=True) if is_kept]


def _losses(one: Compared, names: Names) -> tuple[float, ...] | None:
    """The objectives, all as what is lower for the better; None where one is unknown."""
    values = [(name, value(one, name)) for name in names]
    losses = [-known if name == QUALITY else known for name, known in values if known is not None]
    return tuple(losses) if len(losses) == len(names) else None
