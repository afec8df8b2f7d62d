"""Scatters that show whether a prediction holds: the controller's, and the proxy's."""

from __future__ import annotations

from html import escape

from stillhouse.report.controller import Episode
from stillhouse.report.drawing import (
    CONTROL,
    EARLY_TO_LATE,
    PAPER,
    STUDENT,
    Json,
    axis,
    layout,
    points,
)
from stillhouse.report.gather import Contents
from stillhouse.report.proxy_final import TrainedTwice


def draw_predictions(contents: Contents) -> dict[str, Json] | None:
    """Predicted against true reward, one colour per episode; None without a trained prediction.

    Predictions may be on a scale of their own, so no line marks where both are equal.
    """
    episodes = () if contents.controller is None else contents.controller.learnt_episodes
    if not episodes:
        return None
    pairs = [(episode, pair) for episode in episodes for pair in episode.predictions]
    numbers = [episode.number for episode, _ in pairs]
    trace = points(
        "predictions",
        x=[predicted for _, (predicted, _) in pairs],
        y=[reward for _, (_, reward) in pairs],
        hover=[_prediction_hover(episode, pair) for episode, pair in pairs],
        marker={
            "color": numbers,
            "colorscale": EARLY_TO_LATE,
            "showscale": True,
            "colorbar": _episode_scale(numbers),
            "size": 10,
            "line": {"color": PAPER, "width": 1},
        },
    )
    return {
        "data": [trace],
        "layout": {
            **layout(axis("reward that the controller predicted"), axis("true reward")),
            "showlegend": False,
        },
    }


def _episode_scale(numbers: list[int]) -> Json:
    return {
        "title": {"text": "episode", "side": "top"},
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": -0.16,
        "yanchor": "top",
        "len": 0.5,
        "thickness": 10,
        "outlinewidth": 0,
        "tickvals": sorted({min(numbers), max(numbers)}),
    }


def _prediction_hover(episode: Episode, pair: tuple[float, float]) -> str:
    predicted, reward = pair
    return "<br>".join(
        [
            f"<b>episode {episode.number}</b>",
            f"predicted {predicted:.4f}",
            f"true {reward:.4f}",
            f"learnt from {episode.trained_on} trials before",
        ]
    )


def draw_proxy_check(contents: Contents) -> dict[str, Json] | None:
    """Proxy score against final score, winners and controls apart; None without a point."""
    check = contents.proxy_check
    if check is None or not check.points:
        return None
    winners, controls = check.of_role("winner"), check.of_role("control")
    outlined: Json = {"color": PAPER, "width": 1.5}
    traces = [
        _trained_twice(
            "controls", controls, {"color": CONTROL, "size": 12, "symbol": "triangle-up"}
        ),
        _trained_twice("winners", winners, {"color": STUDENT, "size": 14, "line": outlined}),
    ]
    final = f"{escape(check.metric)}, {escape(check.measured_on)}"
    proxy = contents.trial_quality if contents.judged_by_hidden else final
    return {
        "data": [trace for trace in traces if trace["x"]],
        "layout": layout(
            axis(f"after the short training ({proxy})"), axis(f"trained to the end ({final})")
        ),
    }


def _trained_twice(
    name: str, shown: list[TrainedTwice], marker: dict[str, Json]
) -> dict[str, Json]:
    return points(
        name,
        x=[point.proxy for point in shown],
        y=[point.final for point in shown],
        hover=[_trained_hover(point) for point in shown],
        marker=marker,
    )


def _trained_hover(point: TrainedTwice) -> str:
    head = f"<b>{point.role}</b>" + ("" if point.trial is None else f", trial {point.trial}")
    lines = [head, escape(point.label)] if point.label else [head]
    lines += [f"short training {point.proxy:.4f}", f"to the end {point.final:.4f}"]
    if point.latency_ms is not None:
        lines.append(f"{point.latency_ms:.3g} ms")
    return "<br>".join(lines)
