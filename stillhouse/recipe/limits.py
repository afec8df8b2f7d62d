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
    limits: LimitSettings,
    comparison: Comparison | None,
    *,
    parameters: int,
    flops_fraction: float,
) -> dict[str, float]:
    """Tells for each limit how far it is exceeded, as a fraction of the limit.

    Latency counts with the upper end of its 95 % interval, so that a limit is met only where the
    measurement is sure of it.

    Args:
        limits: What is allowed.
        comparison: The student's latency beside the teacher's; `None` where no limit is on it.
        parameters: All of the student's.
        flops_fraction: Operations of the student as a share of the teacher's.

    Returns:
        By limit: 0.25 means a quarter over, 0 or less means met.
    """
    used = {
        "size_mb": size_mb(parameters),
        "parameters": float(parameters),
        "params_m": parameters / 1e6,
        "flops_fraction": flops_fraction,
    }
    allowed = limits.given()
    if comparison is not None:
        used |= dict.fromkeys(("latency_ms", "speedup"), comparison.student.high_ms)
        if "speedup" in allowed:
            allowed["speedup"] = comparison.teacher.median_ms / allowed["speedup"]
    return {name: used[name] / bound - 1 for name, bound in allowed.items()}
