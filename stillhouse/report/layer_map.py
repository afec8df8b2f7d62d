"""What layer_maps.json tells of a search for a layer map, and its picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from pathlib import Path
from statistics import median

from stillhouse.report.drawing import (
    FRONT,
    PAPER,
    REFERENCE,
    STUDENT,
    TRIED,
    Json,
    axis,
    beneath,
    layout,
    points,
)
from stillhouse.report.fields import (
    Fields,
    finite,
    integer,
    mapping,
    mappings,
    number,
    numbers,
    read_json,
    sequence,
    text,
    truth,
)

LAYER_MAPS_FILE = "layer_maps.json"
FEW = 10
"""Maps that are shown at once, the best; the others unfold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedMap:
    """A map and what became of it; `place` counts the judged maps from 1."""

    place: int
    genes: tuple[int, ...]
    name: str
    fitness: float | None
    scores: Mapping[str, float]
    reason: str
    cost_s: float | None

    @property
    def told(self) -> str:
        """The genes, as in `0, 2, 5`."""
        return ", ".join(map(str, self.genes))

    @property
    def layers(self) -> str:
        """Which teacher layer each supervised layer learns from, as in `2 from 4, 3 from 6`."""
        links = [f"{layer} from {gene}" for layer, gene in enumerate(self.genes, start=1) if gene]
        return ", ".join(links) or "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSearch:
    """The search for the map of students of one depth."""

    layers: int
    teacher_layers: int | None
    size: int | None
    evaluations: int | None
    strategy: str
    judge: str
    seeds: int | None
    any_order: bool | None
    architecture: str
    constants: Mapping[str, float]
    maps: tuple[JudgedMap, ...]

    @property
    def warning(self) -> str:
        """Which tasks most maps taught no more than a constant answer; empty where none."""
        judged = [one for one in self.maps if one.fitness is not None]
        told = []
        for task, constant in self.constants.items():
            scores = [one.scores[task] for one in judged if task in one.scores]
            if scores and median(scores) <= constant:
                told.append(f"{task} ({constant:.4f})")
        if not told:
            return ""
        return (
            f"Half of the maps or more score no better than a constant answer on "
            f"{', '.join(told)}, so their order there is mostly chance."
        )

    @property
    def ranked(self) -> list[JudgedMap]:
        """Maps by fitness, the best first, of equals the earlier; failed ones last."""
        known = [one for one in self.maps if one.fitness is not None]
        failed = [one for one in self.maps if one.fitness is None]
        return sorted(known, key=lambda one: -(one.fitness or 0.0)) + failed

    @property
    def best(self) -> JudgedMap | None:
        """The map of the highest fitness."""
        return next((one for one in self.ranked if one.fitness is not None), None)

    @property
    def shown(self) -> list[JudgedMap]:
        """The best, and those that have names."""
        ranked = self.ranked
        return ranked[:FEW] + [one for one in ranked[FEW:] if one.name]

    @property
    def tasks(self) -> list[str]:
        """What maps are scored on, where there is more than one."""
        tasks = list(dict.fromkeys(task for one in self.maps for task in one.scores))
        return tasks if len(tasks) > 1 else []

    @property
    def beside_named(self) -> str:
        """How the best map compares with those that have names."""
        best = self.best
        if best is None or best.fitness is None:
            return ""
        gaps = [
            f"{one.fitness:.4f} of {one.name} ({one.told})"
            for one in self.maps
            if one.name and one.fitness is not None and one.genes != best.genes
        ]
        if not gaps:
            return ""
        return f"Its fitness is {best.fitness:.4f}, beside {' and '.join(gaps)}."

    @property
    def course(self) -> str:
        """How far the search came, and by what."""
        judged, failed = len(self.maps), sum(one.fitness is None for one in self.maps)
        told = f"{judged:,} maps were judged"
        if self.evaluations is not None and judged < self.evaluations:
            told = f"{judged:,} of {self.evaluations:,} maps were judged so far"
        told += f", {failed:,} of them failed" if failed else ""
        return told + (f"; there are {self.size:,}." if self.size is not None else ".")


