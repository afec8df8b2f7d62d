"""The scatter of a family: relation loss against FLOPs of every scored subnet."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

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
from stillhouse.report.gather import Contents


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
        color, symbol = SPACES[place % len(SPACES)]
        yield _space_trace(supernet, {"color": color, "symbol": symbol, "size": 7, "opacity": 0.6})


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
        marker={"color": STUDENT, "size": 19, "line": {"color": PAPER, "width": 1.5}},
    )
    trace.update(mode="markers+text", textfont={"color": PAPER, "size": 11})
    trace["text"] = ["" if number is None else str(number) for number in chosen]
    yield trace


def _hover(subnet: Subnet, student: int | None = None) -> str:
    space = f"space {escape(subnet.space)}"
    lines = [space if student is None else f"<b>student {student}</b>, {space}"]
    if subnet.architecture:
        lines.append(escape(subnet.architecture))
    if subnet.relation_loss is not None:
        lines.append(f"relation loss {subnet.relation_loss:.4f}")
    if subnet.flops_fraction is not None:
        lines.append(f"{100 * subnet.flops_fraction:.1f} % of the teacher’s FLOPs")
    if subnet.parameters is not None:
        lines.append(f"{subnet.parameters / 1e6:.2f} M parameters")
    return "<br>".join(lines)
