"""Complete chains of a nas-bert run, selected and next in line, with axes to choose."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from stillhouse.report.axes import Axis, Chooser, Point, Series, chooser
from stillhouse.report.chains import Chains, Pretrained, Proposal, Selected
from stillhouse.report.drawing import PAPER, STUDENT, TEACHER, TRIED, Json
from stillhouse.report.figures import Figures
from stillhouse.report.gather import Contents

PLACE = "selected"
MLM_LOSS, BLOCK_LOSS, RIGHT = "mlm_loss", "block_loss", "accuracy_fraction"
PREDICTED, LATENCY, SIZE = "predicted_ms", "latency_ms", "size_mb"
PARAMETERS, FLOPS, MEMORY = "parameters", "flops_fraction", "memory_mb"
MILLION = 1e6


def choose_chains(contents: Contents) -> dict[str, Chooser]:
    """The figure of complete chains by its place; none before any is selected."""
    chains = contents.chains
    if chains is None or not chains.selected:
        return {}
    next_in_line = [
        _of_proposal(other, f"next for {one.number}")
        for one in chains.selected
        for other in one.runners_up
    ]
    selected = [_of_selected(one, chains.trained(one.number)) for one in chains.selected]
    series = [
        _series("next in line", next_in_line, {"color": TRIED, "size": 8, "opacity": 0.8}),
        _series("selected", selected, _NUMBERED, {"color": PAPER, "size": 11}),
        _series("teacher", _teacher(contents, chains), _TEACHER),
    ]
    found = chooser(PLACE, _axes(chains), (_first_cost(chains), MLM_LOSS), series)
    return {} if found is None else {PLACE: found}


_NUMBERED: Mapping[str, Json] = {
    "color": STUDENT,
    "size": 19,
    "line": {"color": PAPER, "width": 1.5},
}
_TEACHER: Mapping[str, Json] = {"color": TEACHER, "size": 15, "symbol": "diamond"}


def _first_cost(chains: Chains) -> str:
    """What lies across at first: the cost that is known of those next in line as well."""
    predicted = any(one.best.predicted_ms is not None for one in chains.selected)
    return PREDICTED if predicted else PARAMETERS


def _axes(chains: Chains) -> list[Axis]:
    def limits(name: str, scale: float = 1.0) -> tuple[float, ...]:
        asked = {one.limits.get(name) for one in chains.selected}
        return tuple(sorted(scale * limit for limit in asked if limit is not None))

    parameters = (*limits(PARAMETERS), *limits("params_m", MILLION))
    return [
        Axis(name=MLM_LOSS, label="masked-word loss", unit="loss", is_linear=True),
        Axis(name=BLOCK_LOSS, label="sum of block losses", unit="loss", is_linear=True),
        Axis(name=RIGHT, label="masked words told right, pre-trained", unit="fraction"),
        Axis(name=PREDICTED, label="predicted latency, ms", unit="ms", limits=limits(LATENCY)),
        Axis(name=LATENCY, label="latency, ms", unit="ms", limits=limits(LATENCY)),
        Axis(name=PARAMETERS, label="parameters", unit="count", limits=parameters),
        Axis(name=SIZE, label="size, MB", unit="MB", limits=limits(SIZE)),
        Axis(
            name=FLOPS,
            label="FLOPs, share of the teacher’s",
            unit="fraction",
            limits=limits(FLOPS),
        ),
        Axis(name=MEMORY, label="peak memory, MB", unit="MB", limits=limits(MEMORY)),
    ]


def _series(
    name: str,
    points: list[Point],
    marker: Mapping[str, Json],
    font: Mapping[str, Json] | None = None,
) -> Series:
    look: dict[str, Json] = {"type": "scatter", "mode": "markers", "name": name, "marker": marker}
    if font is not None:
        look.update(mode="markers+text", textfont=font)
    return Series(look=look, points=tuple(points))


def _of_proposal(one: Proposal, told: str) -> Point:
    return Point(
        head=f"<b>{escape(told)}</b><br>{escape(one.architecture)}",
        values={
            MLM_LOSS: one.mlm_loss,
            BLOCK_LOSS: one.block_loss,
            PREDICTED: one.predicted_ms,
        },
    )


def _of_selected(one: Selected, trained: Pretrained | None) -> Point:
    known = _of_proposal(one.best, f"selected {one.number}")
    right = None if trained is None else trained.score.accuracy_fraction
    costs = {**_costs(one.figures), FLOPS: one.flops_fraction}
    return Point(
        head=known.head,
        values={**known.values, **costs, RIGHT: right},
        low={LATENCY: one.figures.latency_low_ms},
        high={LATENCY: one.figures.latency_high_ms},
        text=str(one.number),
    )


def _teacher(contents: Contents, chains: Chains) -> list[Point]:
    operations, head = chains.operations, chains.head
    latency_ms = None if operations is None else operations.teacher_ms
    values = {
        **_costs(contents.teacher),
        LATENCY: latency_ms,
        FLOPS: 1.0,
        RIGHT: None if head is None else head.score.accuracy_fraction,
    }
    return [Point(head=f"<b>teacher</b> {escape(contents.teacher_name)}", values=values)]


def _costs(figures: Figures) -> dict[str, float | None]:
    return {
        LATENCY: figures.latency_ms,
        PARAMETERS: figures.parameters,
        SIZE: figures.size_mb,
        MEMORY: figures.memory_mb,
    }
