"""What a search tried over time: every trial, the best so far, and what the front dominates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import accumulate

from stillhouse.report.axes import Axis, Chooser, Point, Series, chooser
from stillhouse.report.drawing import FRONT, MOST_DRAWN, TRIED, Json
from stillhouse.report.gather import Contents
from stillhouse.report.trials import TrialRow, trained

TRIED_PLACE, VOLUME_PLACE = "course", "hypervolume"
TRIAL, SPENT = "trial", "spent_s"
QUALITY, REWARD, VOLUME = "quality", "reward", "hypervolume"
BEST_LINE: Json = {"color": FRONT, "width": 2, "shape": "hv"}


def choose_course(contents: Contents) -> dict[str, Chooser]:
    """The figures over trials and over time, by their place; none for fewer than two trials."""
    clock = _Clock(contents.trials)
    rows = trained(contents.trials)
    if len(rows) < 2:  # noqa: PLR2004 - one trial has no course
        return {}
    across = [
        Axis(name=TRIAL, label="trial", unit="count", is_linear=True, bands=_episodes(contents)),
        Axis(
            name=SPENT,
            label="time spent on trials, s",
            unit="s",
            is_linear=True,
            bands=_episodes(contents, clock),
        ),
    ]
    judged = [
        Axis(name=REWARD, label="reward", unit="score"),
        Axis(name=QUALITY, label=f"{contents.trial_quality}, search-validation", unit="score"),
    ]
    first = REWARD if any(row.reward is not None for row in rows) else QUALITY
    volume = [Axis(name=VOLUME, label="hypervolume, share of the box", unit="score")]
    found = (
        chooser(TRIED_PLACE, judged, (TRIAL, first), _tried(rows, clock), across),
        chooser(VOLUME_PLACE, volume, (TRIAL, VOLUME), _volumes(contents, clock), across),
    )
    return {one.place: one for one in found if one is not None}


class _Clock:
    """Seconds spent when a trial had ended, from the first on: the sum of what trials cost."""

    def __init__(self, trials: Sequence[TrialRow]) -> None:
        ordered = sorted(trials, key=lambda row: row.number)
        spent = accumulate(row.cost_s or 0.0 for row in ordered)
        self.ends = dict(zip((row.number for row in ordered), spent, strict=True))
        self.is_known = any(row.cost_s for row in ordered)

    def at(self, number: int) -> float | None:
        """When a trial had ended; None where costs are not known."""
        return self.ends.get(number) if self.is_known else None


def _tried(rows: Sequence[TrialRow], clock: _Clock) -> list[Series]:
    """A mark for each trained trial, and for each measure the best so far."""
    ordered = sorted(rows, key=lambda row: row.number)
    look: dict[str, Json] = {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "marker": {"color": TRIED, "size": 8, "opacity": 0.8, "maxdisplayed": MOST_DRAWN},
    }
    marks = [
        _point(
            f"<b>trial {row.number}</b><br>{escape(row.architecture)}",
            row.number,
            clock,
            {QUALITY: row.quality, REWARD: row.reward},
        )
        for row in ordered
    ]
    highest = [*_best(ordered, clock, QUALITY, lambda row: row.quality)]
    rewarded = [*_best(ordered, clock, REWARD, lambda row: row.reward)]
    lines = [_line("best so far", points) for points in (highest, rewarded) if points]
    return [*lines, Series(look=look, points=tuple(marks))]


def _best(
    rows: Sequence[TrialRow],
    clock: _Clock,
    name: str,
    value: Callable[[TrialRow], float | None],
) -> Iterator[Point]:
    judged = [(row.number, found) for row in rows if (found := value(row)) is not None]
    best = accumulate((found for _, found in judged), max)
    for number, known in _steps([number for number, _ in judged], list(best)):
        yield _point(f"<b>best up to trial {number}</b>", number, clock, {name: known})


def _steps(numbers: Sequence[int], values: Sequence[float]) -> Iterator[tuple[int, float]]:
    """Where a line of steps begins, changes and ends, which is all that draws it."""
    last = len(values) - 1
    for place, (number, value) in enumerate(zip(numbers, values, strict=True)):
        if place in (0, last) or value != values[place - 1]:
            yield number, value


def _volumes(contents: Contents, clock: _Clock) -> list[Series]:
    """The hypervolume after each trial, as the run recorded it."""
    known = contents.hypervolume
    if known is None or contents.judged_by_hidden:
        return []
    points = [
        _point(f"<b>after trial {number}</b>", number, clock, {VOLUME: volume})
        for number, volume in _steps(range(len(known.by_trial)), known.by_trial)
    ]
    return [_line("hypervolume", points)]


def _point(head: str, number: int, clock: _Clock, values: dict[str, float | None]) -> Point:
    return Point(head=head, values={TRIAL: float(number), SPENT: clock.at(number), **values})


def _line(name: str, points: Sequence[Point]) -> Series:
    look: dict[str, Json] = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "line": BEST_LINE,
    }
    return Series(look=look, points=tuple(points))


def _episodes(
    contents: Contents, clock: _Clock | None = None
) -> tuple[tuple[float, float, str], ...]:
    """Every other episode of a controller, by trials or, with a clock, by time."""
    if contents.controller is None:
        return ()
    bands, start = [], 0.0
    for place, episode in enumerate(contents.controller.episodes):
        if episode.last_trial is None:
            continue
        ended = float(episode.last_trial) if clock is None else clock.at(episode.last_trial)
        if ended is None:
            continue
        if place % 2 == 0:
            bands.append((start, ended, f"episode {episode.number}"))
        start = ended
    return tuple(bands)
