"""What a run of nas-bert holds: its operations, its blocks and how they shrank, its students."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.report.figures import Figures
from stillhouse.report.limits import Limited

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
