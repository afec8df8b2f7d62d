"""Figures whose axes the reader chooses: every point with all that is known of it.

A page draws such a figure as it was written; once another pair of axes is chosen, `axes.js` draws
it anew from what this module hands over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal, TypeAlias

from stillhouse.report.drawing import (
    GRID,
    LIMIT,
    MUTED,
    Json,
    axis,
    beneath,
    layout,
    limit_line,
    limit_note,
)

Unit: TypeAlias = Literal["score", "loss", "fraction", "ms", "MB", "count", "s", "times", "number"]
Values: TypeAlias = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Something that points have a value of.

    Attributes:
        name: Key of the values.
        label: What the reader chooses, plain text.
        unit: How values are written; a `fraction` is 0..1 and told in percent.
        limits: What was asked for.
        limit_note: What stands beside a limit whose value alone would mislead, plain text.
        is_linear: Whether it is never logarithmic, as time and the number of a trial.
        bands: Stretches with a name in words, from and to.
    """

    name: str
    label: str
    unit: Unit
    limits: tuple[float, ...] = ()
    limit_note: str = ""
    is_linear: bool = False
    bands: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One model; `head` is escaped text, ends of 95 % intervals are by axis, as far as known."""

    head: str
    values: Values
    low: Values = field(default_factory=dict)
    high: Values = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one kind; `look` is the trace without data, its `name` escaped text."""

    look: Mapping[str, Json]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """A figure with its axes; `x` and `y` are those that it is written with."""

    place: str
    across: tuple[Axis, ...]
    up: tuple[Axis, ...]
    x: str
    y: str
    series: tuple[Series, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All that may be chosen, each once."""
        return tuple({axis.name: axis for axis in (*self.up, *self.across)}.values())

    @property
    def has_choice(self) -> bool:
        """Whether there are more axes than those that are shown."""
        return len(self.axes) > 2  # noqa: PLR2004 - one across and one up

    @property
    def data(self) -> Json:
        """What the page's script reads."""
        axes: list[Json] = [
            {
                "name": axis.name,
                "label": axis.label,
                "unit": axis.unit,
                "limits": list(axis.limits),
                "note": axis.limit_note,
                "linear": axis.is_linear,
                "bands": [list(band) for band in axis.bands],
            }
            for axis in self.axes
        ]
        series: list[Json] = [_written(one, self.axes) for one in self.series]
        return {"axes": axes, "x": self.x, "y": self.y, "series": series}


def chooser(
    place: str,
    axes: Sequence[Axis],
    default: tuple[str, str],
    series: Sequence[Series],
    across: Sequence[Axis] = (),
) -> Chooser | None:
    """A figure with those axes that any point has a value on; None where none has the first two.

    Args:
        place: The figure's on the page.
        axes: All that may be known, in the order in which the reader sees them.
        default: Names of the axes across and up that the figure is written with.
        series: Points; series without any are left out.
        across: Those that lie across alone; without any, all of `axes` may lie both ways.
    """
    shown = tuple(one for one in series if one.points)
    known = {
        name
        for one in shown
        for point in one.points
        for name, value in point.values.items()
        if value is not None
    }
    offered = tuple(axis for axis in axes if axis.name in known)
    lying = tuple(axis for axis in across if axis.name in known) if across else offered
    if not set(default) <= known:
        return None
    return Chooser(place=place, across=lying, up=offered, x=default[0], y=default[1], series=shown)


def script_data(choosers: Mapping[str, Chooser]) -> Json:
    """What `axes.js` reads: the figures by place, and the looks that it needs."""
    figures: dict[str, Json] = {place: figure.data for place, figure in choosers.items()}
    return {"figures": figures, "limit": LIMIT, "band": _band((0.0, 0.0, ""))}


def draw(figure: Chooser, *, is_small: bool = False) -> dict[str, Json]:
    """The figure as it is written, with the axes that it begins with."""
    x, y = (next(one for one in figure.axes if one.name == name) for name in (figure.x, figure.y))
    drawn = layout(_axis(x), _axis(y))
    drawn = beneath(drawn) if is_small else drawn
    drawn["shapes"] = [*map(_band, x.bands), *map(limit_line, x.limits)]
    drawn["annotations"] = [
        limit_note(limit, escape(x.limit_note or f"limit {tell(limit, x.unit)}"))
        for limit in x.limits
    ]
    traces = [_trace(series, x, y) for series in figure.series]
    return {"data": [trace for trace in traces if trace["x"]], "layout": drawn}


def tell(value: float, unit: Unit) -> str:
    """A value with its unit, as `axes.js` writes it."""
    if unit in ("score", "loss"):
        return f"{value:.4f}"
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if unit == "count":
        return f"{value:,.0f}"
    after = {"number": "", "times": "×"}.get(unit, f" {unit}")
    return f"{float(f'{value:.3g}'):g}{after}"


def _axis(shown: Axis) -> dict[str, Json]:
    described = axis(escape(shown.label))
    return {**described, "tickformat": "~%"} if shown.unit == "fraction" else described


def _band(band: tuple[float, float, str]) -> dict[str, Json]:
    """A pale stretch behind everything, with its name at the bottom."""
    start, end, name = band
    label: Json = {
        "text": escape(name),
        "textposition": "bottom left",
        "font": {"size": 11, "color": MUTED},
    }
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": start,
        "x1": end,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": GRID,
        "opacity": 0.6,
        "label": label,
    }


def _trace(series: Series, x: Axis, y: Axis) -> dict[str, Json]:
    shown = [
        (point, across, up)
        for point in series.points
        if (across := point.values.get(x.name)) is not None
        and (up := point.values.get(y.name)) is not None
    ]
    trace: dict[str, Json] = {
        **series.look,
        "x": [across for _, across, _ in shown],
        "y": [up for _, _, up in shown],
        "hoverinfo": "text",
        "hovertext": [
            f"{point.head}<br>{escape(y.label)}: {tell(up, y.unit)}"
            f"<br>{escape(x.label)}: {tell(across, x.unit)}"
            for point, across, up in shown
        ],
    }
    if any(point.text for point in series.points):
        trace["text"] = [point.text for point, _, _ in shown]
    return trace


def _written(series: Series, axes: Sequence[Axis]) -> Json:
    """A series by columns, which is what plotly takes; ends only where there are any."""
    written: dict[str, Json] = {
        "look": dict(series.look),
        "head": [point.head for point in series.points],
    }
    if any(point.text for point in series.points):
        written["text"] = [point.text for point in series.points]
    written["values"] = _columns([point.values for point in series.points], axes)
    written["low"] = _columns([point.low for point in series.points], axes)
    written["high"] = _columns([point.high for point in series.points], axes)
    return written


def _columns(rows: Sequence[Values], axes: Sequence[Axis]) -> Json:
    columns = {axis.name: [row.get(axis.name) for row in rows] for axis in axes}
    return {
        name: [None if value is None else _shortened(value) for value in column]
        for name, column in columns.items()
        if any(value is not None for value in column)
    }


def _shortened(value: float) -> float:
    """Six digits, which no eye tells from more; a whole number stays as it is."""
    return value if value == round(value) else float(f"{value:.6g}")
