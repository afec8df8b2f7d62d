"""Read what a run of nas-bert has so far; any part may be missing yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stillhouse.report.chains import (
    TEACHER_ROW,
    BinRecord,
    BlockRecord,
    BlockRow,
    Chains,
    Head,
    MaskedWords,
    Operation,
    Operations,
    Pretrained,
    Proposal,
    Selected,
)
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
from stillhouse.report.figures import read_figures
from stillhouse.report.limits import read_limited

OPERATIONS_FILE = "operations.csv"
BLOCKS_FILE = "blocks.csv"
HEAD_FILE = "mlm/mlm.json"


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
