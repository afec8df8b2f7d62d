"""What a run of nas-bert holds: its operations, its blocks and how they shrank, its students."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stillhouse.report.fields import (
    Fields,
    architecture_label,
    finite,
    integer,
    mapping,
    mappings,
    number,
    numbers,
    read_json,
    read_table,
    sequence,
    text,
    truth,
)
from stillhouse.report.figures import Figures, read_figures
from stillhouse.report.limits import Limited, read_limited

OPERATIONS_FILE = "operations.csv"
BLOCKS_FILE = "blocks.csv"
HEAD_FILE = "mlm/mlm.json"
TEACHER_ROW, ENDS_ROW = "teacher", "ends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """Latency of one operation at one hidden size, or why the device refuses it."""

    kind: str
    hidden_size: int
    latency_ms: float | None
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The table of operations; `ends` are embeddings and pooler together."""

    teacher_ms: float | None
    cells: tuple[Operation, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of the operations in the order of the file, the ends last."""
        named = dict.fromkeys(cell.kind for cell in self.cells)
        return tuple(sorted(named, key=lambda kind: kind == ENDS_ROW))

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths, ascending."""
        return tuple(sorted({cell.hidden_size for cell in self.cells}))

    @property
    def refused(self) -> tuple[Operation, ...]:
        """What the device does not run."""
        return tuple(cell for cell in self.cells if cell.refused)

    def at(self, kind: str, hidden_size: int) -> Operation | None:
        """The cell of the table, if it is known."""
        here = (cell for cell in self.cells if (cell.kind, cell.hidden_size) == (kind, hidden_size))
        return next(here, None)

    def share(self, cell: Operation) -> float:
        """A latency as a share of the longest one of the table, 0..1."""
        longest = max((one.latency_ms or 0.0 for one in self.cells), default=0.0)
        return (cell.latency_ms or 0.0) / longest if longest else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BinRecord:
    """What the end of an epoch did to a bin; both numbers count from 0."""

    epoch: int
    bin: int
    sampled: int | None
    dropped: int
    alive: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecord:
    """A trained block: its supernet, and where its candidates went.

    Attributes:
        number: From 1.
        left: Candidates of all bins that are left.
        left_in_bins: The same by bin; empty if it is unknown.
        other_latency_bin: Candidates whose latency lies in another bin than their size.
        beyond_largest: Candidates slower than the largest one, or refused by the device.
    """

    number: int
    steps: int | None
    tokens: float | None
    loss: float | None
    left: int | None
    left_in_bins: tuple[int, ...]
    other_latency_bin: int | None
    beyond_largest: int | None
    records: tuple[BinRecord, ...]

    @property
    def lost(self) -> int:
        """Candidates that lost a comparison."""
        return sum(record.dropped for record in self.records)

    @property
    def epochs(self) -> int:
        """Epochs until the last candidate was dropped."""
        return max((record.epoch + 1 for record in self.records), default=0)

    @property
    def candidates(self) -> int | None:
        """Candidates before anything was dropped, if all that became of them is known."""
        left_out = self.other_latency_bin, self.beyond_largest
        parts = (self.left, *left_out)
        known = [part for part in parts if part is not None]
        return sum(known) + self.lost if len(known) == len(parts) else None

    @property
    def bins(self) -> int:
        """Number of bins, as far as known."""
        last = max((record.bin for record in self.records), default=-1)
        return max(len(self.left_in_bins), last + 1)

    def course(self, place: int) -> list[tuple[int, int]]:
        """Candidates of a bin by epochs ended: at the start, after each drop, and at the end."""
        own = [record for record in self.records if record.bin == place]
        if not own:
            count = self.left_in_bins[place] if place < len(self.left_in_bins) else 0
            return [(0, count), (self.epochs, count)] if count else []
        course = {0: own[0].alive + own[0].dropped}
        course |= {record.epoch + 1: record.alive for record in own}
        course[self.epochs] = own[-1].alive
        return list(course.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRow:
    """A candidate of a block that is left; costs are of its operations alone."""

    block: int
    hidden_size: int
    operations: str
    parameters: float | None
    flops: float | None
    latency_ms: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A complete chain out of the table.

    `block_loss` is the sum of its blocks', `mlm_loss` that at masked words, in nats.
    """

    architecture: str
    block_loss: float | None
    mlm_loss: float | None
    predicted_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The student chosen for one budget; `blocks` are (hidden size, operations), first to last."""

    number: int
    limits: Mapping[str, float]
    limited: tuple[Limited, ...]
    best: Proposal
    blocks: tuple[tuple[int | None, str], ...]
    figures: Figures
    speedup: float | None
    flops: float | None
    flops_fraction: float | None
    runners_up: tuple[Proposal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedWords:
    """How a model does at `count` masked words of held-out text; the accuracy is 0..1."""

    accuracy_fraction: float | None
    cross_entropy_nats: float | None
    count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """A selected student after its pre-training."""

    number: int
    folder: str
    score: MaskedWords
    steps: int | None
    tokens: float | None
    start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The teacher's head for masked words."""

    score: MaskedWords
    is_trained_here: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """All that a run of nas-bert has so far; any part may be missing yet."""

    head: Head | None
    operations: Operations | None
    blocks: tuple[BlockRecord, ...]
    rows: tuple[BlockRow, ...]
    selected: tuple[Selected, ...]
    pretrained: tuple[Pretrained, ...]

    @property
    def last(self) -> Selected | None:
        """The latest selection."""
        return self.selected[-1] if self.selected else None

    @property
    def teacher_flops(self) -> float | None:
        """The teacher's FLOPs, which students are compared with."""
        for one in self.selected:
            if one.flops and one.flops_fraction:
                return one.flops / one.flops_fraction
        return None

    def predicted_speedup(self, proposal: Proposal) -> float | None:
        """The teacher's latency over the sum of a chain's operations."""
        teacher_ms = None if self.operations is None else self.operations.teacher_ms
        if teacher_ms is None or not proposal.predicted_ms:
            return None
        return teacher_ms / proposal.predicted_ms

    def trained(self, number: int) -> Pretrained | None:
        """A selected student after its pre-training, if it had any."""
        return next((one for one in self.pretrained if one.number == number), None)

    def rows_of(self, block: int) -> list[BlockRow]:
        """What is left of a block."""
        return [row for row in self.rows if row.block == block]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the blocks that anything is known of."""
        return sorted({one.number for one in self.blocks} | {row.block for row in self.rows})


def read_chains(run: Path, notes: list[str]) -> Chains:
    """Read what there is of a nas-bert run."""
    return Chains(
        head=_read_head(read_json(run / HEAD_FILE, notes)),
        operations=_read_operations(read_table(run / OPERATIONS_FILE, OPERATIONS_FILE, notes)),
        blocks=tuple(
            _read_block(number, folder, notes)
            for number, folder in _numbered(run / "supernets", "block-", "shrinking.json")
        ),
        rows=tuple(_read_rows(run / BLOCKS_FILE, notes)),
        selected=tuple(
            _read_selected(number, read_json(folder / "selected.json", notes))
            for number, folder in _numbered(run / "selected", "", "selected.json")
        ),
        pretrained=tuple(
            _read_pretrained(number, read_json(folder / "metrics.json", []))  # noted elsewhere
            for number, folder in _numbered(run / "students", "", "metrics.json")
        ),
    )


def _numbered(folder: Path, prefix: str, file: str) -> list[tuple[int, Path]]:
    """Folders that hold a file, by the number behind a prefix of their names."""
    found = [path.parent for path in folder.glob(f"{prefix}*/{file}")]
    ends = [(one.name.removeprefix(prefix), one) for one in found]
    return sorted((int(end), one) for end, one in ends if end.isdecimal())


def _read_head(fields: Fields) -> Head | None:
    if not fields:
        return None
    return Head(
        score=MaskedWords(
            accuracy_fraction=number(fields, "accuracy_fraction"),
            cross_entropy_nats=number(fields, "cross_entropy_nats"),
            count=integer(fields, "chosen_count"),
        ),
        is_trained_here=truth(fields, "is_trained_here"),
    )


def _read_operations(table: list[dict[str, str]]) -> Operations | None:
    teacher = (number(row, "latency_ms") for row in table if row.get("operation") == TEACHER_ROW)
    cells = []
    for row in table:
        size = integer(row, "hidden_size")
        if size is not None:
            cell = Operation(
                kind=text(row, "operation"),
                hidden_size=size,
                latency_ms=number(row, "latency_ms"),
                refused=text(row, "refused"),
            )
            cells.append(cell)
    return Operations(teacher_ms=next(teacher, None), cells=tuple(cells)) if cells else None


def _read_block(block: int, folder: Path, notes: list[str]) -> BlockRecord:
    facts = read_json(folder / "supernet.json", notes)
    fields = read_json(folder / "shrinking.json", notes)
    left_out = mapping(fields, "left_out")
    counts = [finite(count) for count in sequence(fields, "left_in_bins")]
    return BlockRecord(
        number=block,
        steps=integer(facts, "steps"),
        tokens=number(facts, "tokens"),
        loss=number(facts, "loss"),
        left=len(sequence(fields, "alive")) if "alive" in fields else None,
        left_in_bins=tuple(int(count or 0) for count in counts),
        other_latency_bin=integer(left_out, "other_latency_bin"),
        beyond_largest=integer(left_out, "beyond_largest"),
        records=tuple(_read_records(fields)),
    )


def _read_records(fields: Fields) -> Iterator[BinRecord]:
    for record in mappings(fields, "records"):
        epoch, place, dropped, alive = (
            integer(record, key) for key in ("epoch", "bin", "dropped", "alive")
        )
        if epoch is None or place is None or dropped is None or alive is None:
            continue
        yield BinRecord(
            epoch=epoch,
            bin=place,
            sampled=integer(record, "sampled"),
            dropped=dropped,
            alive=alive,
        )


def _read_rows(path: Path, notes: list[str]) -> Iterator[BlockRow]:
    for line, row in enumerate(read_table(path, path.name, notes), start=2):
        block, size = integer(row, "block"), integer(row, "hidden_size")
        latency_ms, loss = number(row, "latency_ms"), number(row, "loss")
        if block is None or size is None or latency_ms is None or loss is None:
            notes.append(f"{path.name} line {line} lacks its block or a figure; it is left out")
            continue
        yield BlockRow(
            block=block,
            hidden_size=size,
            operations=text(row, "operations"),
            parameters=number(row, "parameters"),
            flops=number(row, "flops"),
            latency_ms=latency_ms,
            loss=loss,
        )


def _read_selected(place: int, fields: Fields) -> Selected:
    blocks = mappings(mapping(fields, "architecture"), "blocks")
    return Selected(
        number=place,
        limits=numbers(fields, "limits"),
        limited=read_limited(fields),
        best=_read_proposal(fields),
        blocks=tuple(
            (integer(block, "hidden_size"), " ".join(map(str, sequence(block, "operations"))))
            for block in blocks
        ),
        figures=read_figures(fields),
        speedup=number(fields, "speedup"),
        flops=number(fields, "flops"),
        flops_fraction=number(fields, "flops_fraction"),
        runners_up=tuple(map(_read_proposal, mappings(fields, "runners_up"))),
    )


def _read_proposal(fields: Fields) -> Proposal:
    described = mapping(fields, "architecture")
    label = architecture_label(described) if described else text(fields, "architecture_label")
    return Proposal(
        architecture=label,
        block_loss=number(fields, "block_loss"),
        mlm_loss=number(fields, "mlm_loss"),
        predicted_ms=number(fields, "predicted_latency_ms"),
    )


def _read_pretrained(place: int, fields: Fields) -> Pretrained:
    training = mapping(fields, "pretrain")
    return Pretrained(
        number=place,
        folder=f"students/{place}",
        score=MaskedWords(
            accuracy_fraction=number(fields, "mlm_accuracy_fraction"),
            cross_entropy_nats=number(fields, "mlm_cross_entropy_nats"),
            count=integer(fields, "mlm_count"),
        ),
        steps=integer(training, "steps"),
        tokens=number(training, "tokens"),
        start=text(mapping(fields, "initialisation"), "kind"),
    )
