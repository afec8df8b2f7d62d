"""Measured points of a profile, kept one by one, so that a killed job goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from stillhouse.device.profile import Subject
from stillhouse.errors import DeviceError, SettingsError
from stillhouse.files import write_text_atomically
from stillhouse.run.settings_file import difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What became of one architecture.

    Attributes:
        architecture: Its key.
        cost_s: Seconds that it took.
        ratio: Of its latency to the reference's; `None` if the device refused it.
        reference_ms: The reference's in the same minute.
        noise_fraction: Half-width of the ratio's 95 % interval over it.
        refused: Why the device refused it; empty if it did not.
    """

    architecture: str
    cost_s: float
    ratio: float | None = None
    reference_ms: float | None = None
    noise_fraction: float | None = None
    refused: str = ""


class PointsFile:
    """Measured points, a line each behind one that tells the subject; what is in it stays known.

    Attributes:
        subject: What the points are of.
        points: By key of the architecture.
    """

    def __init__(self, path: Path, subject: Subject) -> None:
        """Reads what an earlier start left.

        Args:
            path: The file.
            subject: What its points must be of.

        Raises:
            SettingsError: If it is of another subject.
            DeviceError: If it is damaged.
        """
        self._path = path
        self.subject = subject
        self._lines = [json.dumps({"subject": asdict(subject)})]
        self.points: dict[str, Point] = {}
        if path.exists():
            self._read(subject)

    def add(self, point: Point) -> None:
        """Keeps a point on the disk."""
        self._lines.append(json.dumps(asdict(point), allow_nan=False))
        self.points[point.architecture] = point
        write_text_atomically(self._path, "".join(f"{line}\n" for line in self._lines))

    def remove(self) -> None:
        """Removes the file, whose points are in a profile now."""
        self._path.unlink(missing_ok=True)

    def _read(self, subject: Subject) -> None:
        first, *lines = self._path.read_text(encoding="utf-8").splitlines() or [""]
        try:
            found = TypeAdapter(dict[Literal["subject"], Subject]).validate_json(first)["subject"]
            points = [TypeAdapter(Point).validate_json(line) for line in lines]
        except (ValidationError, SettingsError, KeyError) as error:
            raise DeviceError(
                f"{self._path} is damaged or holds no points: delete it, or give another --out"
            ) from error
        refuse_other_subject(self._path, found, subject)
        self._lines += lines
        self.points = {point.architecture: point for point in points}


def refuse_other_subject(path: Path, found: Subject, wanted: Subject) -> None:
    """Refuses to go on with what was measured for something else.

    Raises:
        SettingsError: Naming what differs.
    """
    told = difference(asdict(found), asdict(wanted))
    if told:
        raise SettingsError(
            f"{path} is of another profile than is asked for: {'; '.join(told)}. Give another "
            "--out, or delete it"
        )
