"""Limits that a student was asked to stay within, and what was measured against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.report.fields import Fields, number, numbers

MILLION = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A limit and the measured value of one student.

    Attributes:
        name: As in the settings.
        asked: The limit.
        measured: The student's value; None if it is not known.
        low, high: The 95 % interval of what was timed.
        over: By how much the limit is exceeded, as a fraction of it; 0 or less is met. None if that
            is not known.
    """

    name: str
    asked: float
    measured: float | None
    low: float | None
    high: float | None
    over: float | None


def read_limited(fields: Fields) -> tuple[Limited, ...]:
    """What the measures of a student tell of its limits; none of one that had none."""
    measured, over = _measured(fields), numbers(fields, "violations")
    return tuple(
        Limited(
            name=name,
            asked=asked,
            measured=measured.get(name, (None, None, None))[0],
            low=measured.get(name, (None, None, None))[1],
            high=measured.get(name, (None, None, None))[2],
            over=over.get(name),
        )
        for name, asked in numbers(fields, "limits").items()
    )


def _measured(fields: Fields) -> Mapping[str, tuple[float | None, float | None, float | None]]:
    """Values by limit, each with its interval."""
    low_ms, high_ms = number(fields, "latency_low_ms"), number(fields, "latency_high_ms")
    teacher_ms, parameters = number(fields, "teacher_latency_ms"), number(fields, "parameters")
    counted = {
        "size_mb": number(fields, "size_mb"),
        "memory_mb": number(fields, "memory_mb"),
        "parameters": parameters,
        "params_m": None if parameters is None else parameters / MILLION,
        "flops_fraction": number(fields, "flops_fraction"),
    }
    return {
        "latency_ms": (number(fields, "latency_ms"), low_ms, high_ms),
        "speedup": (
            number(fields, "speedup"),
            teacher_ms / high_ms if teacher_ms and high_ms else None,
            teacher_ms / low_ms if teacher_ms and low_ms else None,
        ),
        **{name: (value, None, None) for name, value in counted.items()},
    }