def read_map_searches(run: Path, notes: list[str]) -> tuple[MapSearch, ...]:
    """Read layer_maps.json, a search by depth; empty for a run without such."""
    depths = mapping(read_json(run / LAYER_MAPS_FILE, notes), "depths")
    return tuple(_search(mapping(depths, depth)) for depth in sorted(depths, key=_as_depth))


def _as_depth(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def _search(fields: Fields) -> MapSearch:
    named = mapping(fields, "named")
    names = {_genes(named, name): name for name in named}
    maps = [
        _judged(place, one, names) for place, one in enumerate(mappings(fields, "maps"), start=1)
    ]
    return MapSearch(
        layers=integer(fields, "layers") or 0,
        teacher_layers=integer(fields, "teacher_layers"),
        size=integer(fields, "size"),
        evaluations=integer(fields, "evaluations"),
        strategy=text(fields, "strategy"),
        judge=text(fields, "judge"),
        seeds=integer(fields, "seeds"),
        any_order=truth(fields, "any_order"),
        architecture=text(fields, "architecture_label"),
        constants=numbers(fields, "constants"),
        maps=tuple(maps),
    )


def _judged(place: int, fields: Fields, names: Mapping[tuple[int, ...], str]) -> JudgedMap:
    genes = _genes(fields, "genes")
    return JudgedMap(
        place=place,
        genes=genes,
        name=names.get(genes, ""),
        fitness=number(fields, "fitness"),
        scores=numbers(fields, "scores"),
        reason=text(fields, "reason"),
        cost_s=number(fields, "cost_s"),
    )


def _genes(fields: Fields, key: str) -> tuple[int, ...]:
    found = (finite(gene) for gene in sequence(fields, key))
    return tuple(int(gene) for gene in found if gene is not None)


def draw_map_searches(searches: Sequence[MapSearch]) -> dict[str, dict[str, Json]]:
    """The fitness of every judged map and the best so far, by the id of the picture's place."""
    return {
        f"layer-map-{search.layers}": {
            "data": list(_traces(search)),
            "layout": beneath(layout(axis("maps judged"), axis("fitness (more is better)"))),
        }
        for search in searches
        if search.best is not None
    }


def _traces(search: MapSearch) -> Iterator[dict[str, Json]]:
    known = [(one, one.fitness) for one in search.maps if one.fitness is not None]
    best_so_far = list(accumulate((fitness for _, fitness in known), max))
    yield {
        "type": "scatter",
        "mode": "lines",
        "name": "best so far",
        "x": [one.place for one, _ in known],
        "y": best_so_far,
        "hoverinfo": "skip",
        "line": {"color": FRONT, "width": 2, "shape": "hv"},
    }
    yield _points("judged", [one for one, _ in known if not one.name], TRIED, 8)
    yield _points("named", [one for one, _ in known if one.name], REFERENCE, 11)
    if search.best is not None:
        yield _points("best", [search.best], STUDENT, 14)


def _points(name: str, maps: Sequence[JudgedMap], color: str, size: int) -> dict[str, Json]:
    return points(
        name,
        x=[one.place for one in maps],
        y=[one.fitness for one in maps],
        hover=[_hover(one) for one in maps],
        marker={"color": color, "size": size, "line": {"color": PAPER, "width": 1}},
    )


def _hover(one: JudgedMap) -> str:
    lines = (
        [f"<b>map {one.place}: {one.told}</b>", escape(one.name)]
        if one.name
        else [f"<b>map {one.place}: {one.told}</b>"]
    )
    lines += [f"fitness {one.fitness:.4f}"]
    lines += [f"{escape(task)} {score:.4f}" for task, score in one.scores.items()]
    return "<br>".join(lines)
