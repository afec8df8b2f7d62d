"""Limits: how far an architecture is over or under each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.device.latency import Comparison
    from stillhouse.run.settings import LimitSettings

BYTES_PER_PARAMETER = 4
DEFAULT_SPEEDUP = 2.0


def size_mb(parameters: int) -> float:
    """Size of float32 weights in 10⁶ bytes."""
    return parameters * BYTES_PER_PARAMETER / 1e6


def violations(
    limits: LimitSettings, comparison: Comparison, *, parameters: int
) -> dict[str, float]:
    """Tells for each limit how far it is exceeded, as a fraction of the limit.

    Latency counts with the upper end of its 95 % interval, so that a limit is met only where the
    measurement is sure of it.

    Returns:
        By limit: 0.25 means a quarter over, 0 or less means met.
    """
    high_ms = comparison.student.high_ms
    used = {
        "latency_ms": high_ms,
        "speedup": high_ms,
        "size_mb": size_mb(parameters),
        "parameters": float(parameters),
    }
    allowed = limits.given()
    if "speedup" in allowed:
        allowed["speedup"] = comparison.teacher.median_ms / allowed["speedup"]
    return {name: used[name] / bound - 1 for name, bound in allowed.items()}
