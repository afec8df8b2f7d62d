"""Timing passes in turn until their medians are known, again where the machine was too busy."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy import stats

from stillhouse.device.latency import LEAST_RUNS_OF_AN_INTERVAL

logger = logging.getLogger(__name__)

Pass: TypeAlias = Callable[[], None]
"""One forward pass; it returns when the result is there."""

WARM_UP_BLOCK = 5
MOST_WARM_UP_BLOCKS = 6
STABLE_FRACTION = 0.05
"""A warm-up ends when the medians of two blocks differ by less."""
LEAST_RUNS = 20
MOST_RUNS = 400
WANTED_HALF_WIDTH_FRACTION = 0.02
"""Of a median: where its 95 % interval is as narrow, timing ends."""
NOISY_FRACTION = 0.05
"""Half-width of the 95 % interval of a ratio, over the ratio, above which it is taken again."""
MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times of several passes that ran in turn.

    Attributes:
        times_ms: Of each pass, in the order in which it ran.
        noise_fraction: Half-width of the 95 % interval of the ratio of the first pass to the
            second, run by run, as a share of it; that of a single pass alone.
        attempts: How often it was timed anew, the first time included.
    """

    times_ms: tuple[tuple[float, ...], ...]
    noise_fraction: float
    attempts: int

    @property
    def is_noisy(self) -> bool:
        """Whether the ratio did not settle."""
        return self.noise_fraction > NOISY_FRACTION


def time_in_turn(passes: Sequence[Pass], *, longest_s: float) -> Timing:
    """Times passes one by one in turn, so that a machine that changes its speed changes all.

    Where the ratio of the first two does not settle, all are timed anew, and the calmest attempt
    counts; if that is noisy still, a warning says so.

    Args:
        passes: At least one; a student's, then the teacher's.
        longest_s: Time after which an attempt ends even if its intervals are still wide; without
            any there is one attempt.
    """
    attempts: list[Timing] = []
    while not attempts or (attempts[-1].is_noisy and len(attempts) < MOST_ATTEMPTS):
        attempts.append(_attempt(passes, longest_s, len(attempts) + 1))
        if longest_s <= 0:
            return attempts[-1]
    calmest = min(attempts, key=lambda one: one.noise_fraction)
    if calmest.is_noisy:
        logger.warning(
            "this machine is too busy to time models well: after %d attempts a ratio is known to "
            "± %.0f %% only (%.0f %% is wanted); stop other work on it, or take fewer threads",
            len(attempts),
            100 * calmest.noise_fraction,
            100 * NOISY_FRACTION,
        )
    return Timing(
        times_ms=calmest.times_ms,
        noise_fraction=calmest.noise_fraction,
        attempts=len(attempts),
    )


def _attempt(passes: Sequence[Pass], longest_s: float, number: int) -> Timing:
    deadline = time.monotonic() + longest_s
    _warm_up(passes, deadline)
    times_ms: list[list[float]] = [[] for _ in passes]
    for run in range(1, MOST_RUNS + 1):
        for one, times in zip(passes, times_ms, strict=True):
            times.append(_time_once(one))
        if run >= LEAST_RUNS and run % 10 == 0:
            settled = all(half_width_fraction(t) <= WANTED_HALF_WIDTH_FRACTION for t in times_ms)
            if settled or time.monotonic() > deadline:
                break
    ratios = np.array(times_ms[0]) / np.array(times_ms[1]) if len(passes) > 1 else times_ms[0]
    return Timing(
        times_ms=tuple(map(tuple, times_ms)),
        noise_fraction=half_width_fraction(ratios),
        attempts=number,
    )


def _warm_up(passes: Sequence[Pass], deadline: float) -> None:
    """Runs all in turn until no median changes any more; caches and clocks need that."""
    before: list[float] | None = None
    for _ in range(MOST_WARM_UP_BLOCKS):
        block = [[_time_once(one) for one in passes] for _ in range(WARM_UP_BLOCK)]
        medians = [float(median) for median in np.median(block, axis=0)]
        if before is not None and all(
            abs(now - then) <= STABLE_FRACTION * then
            for now, then in zip(medians, before, strict=True)
        ):
            return
        before = medians
        if time.monotonic() > deadline:
            return


def _time_once(one: Pass) -> float:
    start_ns = time.perf_counter_ns()
    one()
    return (time.perf_counter_ns() - start_ns) / 1e6


def half_width_fraction(values: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Tells half the width of the 95 % interval of a median over the median."""
    assert len(values) >= LEAST_RUNS_OF_AN_INTERVAL
    interval: Any = stats.quantile_test(values, p=0.5).confidence_interval(confidence_level=0.95)
    return float(interval.high - interval.low) / 2 / float(np.median(values))
