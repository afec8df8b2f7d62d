"""The genes of judged layer maps side by side, the fittest first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from stillhouse.report.drawing import SMALL_TO_LARGE, Json, axis, layout
from stillhouse.report.layer_map import JudgedMap, MapSearch

MOST_MAPS = 60
"""Columns that can be told apart; a table has all maps."""
MOST_WRITTEN = 20
"""Columns that are wide enough for a number in each cell."""


def draw_genes(searches: Sequence[MapSearch]) -> dict[str, dict[str, Json]]:
    """A picture for each depth by its place: a column a map, a row a layer of the student."""
    return {
        f"genes-{search.layers}": _genes(search)
        for search in searches
        if sum(one.fitness is not None for one in search.maps) > 1
    }


def _genes(search: MapSearch) -> dict[str, Json]:
    shown = [one for one in search.ranked if one.fitness is not None][:MOST_MAPS]
    depth = max(len(one.genes) for one in shown)
    cells = [[_gene(one, layer) for one in shown] for layer in range(depth)]
    last = search.teacher_layers or max(gene or 0 for row in cells for gene in row)
    places = [str(place) for place in range(1, len(shown) + 1)]
    is_written = len(shown) <= MOST_WRITTEN
    trace: dict[str, Json] = {
        "type": "heatmap",
        "x": places,
        "y": [str(layer) for layer in range(1, depth + 1)],
        # A layer without supervision has no colour.
        "z": [[gene or None for gene in row] for row in cells],
        "text": [["" if gene is None else str(gene) for gene in row] for row in cells],
        "texttemplate": "%{text}" if is_written else "",
        "hovertext": [[_hover(one, layer) for one in shown] for layer in range(depth)],
        "hoverinfo": "text",
        "zmin": 1,
        "zmax": max(last, 2),
        "colorscale": [
            [place / (len(SMALL_TO_LARGE) - 1), color] for place, color in enumerate(SMALL_TO_LARGE)
        ],
        "colorbar": _scale(last),
        "xgap": 1,
        "ygap": 1,
    }
    drawn = layout(
        {**axis("layer maps, the fittest first"), "type": "category"},
        {**axis("layer of the student"), "type": "category"},
    )
    return {"data": [trace], "layout": drawn}


def _scale(last: int) -> Json:
    return {
        "title": {"text": "teacher layer", "side": "top"},
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": -0.2,
        "yanchor": "top",
        "len": 0.5,
        "thickness": 10,
        "outlinewidth": 0,
        "tickvals": sorted({1, max(last, 2)}),
    }


def _gene(one: JudgedMap, layer: int) -> int | None:
    return one.genes[layer] if layer < len(one.genes) else None


def _hover(one: JudgedMap, layer: int) -> str:
    gene = _gene(one, layer)
    learns = f"teacher layer {gene}" if gene else "no layer"
    name = f" ({escape(one.name)})" if one.name else ""
    return (
        f"<b>{one.told}</b>{name}<br>layer {layer + 1} learns from {learns}"
        f"<br>fitness {one.fitness:.4f}"
    )
