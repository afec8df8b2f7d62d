"""The front of quality × latency, as plain data that plotly.js draws.

Trials are compared on the search-validation set, so finished models stand at their figures on the
same set; a run without trials (one student, no search) is drawn on dev instead. Finished models
are drawn on dev, which chose none of them, a second time where that comparison is the point: beside
competitors, or where trials were judged by something else than the metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from stillhouse.report import drawing
from stillhouse.report.drawing import MUTED, Json, axis, limit_line, limit_note
from stillhouse.report.front_traces import (
    finished_traces,
    reference_trace,
    trial_traces,
    untrained_traces,
)
from stillhouse.report.gather import Contents
from stillhouse.report.latency_limit import LatencyLimit, exact_limit, search_limit
from stillhouse.report.trials import trained

LOG_FROM_RATIO = 12  # a linear axis squeezes the fast students once the range is wider than this


def draw_front(contents: Contents) -> dict[str, Json] | None:
    """The figure (`data`, `layout`), or None while there is nothing with a latency to draw."""
    searched = bool(trained(contents.trials))
    apart = searched and contents.judged_by_hidden  # finished models have another scale then
    finished = () if apart else finished_traces(contents, searched=searched)
    upper = [*trial_traces(contents), *finished, *reference_trace(contents)]
    lower = untrained_traces(contents)
    if not upper and not lower:
        return None
    examples = "search-validation" if searched else contents.report_set
    quality = f"{escape(contents.trial_quality)}, {examples}"
    return {
        "data": [*upper, *lower],
        "layout": _layout(search_limit(contents), [*upper, *lower], quality, strip=bool(lower)),
    }


def draw_finished(contents: Contents) -> dict[str, Json] | None:
    """Finished models alone, on dev with intervals; None where the front shows that or suffices."""
    if not trained(contents.trials) or not (contents.competitors or contents.judged_by_hidden):
        return None
    traces = list(finished_traces(contents, searched=False))
    if not traces:
        return None
    quality = f"{escape(contents.metric)}, {contents.report_set}"
    return {
        "data": traces,
        "layout": _layout(exact_limit(contents.limits), traces, quality, strip=False),
    }


def _layout(
    line: LatencyLimit | None, traces: Sequence[Mapping[str, Json]], quality: str, *, strip: bool
) -> dict[str, Json]:
    """The layout over a strip of untrained trials or without it; `quality` is escaped."""
    limit = None if line is None else line.value_ms
    floor = 0.22 if strip else 0.0
    latency = {
        **axis("latency, ms (median; less is better)"),
        **_latency_scale(traces, limit),
        "anchor": "y2" if strip else "y",
    }
    layout = drawing.layout(latency, {**axis(quality), "domain": [floor, 1.0]})
    if line is not None:
        ms = line.value_ms
        place = math.log10(ms) if _spans_log(traces, ms) else ms
        layout["shapes"] = [limit_line(ms)]
        layout["annotations"] = [limit_note(place, line.told, bottom=floor)]
    if strip:
        layout["yaxis2"] = {
            **axis(""),
            "type": "category",
            "domain": [0.0, floor - 0.06],
            "tickfont": {"size": 11, "color": MUTED},
        }
    return layout


def _latencies(traces: Sequence[Mapping[str, Json]], limit: float | None) -> list[float]:
    found = [] if limit is None else [limit]
    for trace in traces:
        values = trace["x"]
        if isinstance(values, Sequence):
            found.extend(value for value in values if isinstance(value, int | float) and value > 0)
    return found


def _spans_log(traces: Sequence[Mapping[str, Json]], limit: float | None) -> bool:
    found = _latencies(traces, limit)
    return bool(found) and max(found) > LOG_FROM_RATIO * min(found)


def _latency_scale(traces: Sequence[Mapping[str, Json]], limit: float | None) -> dict[str, Json]:
    if not _spans_log(traces, limit):
        return {"type": "linear", "rangemode": "tozero"}
    ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
