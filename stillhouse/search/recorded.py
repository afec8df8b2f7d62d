"""Recorded tables: what a search would have found out, kept in a file, and searched in seconds."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from stillhouse.errors import DataError, SpaceError
from stillhouse.files import write_text_atomically
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import Architecture, BertArchitecture, architecture_from_dict
from stillhouse.space.families import DIMENSION_NAMES, MOBILEBERT_FAMILY, Value
from stillhouse.space.mobilebert import MobileBertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    BertArchitecture.family: ("layers", "hidden_size", "heads", "ffn_size", "activation"),
    MobileBertArchitecture.family: (*MOBILEBERT_FAMILY.names, "attention"),
}
"""By family, the columns of an architecture: what its `to_dict` has beside the family."""

_WORDS = ("activation", "attention")
_FIGURES = ("seed", "quality", "latency_ms")
_OPTIONAL = "hidden_quality"
_HEAD_SIZE = "head_size"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRow:
    """What one training of one architecture came to.

    Args:
        architecture: What was trained.
        seed: Of the training, at least 0.
        quality: Score on the search-validation set, higher is better.
        latency_ms: Latency on the device of the recording, above 0.
        hidden_quality: 1 less the loss of the hidden states; None where it was not measured.

    Raises:
        DataError: A figure is not finite, or the latency or the seed is out of its range.
    """

    architecture: Architecture
    seed: int
    quality: float
    latency_ms: float
    hidden_quality: float | None = None

    def __post_init__(self) -> None:
        """Refuse figures that nothing could be learnt from."""
        for name in ("quality", "latency_ms", "hidden_quality"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise DataError(f"{name} must be a finite number, got {value}")
        if self.latency_ms <= 0 or self.seed < 0:
            raise DataError(
                f"latency_ms must be above 0 and seed at least 0, got {self.latency_ms} "
                f"and {self.seed}"
            )


@dataclass(frozen=True, slots=True)
class AmongRecorded:
    """A `Constraint`: only architectures of a recorded table."""

    architectures: frozenset[Architecture]
    name: ClassVar[str] = "recorded"

    @property
    def description(self) -> str:
        """The rule with its numbers."""
        return f"one of {len(self.architectures)} recorded architectures"

    def allows(self, architecture: Architecture) -> bool:
        """Look it up."""
        return architecture in self.architectures


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTable:
    """Recorded rows by architecture, in the order of recording; of one family.

    Args:
        rows: For each architecture its rows, one a seed.

    Raises:
        DataError: The table is empty, a seed of an architecture is there twice, or architectures
            are of several families.
    """

    rows: Mapping[Architecture, tuple[RecordedRow, ...]]

    def __post_init__(self) -> None:
        """Check that every row counts once."""
        if not self.rows:
            raise DataError("a recorded table needs at least one row, got none")
        families = sorted({architecture.family for architecture in self.rows})
        if len(families) > 1:
            raise DataError(
                f"a recorded table holds one family of architectures, got {' and '.join(families)}"
                "; make it a table for each"
            )
        for architecture, rows in self.rows.items():
            seeds = [row.seed for row in rows]
            if len(set(seeds)) < len(seeds):
                raise DataError(
                    f"{architecture.label} is recorded twice with the same seed "
                    f"(seeds {seeds}); remove a row"
                )

    @staticmethod
    def of(rows: Iterable[RecordedRow]) -> "RecordedTable":
        """Group rows by architecture."""
        grouped: dict[Architecture, tuple[RecordedRow, ...]] = {}
        for row in rows:
            grouped[row.architecture] = (*grouped.get(row.architecture, ()), row)
        return RecordedTable(rows=grouped)

    def quality(self, architecture: Architecture) -> float:
        """Return the mean quality over the recorded seeds.

        Raises:
            DataError: The architecture is not recorded.
        """
        return statistics.fmean(row.quality for row in self._rows_of(architecture))

    def latency_ms(self, architecture: Architecture) -> float:
        """Return the mean latency over the recorded seeds.

        Raises:
            DataError: The architecture is not recorded.
        """
        return statistics.fmean(row.latency_ms for row in self._rows_of(architecture))

    def trials(self) -> list[Trial]:
        """Return every architecture as a complete trial of its mean figures, as recorded."""
        return [
            Trial(
                number=number,
                architecture=architecture,
                state=TrialState.COMPLETE,
                quality=self.quality(architecture),
                latency_ms=self.latency_ms(architecture),
            )
            for number, architecture in enumerate(self.rows)
        ]

    def space(self) -> SearchSpace:
        """Return the smallest grid around the recorded architectures, and of it them alone.

        Where every point of the grid that can be built is recorded, the space has no constraint. A
        dimension of one value stays. Beside heads there is head_size if heads are free in any.

        Raises:
            SpaceError: A MobileBERT has its attention in the bottleneck, for which spaces have no
                dimension.
        """
        for architecture in self.rows:
            if isinstance(architecture, MobileBertArchitecture):
                _check_attention(architecture)
        grid = SearchSpace(
            tuple(Dimension(name, _values(self.rows, name)) for name in _dimensions(self.rows))
        )
        if len(grid) == len(self.rows):
            return grid
        return grid.with_constraint(AmongRecorded(frozenset(self.rows)))

    def _rows_of(self, architecture: Architecture) -> tuple[RecordedRow, ...]:
        if architecture not in self.rows:
            raise DataError(f"{architecture.label} is not recorded; ask for one of `rows`")
        return self.rows[architecture]


def read_recorded(path: Path) -> RecordedTable:
    """Read a recorded table.

    Args:
        path: CSV with the columns family, seed, quality, latency_ms, optionally hidden_quality, and
            those of the family: layers, hidden_size, heads, ffn_size, activation, and head_size
            where heads are free; or layers, hidden_size, bottleneck_size, heads, ffn_size,
            ffn_count, embedding_size and attention (shared or bottleneck). Others are passed over.

    Returns:
        The validated table.

    Raises:
        DataError: A column is missing, a cell breaks a rule, a seed is there twice, or families
            are mixed; named with the file, and the line where one is to blame.
    """
    if not path.is_file():
        raise DataError(f"there is no recorded table at {path}; record one, or name another")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in ("family", *_FIGURES) if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path} lacks the columns {', '.join(missing)}")
        rows = list(_read_rows(path, reader))
    try:
        return RecordedTable.of(rows)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def write_recorded(path: Path, row: RecordedRow) -> None:
    """Append one row, so that an interrupted recording goes on where it stopped.

    A new file gets its header first; a line that an interruption left unfinished is removed. The
    first row of free heads adds the column head_size at the end, which is empty in other rows.

    Args:
        path: The CSV file; its folder exists.
        row: What was found out.

    Raises:
        DataError: The file lacks columns that the row needs, as a table of another family does.
    """
    _drop_unfinished_line(path)
    is_new = not path.exists() or path.stat().st_size == 0
    required = _required(row.architecture.family)
    columns = [*required, _OPTIONAL] if is_new else _columns(path, required)
    if row.architecture.has_free_heads and _HEAD_SIZE not in columns:
        columns.append(_HEAD_SIZE)
        if not is_new:
            _add_column(path, _HEAD_SIZE)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(
            {
                **row.architecture.to_dict(),
                "seed": row.seed,
                "quality": row.quality,
                "latency_ms": row.latency_ms,
                _OPTIONAL: row.hidden_quality,
            }
        )


def _check_attention(architecture: MobileBertArchitecture) -> None:
    if architecture.bottleneck_attention:
        raise SpaceError(
            f"search spaces have MobileBERTs of shared attention only, but {architecture.label} is "
            "recorded; leave such rows out of a table that is to be searched"
        )


def _dimensions(architectures: Iterable[Architecture]) -> list[str]:
    """Name the dimensions of a space around architectures of one family."""
    several = list(architectures)
    columns = [name for name in _COLUMNS[several[0].family] if name in DIMENSION_NAMES]
    if any(architecture.has_free_heads for architecture in several):
        columns.insert(columns.index("activation"), _HEAD_SIZE)
    return columns


def _required(family: str) -> tuple[str, ...]:
    return ("family", *_COLUMNS[family], *_FIGURES)


def _values(architectures: Iterable[Architecture], name: str) -> tuple[Value, ...]:
    return tuple(sorted({getattr(architecture, name) for architecture in architectures}))


def _read_rows(path: Path, reader: "csv.DictReader[str]") -> Iterator[RecordedRow]:
    for cells in reader:
        try:
            yield _read_row(cells)
        except (DataError, SpaceError, ValueError, TypeError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None


def _read_row(cells: Mapping[str, str | None]) -> RecordedRow:
    family = cells["family"] or ""
    if family and family not in _COLUMNS:
        raise DataError(f"family must be one of {', '.join(_COLUMNS)}, got {family!r}")
    required = _required(family) if family else ("family",)
    missing = [name for name in required if name not in cells]
    if missing:
        raise DataError(f"the columns {', '.join(missing)}, which {family} needs, are missing")
    empty = [name for name in required if not cells[name]]
    if empty:
        raise DataError(f"nothing is given for {', '.join(empty)}")
    given = {name: text or "" for name, text in cells.items()}
    hidden_quality = given.get(_OPTIONAL)
    return RecordedRow(
        architecture=_read_architecture(family, given),
        seed=int(given["seed"]),
        quality=float(given["quality"]),
        latency_ms=float(given["latency_ms"]),
        hidden_quality=float(hidden_quality) if hidden_quality else None,
    )


def _read_architecture(family: str, given: Mapping[str, str]) -> Architecture:
    names = [*_COLUMNS[family]]
    if family == BertArchitecture.family and given.get(_HEAD_SIZE):
        names.append(_HEAD_SIZE)
    values = {name: given[name] if name in _WORDS else int(given[name]) for name in names}
    return architecture_from_dict({"family": family, **values})


def _columns(path: Path, required: Sequence[str]) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        columns = next(csv.reader(file))
    missing = [name for name in required if name not in columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; write to another file")
    return columns


def _add_column(path: Path, name: str) -> None:
    """Write the file anew with one more column, which is empty but for its name."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, name])
    writer.writerows([*cells, ""] for cells in lines)
    write_text_atomically(path, text.getvalue())


def _drop_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
