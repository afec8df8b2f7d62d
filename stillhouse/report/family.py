"""What family.json and the supernets' folders tell: the searches, and every subnet scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stillhouse.report.fields import (
    Fields,
    architecture_label,
    integer,
    mapping,
    mappings,
    number,
    numbers,
    read_json,
    read_table,
    text,
)
from stillhouse.report.limits import Limited, read_limited

FAMILY_FILE = "family.json"
SUPERNETS_FOLDER = "supernets"
FACTS_FILE = "supernet.json"
SUBNETS_FILE = "subnets.csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A subnet of the supernet of a space; the relation loss is on held-out text.

    FLOPs are of the bare encoder with its pooler, and their fraction is of the teacher's, 0..1.
    """

    space: str
    architecture: str
    relation_loss: float | None
    parameters: float | None
    flops: float | None
    flops_fraction: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What was asked for, what was chosen, and what would have come next.

    `student` is the number of the chosen one's folder; `limited` is empty in older runs.
    """

    limits: Mapping[str, float]
    limited: tuple[Limited, ...]
    student: int | None
    best: Subnet
    runners_up: tuple[Subnet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetRecord:
    """A trained supernet and what of its subnets is scored, which may be nothing yet.

    `wall_s` counts from the last start of its training.
    """

    space: str
    steps: int | None
    tokens: float | None
    training_loss: float | None
    wall_s: float | None
    subnets: tuple[Subnet, ...]

    @property
    def weighed(self) -> tuple[Subnet, ...]:
        """Subnets whose share of the teacher's FLOPs is known."""
        return tuple(subnet for subnet in self.subnets if subnet.flops_fraction is not None)

    @property
    def lowest_loss(self) -> float | None:
        """Relation loss of the subnet nearest to the teacher."""
        losses = (subnet.relation_loss for subnet in self.subnets)
        return min((loss for loss in losses if loss is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Supernets, smallest first, and the searches of them, in order; either may be missing yet."""

    searches: tuple[Search, ...]
    supernets: tuple[SupernetRecord, ...]
    flops_length: int | None

    @property
    def weighed_count(self) -> int:
        """Subnets whose share of the teacher's FLOPs is known, in all spaces together."""
        return sum(len(supernet.weighed) for supernet in self.supernets)

    @property
    def teacher_flops(self) -> float | None:
        """The teacher's FLOPs, which students are compared with."""
        for search in self.searches:
            if search.best.flops and search.best.flops_fraction:
                return search.best.flops / search.best.flops_fraction
        return None

    @property
    def flops_limits(self) -> tuple[float, ...]:
        """The different limits on FLOPs that were asked for, as shares of the teacher's."""
        asked = {search.limits.get("flops_fraction") for search in self.searches}
        return tuple(sorted(limit for limit in asked if limit is not None))


def read_family(run: Path, notes: list[str]) -> Family | None:
    """Read searches and supernets; None for a run with neither."""
    searches = tuple(_read_searches(run / FAMILY_FILE, notes))
    supernets, lengths = [], []
    for folder in _supernet_folders(run):
        fields = read_json(folder / FACTS_FILE, notes)
        subnets, length = _read_subnets(folder / SUBNETS_FILE, notes)
        supernets.append(_supernet(folder.name, fields, subnets))
        lengths.append(length)
    if not searches and not supernets:
        return None
    return Family(
        searches=searches,
        supernets=tuple(sorted(supernets, key=_smallest)),
        flops_length=next((length for length in lengths if length is not None), None),
    )


def _supernet_folders(run: Path) -> list[Path]:
    """Folders of supernets; one that is being written aside has a name with a leading dot."""
    files = (FACTS_FILE, SUBNETS_FILE)
    found = {path.parent for name in files for path in (run / SUPERNETS_FOLDER).glob(f"*/{name}")}
    return sorted(folder for folder in found if not folder.name.startswith("."))


def _smallest(supernet: SupernetRecord) -> float:
    """Share of the teacher's FLOPs that its smallest subnet has; they are smallest first."""
    return min((one.flops_fraction or 0.0 for one in supernet.weighed), default=float("inf"))


def _supernet(space: str, fields: Fields, subnets: tuple[Subnet, ...]) -> SupernetRecord:
    return SupernetRecord(
        space=space,
        steps=integer(fields, "steps"),
        tokens=number(fields, "tokens"),
        training_loss=number(fields, "loss"),
        wall_s=number(fields, "wall_s"),
        subnets=subnets,
    )


def _read_searches(path: Path, notes: list[str]) -> Iterator[Search]:
    fields = read_json(path, notes)
    for place, search in enumerate(mappings(fields, "searches"), start=1):
        best = mapping(search, "best")
        if not best:
            notes.append(f"{path.name} search {place} names no student; it is left out")
            continue
        yield Search(
            limits=numbers(search, "limits"),
            limited=read_limited(mapping(search, "costs")),
            student=integer(search, "student"),
            best=_subnet(best, "relation_loss"),
            runners_up=tuple(
                _subnet(other, "relation_loss") for other in mappings(search, "runners_up")
            ),
        )


def _subnet(fields: Fields, loss: str) -> Subnet:
    described = mapping(fields, "architecture")
    label = architecture_label(described) if described else ""
    return Subnet(
        space=text(fields, "space"),
        architecture=label or text(fields, "architecture_label"),
        relation_loss=number(fields, loss),
        parameters=number(fields, "parameters"),
        flops=number(fields, "flops"),
        flops_fraction=number(fields, "flops_fraction"),
    )


def _read_subnets(path: Path, notes: list[str]) -> tuple[tuple[Subnet, ...], int | None]:
    """The scored subnets of a space, and the tokens that their FLOPs are counted at."""
    name = f"{SUPERNETS_FOLDER}/{path.parent.name}/{path.name}"
    rows = read_table(path, name, notes)
    read = (_subnet_row(path.parent.name, row) for row in rows)
    subnets = tuple(subnet for subnet in read if subnet is not None)
    if len(subnets) < len(rows):
        notes.append(
            f"{len(rows) - len(subnets)} of {len(rows)} rows of {name} lack an architecture or a "
            "loss; they are left out"
        )
    unweighed = sum(subnet.flops_fraction is None for subnet in subnets)
    if unweighed:
        notes.append(f"{unweighed} of {len(rows)} rows of {name} lack FLOPs; they are not drawn")
    lengths = (integer(row, "length") for row in rows)
    return subnets, next((length for length in lengths if length is not None), None)


def _subnet_row(space: str, row: Fields) -> Subnet | None:
    try:
        described = json.loads(text(row, "architecture"))
    except ValueError:
        return None
    if not isinstance(described, dict) or not described:
        return None
    subnet = _subnet({**row, "space": space, "architecture": described}, "loss")
    return None if subnet.relation_loss is None else subnet
