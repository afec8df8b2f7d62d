"""Latencies looked up in a table that somebody measured before."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.device.latency import Comparison, Latency, Shape, Workload, no_memory, told
from stillhouse.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping

TEACHER_ROW = "teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDevice:
    """A device known by a table only.

    Attributes:
        name: What stands beside every figure.
        latency_ms: Latency by architecture key; the row `teacher` is the teacher's.
    """

    name: str
    latency_ms: Mapping[str, float]

    def compare(self, architecture: Shape, workload: Workload) -> Comparison:  # noqa: D102
        return Comparison(
            student=self._look_up(architecture.key, workload),
            teacher=self._look_up(TEACHER_ROW, workload),
        )

    def peak_memory_mb(self, architecture: Shape, workload: Workload) -> float:  # noqa: D102
        raise no_memory(f"the latency table {self.name!r}", architecture, workload)

    def _look_up(self, row: str, workload: Workload) -> Latency:
        if row not in self.latency_ms:
            raise DeviceError(
                f"latency table {self.name!r} has no row {row!r}; measure it and add the row, or "
                "narrow the space to the rows it has"
            )
        ms = self.latency_ms[row]
        return told(ms, how="table", device=self.name, workload=workload)


def read_table(path: Path) -> TableDevice:
    """Reads a CSV with the columns `architecture` (a key, or `teacher`) and `latency_ms`.

    Raises:
        DeviceError: If the file cannot be read, a column or the teacher's row is missing, or a
            latency is not a positive number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DeviceError(f"latency table {path} cannot be read as UTF-8 text: {error}") from error
    rows: dict[str, float] = {}
    reader = csv.DictReader(io.StringIO(text))
    missing = {"architecture", "latency_ms"} - set(reader.fieldnames or ())
    if missing:
        raise DeviceError(f"latency table {path} lacks the columns {sorted(missing)}")
    for line, row in enumerate(reader, start=2):
        try:
            latency_ms = float(row["latency_ms"])
        except (TypeError, ValueError):
            latency_ms = 0.0
        if not 0 < latency_ms < math.inf:
            raise DeviceError(
                f"latency table {path}, line {line}: latency_ms must be a number above 0, "
                f"got {row['latency_ms']!r}"
            )
        rows[row["architecture"]] = latency_ms
    if TEACHER_ROW not in rows:
        raise DeviceError(f"latency table {path} lacks the row {TEACHER_ROW!r}")
    return TableDevice(name=path.stem, latency_ms=rows)
