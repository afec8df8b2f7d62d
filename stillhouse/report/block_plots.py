"""The pictures of a nas-bert run, one of each kind for a block, by their place on the page."""

from __future__ import annotations

from html import escape

from stillhouse.report.chains import BlockRecord, BlockRow, Chains
from stillhouse.report.drawing import INK, MUTED, Json, axis, layout, points, shade
from stillhouse.report.gather import Contents

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
"""Of hidden sizes, smallest first, beside their colours."""


def draw_shrinking(contents: Contents) -> dict[str, dict[str, Json]]:
    """Candidates left by epoch, a line for each bin; nothing for a block that never shrank."""
    blocks = () if contents.chains is None else contents.chains.blocks
    return {f"shrinking-{block.number}": _shrinking(block) for block in blocks if block.records}


def _shrinking(block: BlockRecord) -> dict[str, Json]:
    courses = {place: block.course(place) for place in range(block.bins)}
    drawn = layout(
        axis("epochs"),
        {**axis("candidates left"), "type": "log", "tickformat": ",d", "dtick": "D2"},
    )
    drawn["legend"] = _legend("bin ")
    return {
        "data": [_course(block, place, course) for place, course in courses.items() if course],
        "layout": drawn,
    }


def _course(block: BlockRecord, place: int, course: list[tuple[int, int]]) -> dict[str, Json]:
    trace = points(
        str(place + 1),
        x=[epoch for epoch, _ in course],
        y=[count for _, count in course],
        hover=[
            f"<b>bin {place + 1} of {block.bins}</b><br>{count:,} left after {epoch} epochs"
            for epoch, count in course
        ],
        marker={"color": shade(place, block.bins), "size": 5},
    )
    line: Json = {"color": shade(place, block.bins), "width": 2, "shape": "hv"}
    return {**trace, "mode": "lines+markers", "line": line}


def draw_blocks(contents: Contents) -> dict[str, dict[str, Json]]:
    """Loss against latency of what is left of a block, and what of it students are made of."""
    chains = contents.chains
    if chains is None:
        return {}
    numbers = sorted({row.block for row in chains.rows})
    return {f"blocks-{number}": _block(chains, number) for number in numbers}


def _block(chains: Chains, number: int) -> dict[str, Json]:
    rows = chains.rows_of(number)
    sizes = sorted({row.hidden_size for row in chains.rows})
    traces = [
        points(
            str(size),
            x=[row.latency_ms for row in rows if row.hidden_size == size],
            y=[row.loss for row in rows if row.hidden_size == size],
            hover=[_hover(row) for row in rows if row.hidden_size == size],
            marker={
                "color": shade(place, len(sizes)),
                "symbol": SYMBOLS[place % len(SYMBOLS)],
                "size": 9,
                "opacity": 0.8,
            },
        )
        for place, size in enumerate(sizes)
    ]
    drawn = layout(
        {**axis("latency of its operations, ms"), "rangemode": "tozero"}, axis("block loss")
    )
    drawn["legend"] = _legend("hidden size ")
    chosen = _chosen(chains, number, rows)
    return {"data": [trace for trace in (*traces, *chosen) if trace["x"]], "layout": drawn}


def _chosen(chains: Chains, number: int, rows: list[BlockRow]) -> list[dict[str, Json]]:
    """Rings around what selected students are made of."""
    users: dict[tuple[int | None, str], list[int]] = {}
    for one in chains.selected:
        for part in one.blocks[number - 1 : number]:
            users.setdefault(part, []).append(one.number)
    shown = [row for row in rows if (row.hidden_size, row.operations) in users]
    told = [" and ".join(map(str, users[row.hidden_size, row.operations])) for row in shown]
    trace = points(
        "selected",
        x=[row.latency_ms for row in shown],
        y=[row.loss for row in shown],
        hover=[
            f"<b>selected {names}</b><br>{_hover(row)}"
            for row, names in zip(shown, told, strict=True)
        ],
        marker={"color": INK, "symbol": "circle-open", "size": 17, "line": {"width": 2}},
    )
    return [trace]


def _hover(row: BlockRow) -> str:
    lines = [
        f"{row.hidden_size}: {escape(row.operations)}",
        f"loss {row.loss:.4f}",
        f"{row.latency_ms:.3g} ms",
    ]
    if row.parameters is not None:
        lines.append(f"{row.parameters / 1e6:.2f} M parameters")
    return "<br>".join(lines)


def _legend(title: str) -> Json:
    font: Json = {"size": 12, "color": MUTED}
    told: Json = {"text": title, "side": "left", "font": font}
    return {"orientation": "h", "x": 0, "y": -0.28, "yanchor": "top", "title": told}
