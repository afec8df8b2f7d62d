"""Results as plain data for scripts: what `--json` prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stillhouse.api import SearchResult, Student
    from stillhouse.search.trial import Trial

FORMAT = 1
"""Of every document; another number where a key changed its meaning."""


def plain(value: Any) -> Any:
    """Returns data as JSON has it: paths as text, numbers that are not finite as null."""
    match value:
        case Enum():
            told = plain(value.value)
        case float():
            told = float(value) if math.isfinite(value) else None
        case Path():
            told = str(value)
        case Mapping():
            told = {str(key): plain(one) for key, one in value.items()}
        case list() | tuple():
            told = [plain(one) for one in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            told = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case _:  # numbers of NumPy know their own
            told = plain(value.item()) if hasattr(value, "item") else value
    return told


def as_json(command: str, told: Mapping[str, Any]) -> str:
    """Returns the document of a command."""
    document = {"command": command, "format": FORMAT, **told}
    return json.dumps(plain(document), indent=2, allow_nan=False, ensure_ascii=False)


def plain_error(kind: str, message: str, exit_code: int) -> dict[str, Any]:
    """Returns what is told of a command that did not come to its end."""
    return {"error": {"kind": kind, "message": message, "exit_code": exit_code}}


def plain_students(students: Sequence[Student]) -> list[dict[str, Any]]:
    """Returns finished students in their order."""
    return [{"path": one.path, "metrics": one.metrics} for one in students]


def plain_trial(trial: Trial) -> dict[str, Any]:
    """Returns one trial."""
    return {
        "number": trial.number,
        "architecture": trial.architecture.to_dict(),
        "state": trial.state,
        "quality": trial.quality,
        "latency_ms": trial.latency_ms,
        "reason": trial.reason,
    }


def plain_search(result: SearchResult) -> dict[str, Any]:
    """Returns what a search left."""
    return {
        "run": result.path,
        "report": result.report,
        "students": plain_students(result.students),
        "competitors": plain_students(result.competitors),
        "controls": plain_students(result.controls),
        "front": [plain_trial(trial) for trial in result.front],
        "trials": [plain_trial(trial) for trial in result.trials],
    }
