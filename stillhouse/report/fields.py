"""Values out of JSON and CSV that others wrote: what is missing or of another kind is None."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import architecture_from_dict
from stillhouse.space.chain import ChainArchitecture, chain_from_dict

Fields = Mapping[str, object]


def read_json(path: Path, notes: list[str]) -> dict[str, object]:
    """The mapping that a file holds; empty without one, which is noted where the file exists."""
    if not path.exists():
        return {}
    name = f"{path.parent.name}/{path.name}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        notes.append(f"{name} could not be read: {error}")
        return {}
    if not isinstance(content, dict):
        notes.append(f"{name} could not be read: it holds no mapping")
        return {}
    return content


def read_table(path: Path, name: str, notes: list[str]) -> list[dict[str, str]]:
    """The rows of a CSV file; empty without one, or, which is noted, if it cannot be read.

    Args:
        path: The file; cells that a row lacks are empty.
        name: What notes call it.
        notes: Added to.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        notes.append(f"{name} could not be read: {error}")
        return []


def plain(value: object) -> str:
    """A value as a person would write it: lists and mappings on one line, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(plain, value))
    return str(value).encode("utf-8", "replace").decode("utf-8")  # JSON may hold half a surrogate


def text(fields: Fields, key: str) -> str:
    """A value in words; empty without one."""
    value = fields.get(key)
    return "" if value is None else plain(value)


def number(fields: Fields, key: str) -> float | None:
    """A finite number, written as a number or (in a CSV) as text; else None."""
    return finite(fields.get(key))


def finite(value: object) -> float | None:
    """A value as `number` reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def integer(fields: Fields, key: str) -> int | None:
    """A number without its fraction."""
    found = number(fields, key)
    return None if found is None else int(found)


def truth(fields: Fields, key: str) -> bool | None:
    """True or False; else None."""
    value = fields.get(key)
    return value if isinstance(value, bool) else None


def numbers(fields: Fields, key: str) -> dict[str, float]:
    """The finite numbers of a mapping, by name."""
    inner = mapping(fields, key)
    found = {name: number(inner, name) for name in inner}
    return {name: value for name, value in found.items() if value is not None}


def mapping(fields: Fields, key: str) -> dict[str, object]:
    """A mapping within; empty without one."""
    inner = fields.get(key)
    return {str(name): value for name, value in inner.items()} if isinstance(inner, dict) else {}


def sequence(fields: Fields, key: str) -> list[object]:
    """A list within; empty without one."""
    inner = fields.get(key)
    return inner if isinstance(inner, list) else []


def mappings(fields: Fields, key: str) -> Iterator[dict[str, object]]:
    """The mappings of a list within; what else it holds is skipped."""
    return (item for item in sequence(fields, key) if isinstance(item, dict))


def architecture_label(described: Fields) -> str:
    """Label of an architecture; of one that this version cannot read, its fields as they are."""
    typed = {key: _as_integer(value) for key, value in described.items()}
    try:
        if typed.get("family") == ChainArchitecture.family:
            return chain_from_dict(typed).label
        return architecture_from_dict(typed).label
    except SpaceError:
        return ", ".join(f"{key}={value}" for key, value in described.items())


def _as_integer(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value
