"""What proxy_final.json tells of the search's short trainings: do full ones rank students alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillhouse.errors import DataError
from stillhouse.evaluate.agreement import Agreement
from stillhouse.report.fields import (
    Fields,
    finite,
    integer,
    mapping,
    mappings,
    number,
    plain,
    read_json,
    sequence,
    text,
)

PROXY_FINAL_FILE = "proxy_final.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTwice:
    """A trial that was trained briefly and to the end; both scores are on the same set."""

    trial: int | None
    label: str
    role: Literal["winner", "control"]
    proxy: float
    final: float
    latency_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The proxy against itself: `pairs` are scores of the same trials with two seeds."""

    seeds: str
    pairs: tuple[tuple[float, float], ...]
    agreement: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyCheck:
    """How well the proxy's ranking agrees with the final one, and what trusting it cost."""

    metric: str
    measured_on: str
    points: tuple[TrainedTwice, ...]
    agreement: Agreement
    regret: float | None
    noise: Noise | None

    def of_role(self, role: Literal["winner", "control"]) -> list[TrainedTwice]:
        """The points of one role, in the file's order."""
        return [point for point in self.points if point.role == role]


def read_proxy_check(run: Path, notes: list[str]) -> ProxyCheck | None:
    """Read proxy_final.json; None for a run that checked no proxy."""
    path = run / PROXY_FINAL_FILE
    fields = read_json(path, notes)
    if not fields:
        return None
    try:
        agreement = Agreement.from_dict(mapping(fields, "agreement"))
        noise = _noise(mapping(fields, "noise"))
    except DataError as error:
        notes.append(f"{path.parent.name}/{path.name} could not be read: {error}")
        return None
    return ProxyCheck(
        metric=text(fields, "metric") or "quality",
        measured_on=text(fields, "set") or "search-validation",
        points=tuple(_points(fields, notes)),
        agreement=agreement,
        regret=number(fields, "regret"),
        noise=noise,
    )


def _points(fields: Fields, notes: list[str]) -> Iterator[TrainedTwice]:
    for place, point in enumerate(mappings(fields, "points"), start=1):
        proxy, final = number(point, "proxy"), number(point, "final")
        if proxy is None or final is None:
            notes.append(f"{PROXY_FINAL_FILE} point {place} lacks a score; it is left out")
            continue
        yield TrainedTwice(
            trial=integer(point, "trial"),
            label=text(point, "label"),
            role="winner" if point.get("role") == "winner" else "control",
            proxy=proxy,
            final=final,
            latency_ms=number(point, "latency_ms"),
        )


def _noise(fields: Fields) -> Noise | None:
    if not fields:
        return None
    pairs = [
        (finite(pair[0]), finite(pair[1]))
        for pair in sequence(fields, "pairs")
        if isinstance(pair, list) and len(pair) == 2  # noqa: PLR2004
    ]
    return Noise(
        seeds=" and ".join(map(plain, sequence(fields, "seeds"))),
        pairs=tuple((a, b) for a, b in pairs if a is not None and b is not None),
        agreement=Agreement.from_dict(mapping(fields, "agreement")),
    )
