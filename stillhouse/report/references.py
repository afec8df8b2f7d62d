"""The hand-crafted architectures that were judged as the trials were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stillhouse.report.fields import Fields, mappings, number, read_json, text, truth
from stillhouse.report.shapes import Shape, read_shape

REFERENCES_FILE = "references.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A hand-crafted architecture; `quality` is on what judged the trials."""

    name: str
    architecture: str
    shape: Shape | None
    quality: float | None
    latency_ms: float | None
    latency_low_ms: float | None
    latency_high_ms: float | None
    latency_how: str
    speedup: float | None
    parameters: float | None
    size_mb: float | None
    flops_fraction: float | None
    within_limit: bool | None

    @property
    def is_drawn(self) -> bool:
        """Whether it has a place in a plot of quality and latency."""
        return self.quality is not None and self.latency_ms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """One that could not be judged, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """All of a run."""

    points: tuple[Reference, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def read_references(run: Path, notes: list[str]) -> References:
    """What references.json tells; empty without one."""
    content = read_json(run / REFERENCES_FILE, notes)
    return References(
        points=tuple(_points(content)),
        left_out=tuple(
            LeftOut(name=text(one, "name"), reason=text(one, "reason"))
            for one in mappings(content, "left_out")
        ),
    )


def _points(content: Fields) -> Iterator[Reference]:
    for fields in mappings(content, "points"):
        yield Reference(
            name=text(fields, "name"),
            architecture=text(fields, "label"),
            shape=read_shape(fields.get("architecture")),
            quality=number(fields, "quality"),
            latency_ms=number(fields, "latency_ms"),
            latency_low_ms=number(fields, "latency_low_ms"),
            latency_high_ms=number(fields, "latency_high_ms"),
            latency_how=text(fields, "latency_how"),
            speedup=number(fields, "speedup"),
            parameters=number(fields, "parameters"),
            size_mb=number(fields, "size_mb"),
            flops_fraction=number(fields, "flops_fraction"),
            within_limit=truth(fields, "within_limit"),
        )
