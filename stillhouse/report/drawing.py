"""The look that all figures share, as plain data that plotly.js draws.

Figures are written in light colours; the page swaps each for its dark one where the reader's
system is dark. Every text of a run goes through `html.escape` on its way into a figure: plotly
reads its own small HTML in hovers and titles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = "str | float | Sequence[Json] | Mapping[str, Json] | None"

PAPER, INK, MUTED, GRID = "#ffffff", "#1f2933", "#66727f", "#e6eaee"
TRIED, FRONT, STUDENT, TEACHER = "#9aa5b1", "#2364aa", "#d1495b", "#1f2933"
REFERENCE = "#1d7a46"
COMPETITOR, CONTROL, LIMIT, FAILED = "#7446a8", "#2364aa", "#b7791f", "#a61b1b"
SPACES = (("#2364aa", "circle"), ("#7446a8", "square"), (REFERENCE, "diamond"))
"""Colours and symbols of spaces, smallest first."""
EARLY_TO_LATE = ((0.0, "#6fb1e8"), (0.5, "#8f6bc9"), (1.0, "#d1495b"))  # seen on both backgrounds
SMALL_TO_LARGE = ("#2f86d6", "#8f6bc9", "#d1495b")
"""Colours of lines and marks from one end of an order to the other, seen on both backgrounds."""
MOST_DRAWN = 1500
"""Most marks of one kind that are drawn at a time; zooming in draws others."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

DARK: Mapping[str, str] = {
    PAPER: "#14181d",
    INK: "#e4e9ee",
    MUTED: "#9fabb7",
    GRID: "#2c343d",
    FRONT: "#6ea8e0",
    STUDENT: "#e8697b",
    COMPETITOR: "#b48ce0",
    REFERENCE: "#5fc98d",
    LIMIT: "#d9a441",
    FAILED: "#f08080",
}
"""Dark colours by the light ones that they replace."""


def points(
    name: str,
    x: Sequence[float | None],
    y: Sequence[float | str | None],
    hover: Sequence[str],
    marker: Mapping[str, Json],
) -> dict[str, Json]:
    """A trace of markers; `hover` holds escaped text."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "hovertext": hover,
        "hoverinfo": "text",
        "marker": marker,
    }


def shade(place: int, count: int) -> str:
    """The colour of one of `count` things in their order, `place` counting from 0."""
    last = len(SMALL_TO_LARGE) - 1
    along = last * place / max(count - 1, 1)
    first = min(int(along), last - 1)
    pair = (_channels(SMALL_TO_LARGE[first]), _channels(SMALL_TO_LARGE[first + 1]))
    mixed = [a + (b - a) * (along - first) for a, b in zip(*pair, strict=True)]
    return "#" + "".join(f"{round(channel):02x}" for channel in mixed)


def _channels(color: str) -> list[int]:
    return [int(color[place : place + 2], 16) for place in (1, 3, 5)]


def layout(xaxis: Mapping[str, Json], yaxis: Mapping[str, Json]) -> dict[str, Json]:
    """What every figure's layout has in common."""
    return {
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "margin": {"l": 62, "r": 18, "t": 24, "b": 52},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": MUTED, "align": "left"},
        "legend": {"orientation": "h", "x": 0, "y": -0.16, "yanchor": "top"},
        "xaxis": xaxis,
        "yaxis": yaxis,
    }


def beneath(drawn: Mapping[str, Json]) -> dict[str, Json]:
    """A layout for a small figure: its legend stands clear of the title of the axis."""
    return {**drawn, "legend": {"orientation": "h", "x": 0, "y": -0.3, "yanchor": "top"}}


def axis(title: str) -> dict[str, Json]:
    """An axis; `title` is escaped text."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": MUTED}},
        "gridcolor": GRID,
        "linecolor": MUTED,
        "zeroline": False,
        "automargin": True,
        "ticks": "outside",
        "tickcolor": GRID,
    }


def limit_line(limit: float) -> dict[str, Json]:
    """A dashed line where a figure's x is at its limit."""
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": limit,
        "x1": limit,
        "y0": 0,
        "y1": 1,
        "line": {"color": LIMIT, "width": 1.5, "dash": "dash"},
    }


def limit_note(place: float, told: str, *, bottom: float = 0.0) -> dict[str, Json]:
    """What stands beside a limit's line; `told` is escaped text.

    It stands at the bottom: at the top is the teacher, whose latency is often the limit.

    Args:
        place: On the x axis; the logarithm of the limit where that is logarithmic.
        told: The limit in words.
        bottom: Where the text begins, as a fraction of the figure's height.
    """
    return {
        "xref": "x",
        "yref": "paper",
        "x": place,
        "y": bottom,
        "xanchor": "right",
        "yanchor": "bottom",
        "textangle": -90,
        "showarrow": False,
        "text": told,
        "font": {"size": 11, "color": LIMIT},
    }
