"""The scatter of a family: relation loss against FLOPs of every scored subnet, or other axes."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from stillhouse.report.axes import Axis, Chooser, Point, Series, chooser
from stillhouse.report.drawing import (
    PAPER,
    SPACES,
    STUDENT,
    Json,
    axis,
    layout,
    limit_line,
    limit_note,
    points,
)
from stillhouse.report.family import Family, Search, Subnet, SupernetRecord
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Contents

PLACE = "subnets"
LOSS, FLOPS, PARAMETERS, LATENCY, SIZE = (
    "relation_loss",
    "flops_fraction",
    "parameters",
    "latency_ms",
    "size_mb",
)
NUMBERED: dict[str, Json] = {"color": STUDENT, "size": 19, "line": {"color": PAPER, "width": 1.5}}
MILLION = 1e6


def draw_subnets(contents: Contents) -> dict[str, Json] | None:
    """All scored subnets by space and the chosen ones among them; None without any."""
    family = contents.family
    if family is None or not family.weighed_count:
        return None
    drawn = layout(
        {
            **axis("FLOPs, share of the teacher’s (less is cheaper)"),
            "tickformat": "~%",
            "rangemode": "tozero",
        },
        axis("relation loss on held-out text (less is nearer)"),
    )
    limits = family.flops_limits
    drawn["shapes"] = [limit_line(limit) for limit in limits]
    drawn["annotations"] = [limit_note(limit, f"limit {100 * limit:g} %") for limit in limits]
    return {"data": [*_space_traces(family), *_chosen_trace(family)], "layout": drawn}


def _space_traces(family: Family) -> Iterator[dict[str, Json]]:
    for place, supernet in enumerate(family.supernets):
        yield _space_trace(supernet, _space_look(place))


def _space_look(place: int) -> dict[str, Json]:
    color, symbol = SPACES[place % len(SPACES)]
    return {"color": color, "symbol": symbol, "size": 7, "opacity": 0.6}


def _space_trace(supernet: SupernetRecord, marker: dict[str, Json]) -> dict[str, Json]:
    subnets = supernet.weighed
    return points(
        escape(supernet.space),
        x=[subnet.flops_fraction for subnet in subnets],
        y=[subnet.relation_loss for subnet in subnets],
        hover=[_hover(subnet) for subnet in subnets],
        marker=marker,
    )


def _chosen_trace(family: Family) -> Iterator[dict[str, Json]]:
    """One trace of the students, each with its number in the marker, however often chosen."""
    chosen: dict[int | None, Search] = {}
    for search in family.searches:
        if search.best.flops_fraction is not None and search.best.relation_loss is not None:
            chosen.setdefault(search.student, search)
    if not chosen:
        return
    shown = [search.best for search in chosen.values()]
    trace = points(
        "chosen students",
        x=[best.flops_fraction for best in shown],
        y=[best.relation_loss for best in shown],
        hover=[_hover(search.best, search.student) for search in chosen.values()],
        marker=NUMBERED,
    )
    trace.update(mode="markers+text", textfont={"color": PAPER, "size": 11})
    trace["text"] = ["" if number is None else str(number) for number in chosen]
    yield trace


def _hover(subnet: Subnet, student: int | None = None) -> str:
    lines = [_head(subnet, student)]
    if subnet.relation_loss is not None:
        lines.append(f"relation loss {subnet.relation_loss:.4f}")
    if subnet.flops_fraction is not None:
        lines.append(f"{100 * subnet.flops_fraction:.1f} % of the teacher’s FLOPs")
    if subnet.parameters is not None:
        lines.append(f"{subnet.parameters / 1e6:.2f} M parameters")
    return "<br>".join(lines)


def choose_subnets(contents: Contents) -> dict[str, Chooser]:
    """The same with axes to choose, by its place."""
    family = contents.family
    if family is None or not family.weighed_count:
        return {}
    spaces = [
        _series(
            escape(supernet.space),
            [Point(head=_head(subnet), values=_values(subnet)) for subnet in supernet.subnets],
            _space_look(place),
        )
        for place, supernet in enumerate(family.supernets)
    ]
    students = _series("chosen students", _students(contents, family), NUMBERED, is_numbered=True)
    found = chooser(PLACE, _axes(family), (FLOPS, LOSS), [*spaces, students])
    return {} if found is None else {PLACE: found}


def _axes(family: Family) -> list[Axis]:
    def limits(name: str, scale: float = 1.0) -> tuple[float, ...]:
        asked = {search.limits.get(name) for search in family.searches}
        return tuple(sorted(scale * limit for limit in asked if limit is not None))

    parameters = (*limits("parameters"), *limits("params_m", MILLION))
    return [
        Axis(name=LOSS, label="relation loss on held-out text", unit="loss", is_linear=True),
        Axis(
            name=FLOPS,
            label="FLOPs, share of the teacher’s",
            unit="fraction",
            limits=family.flops_limits,
        ),
        Axis(name=PARAMETERS, label="parameters", unit="count", limits=parameters),
        Axis(name=LATENCY, label="latency, ms", unit="ms", limits=limits(LATENCY)),
        Axis(name=SIZE, label="size, MB", unit="MB", limits=limits(SIZE)),
    ]


def _series(
    name: str, shown: list[Point], marker: dict[str, Json], *, is_numbered: bool = False
) -> Series:
    look: dict[str, Json] = {"type": "scatter", "mode": "markers", "name": name, "marker": marker}
    if is_numbered:
        look.update(mode="markers+text", textfont={"color": PAPER, "size": 11})
    return Series(look=look, points=tuple(shown))


def _students(contents: Contents, family: Family) -> list[Point]:
    """Each chosen student once, with what was measured of it."""
    chosen = {search.student: search for search in reversed(family.searches)}
    found = []
    for number, search in sorted(chosen.items(), key=lambda item: item[0] or 0):
        student = contents.chosen(search)
        figures = None if student is None else student.figures
        found.append(
            Point(
                head=_head(search.best, number),
                values={**_values(search.best), **_measured(figures)},
                low={} if figures is None else {LATENCY: figures.latency_low_ms},
                high={} if figures is None else {LATENCY: figures.latency_high_ms},
                text="" if number is None else str(number),
            )
        )
    return found


def _values(subnet: Subnet) -> dict[str, float | None]:
    return {
        LOSS: subnet.relation_loss,
        FLOPS: subnet.flops_fraction,
        PARAMETERS: subnet.parameters,
    }


def _measured(figures: Figures | None) -> dict[str, float | None]:
    if figures is None:
        return {}
    return {LATENCY: figures.latency_ms, SIZE: figures.size_mb}


def _head(subnet: Subnet, student: int | None = None) -> str:
    space = f"space {escape(subnet.space)}"
    head = space if student is None else f"<b>student {student}</b>, {space}"
    return f"{head}<br>{escape(subnet.architecture)}" if subnet.architecture else head
