"""Limits that a student was asked to stay within, and what is known against each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.report.fields import Fields, number, numbers, text

MILLION = 1e6
MEASURED, COUNTED = "measured", "counted"
"""How sizes and the like are known: a file's and a process's are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """A limit and the value of one student.

    Attributes:
        name: As in the settings.
        asked: The limit.
        value: The student's; None if it is not known.
        how: How it is known: a latency's own word, `measured` or `counted`; empty if not at all.
        low, high: The 95 % interval of what was timed or predicted.
        over: By how much the limit is exceeded, as a fraction of it; 0 or less is met. None if that
            is not known.
    """

    name: str
    asked: float
    value: float | None
    how: str
    low: float | None
    high: float | None
    over: float | None


def read_limited(fields: Fields) -> tuple[Limited, ...]:
    """What the measures of a student tell of its limits; none of one that had none."""
    known, over = _known(fields), numbers(fields, "violations")
    return tuple(
        _limited(name, asked, known.get(name, _UNKNOWN), over.get(name))
        for name, asked in numbers(fields, "limits").items()
    )


def _limited(name: str, asked: float, known: _Known, over: float | None) -> Limited:
    how = "" if known.value is None else known.how
    return Limited(
        name=name,
        asked=asked,
        value=known.value,
        how=how,
        low=known.low,
        high=known.high,
        over=over,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """A value of a student, how it is known, and its interval if it has one."""

    value: float | None
    how: str
    low: float | None = None
    high: float | None = None


_UNKNOWN = _Known(value=None, how="")


def _known(fields: Fields) -> Mapping[str, _Known]:
    """Values by limit."""
    low_ms, high_ms = number(fields, "latency_low_ms"), number(fields, "latency_high_ms")
    teacher_ms, parameters = number(fields, "teacher_latency_ms"), number(fields, "parameters")
    latency_how, size_mb = text(fields, "latency_how"), number(fields, "size_mb")
    is_file = size_mb is not None and size_mb == number(fields, "file_mb")
    counted = {
        "parameters": parameters,
        "params_m": None if parameters is None else parameters / MILLION,
        "flops_fraction": number(fields, "flops_fraction"),
    }
    return {
        "latency_ms": _Known(
            value=number(fields, "latency_ms"), how=latency_how, low=low_ms, high=high_ms
        ),
        "speedup": _Known(
            value=number(fields, "speedup"),
            how=latency_how,
            low=teacher_ms / high_ms if teacher_ms and high_ms else None,
            high=teacher_ms / low_ms if teacher_ms and low_ms else None,
        ),
        "size_mb": _Known(value=size_mb, how=MEASURED if is_file else COUNTED),
        "memory_mb": _Known(value=number(fields, "memory_mb"), how=MEASURED),
        **{name: _Known(value=value, how=COUNTED) for name, value in counted.items()},
    }
