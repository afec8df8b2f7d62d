"""What pydantic refuses in settings, in the words of those who write them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from stillhouse.errors import did_you_mean
from stillhouse.run.device_settings import LimitSettings

_SHOULD_BE = "Input should be "
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def explain(error: ValidationError, whole: type) -> str:
    """Names path, rule and value of everything that is wrong, a line each.

    Args:
        error: Of pydantic.
        whole: Class of all settings, whose fields are sections or single settings.
    """
    entries: dict[str, list[Mapping[str, Any]]] = {}
    for entry in error.errors():
        entries.setdefault(_path(entry["loc"], whole), []).append(entry)
    for path in [path for path in entries if any(one.startswith(f"{path}.") for one in entries)]:
        del entries[path]  # of another type than its items, which are nearer to what is meant
    return "\n".join(
        f"{path or 'settings'}: {_message(found, whole)}" for path, found in entries.items()
    )


def _path(location: Sequence[int | str], whole: type) -> str:
    """Returns the path of a setting or of an item of it, without the types that pydantic tried."""
    kind: type | None = whole
    parts = []
    for part in location:
        if kind is None and isinstance(part, str):
            continue
        parts.append(str(part))
        kind = None if kind is None else _kind(kind, part)
    return ".".join(parts)


def _message(entries: Sequence[Mapping[str, Any]], whole: type) -> str:
    """Says what is wrong with one setting, which may be of one of several types."""
    depth = max(len(entry["loc"]) for entry in entries)
    deepest = [entry for entry in entries if len(entry["loc"]) == depth]  # nearest to what is meant
    first = deepest[0]
    value = "" if isinstance(first["input"], Mapping) else f" (value: {first['input']!r})"
    if first["type"] in _UNKNOWN:
        return _unknown_key(first["loc"], whole) + value
    if first["type"] == "dataclass_type":
        keys = ", ".join(_keys(_section(first["loc"], whole)))
        return f"must be a section with settings of its own ({keys}){value}"
    words = [
        word
        for entry in deepest
        if entry["type"] == "literal_error"
        for word in re.findall(r"'([^']*)'", entry["ctx"]["expected"])
    ]
    rules = [
        entry["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
        for entry in deepest
        if entry["type"] != "literal_error"
    ]
    if not words:
        return "; or ".join(rules) + value
    allowed = [*map(repr, words), *(rule.removeprefix(_SHOULD_BE) for rule in rules)]
    listed = f"{', '.join(allowed[:-1])} or {allowed[-1]}" if len(allowed) > 1 else allowed[0]
    return f"{_SHOULD_BE}{listed}{did_you_mean(str(first['input']), words)}{value}"


def _unknown_key(path: Sequence[int | str], whole: type) -> str:
    """Says which keys there are, and which was meant: by this name elsewhere, or spelt alike."""
    name, known = str(path[-1]), _keys(_section(path[:-1], whole))
    sections = {field.name: _kind(whole, field.name) for field in dataclasses.fields(whole)}
    named = [f"{home}.{name}" for home, section in sections.items() if name in _keys(section)]
    named = [one for one in named if not one.startswith("limits.")]  # of which each is a limit
    hint = f": did you mean {' or '.join(named)}?" if named else did_you_mean(name, known)
    return f"unknown key; known keys here: {', '.join(known)}{hint}"


def _section(path: Sequence[int | str], whole: type) -> type | None:
    """Returns the class of the section at a path."""
    kind: type | None = whole
    for part in path:
        kind = None if kind is None else _kind(kind, part)
    return kind


def _kind(kind: type, part: int | str) -> type | None:
    """Returns the class of a section, or nothing of a single setting."""
    if part == "limits" or isinstance(part, int):  # budgets, and one of them
        return LimitSettings
    factories: dict[str, Any] = {one.name: one.default_factory for one in dataclasses.fields(kind)}
    factory = factories.get(part)
    return factory if isinstance(factory, type) and dataclasses.is_dataclass(factory) else None


def _keys(kind: type | None) -> list[str]:
    return [] if kind is None else [field.name for field in dataclasses.fields(kind)]
