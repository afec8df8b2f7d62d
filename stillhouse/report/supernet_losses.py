"""Training losses of supernets by subnet, as the curves of a run hold them.

A step trains the largest subnet, the smallest and some by chance; each has a curve.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stillhouse.report.drawing import Json, axis, beneath, layout, shade

CURVES_FOLDER, PREFIX = "tensorboard", "supernet-"
MOST_POINTS = 400
"""Of a curve; of more, evenly spaced ones are drawn."""

Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurves:
    """Curves of one supernet: (step, loss) in order, the largest subnet's first."""

    space: str
    curves: tuple[Curve, ...]


def read_losses(run: Path) -> tuple[LossCurves, ...]:
    """Read the curves of all supernets of a run; what cannot be read has none."""
    found = []
    for folder in sorted((run / CURVES_FOLDER).glob(f"{PREFIX}*")):
        curves = _read(folder)
        if curves:
            found.append(LossCurves(space=folder.name.removeprefix(PREFIX), curves=curves))
    return tuple(found)


def _read(folder: Path) -> tuple[Curve, ...]:
    # It warns of files that a killed process left behind, which is no news here.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    curves: list[Curve] = []
    while (tag := f"loss/term_{len(curves)}") in tags:
        # A resumed training tells some steps again; the last word counts.
        steps: Mapping[int, float] = {one.step: one.value for one in events.Scalars(tag)}
        curves.append(_thinned(sorted(steps.items())))
    return tuple(curves)


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve) // MOST_POINTS)
    return curve[:: max(every, 1)]


def draw_losses(supernets: Sequence[LossCurves]) -> dict[str, dict[str, Json]]:
    """A picture for each supernet by its place."""
    return {f"losses-{place}": _draw(one) for place, one in enumerate(supernets, start=1)}


def _draw(one: LossCurves) -> dict[str, Json]:
    count = len(one.curves)
    # The two ends of the space first, so that the random ones lie behind them.
    order = [*range(2, count), *range(min(2, count))]
    drawn = beneath(layout(axis("steps"), axis("relation loss")))
    return {"data": [_trace(one, place) for place in order], "layout": drawn}


def _trace(one: LossCurves, place: int) -> dict[str, Json]:
    name, dash = _named(place)
    curve = one.curves[place]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [step for step, _ in curve],
        "y": [float(f"{loss:.5g}") for _, loss in curve],
        "hovertext": [f"<b>{name}</b><br>step {step:,}<br>loss {loss:.4f}" for step, loss in curve],
        "hoverinfo": "text",
        "line": {"color": shade(_shade(place), 3), "width": 1.8, "dash": dash},
    }


def _named(place: int) -> tuple[str, str]:
    if place > 1:
        return f"random {place - 1}", "dot"
    return ("smallest", "dash") if place else ("largest", "solid")


def _shade(place: int) -> int:
    return {0: 2, 1: 0}.get(place, 1)
