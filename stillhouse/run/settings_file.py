"""Settings as users write them, in files and on the command line, and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stillhouse.errors import SettingsError


def read_settings(path: Path) -> dict[str, Any]:
    """Reads a YAML settings file as plain data, not yet validated.

    Raises:
        SettingsError: If the file is missing, is not YAML, or holds no mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"settings file {path} is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"settings file {path} must hold sections such as 'teacher' and 'task'")
    return data


def apply_overrides(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `data` with values replaced at dotted paths such as `search.candidates`."""
    merged: dict[str, Any] = {key: _copied(value) for key, value in data.items()}
    for path, value in overrides.items():
        *sections, key = path.split(".")
        place = merged
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise SettingsError(f"{path}: {section!r} is a value, not a section")
        place[key] = value
    return merged


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def parse_override(text: str) -> tuple[str, Any]:
    """Parses `search.candidates=40`; the value is read as YAML.

    Raises:
        SettingsError: If there is no `=`, or the value is not YAML.
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise SettingsError(f"--set needs path=value, such as search.candidates=40, got {text!r}")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SettingsError(f"--set {path}: {value!r} is not a YAML value: {error}") from error


def parse_duration(text: str) -> float:
    """Parses `45m`, `1h30m`, `90s` or plain seconds.

    Returns:
        Seconds, above 0.

    Raises:
        SettingsError: If the text is none of these.
    """
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    if match is None or not any(match.groups()):
        raise SettingsError(f"time must look like 45m, 1h30m or 90s, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total_s = hours * 3600 + minutes * 60 + seconds
    if total_s <= 0:
        raise SettingsError(f"time must be above 0, got {text!r}")
    return total_s


def difference(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Lists the settings in which two runs differ, one `path: old → new` each."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        here = f"{path}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += difference(before, after, f"{here}.")
        elif before != after:
            lines.append(f"{here}: {before!r} → {after!r}")
    return lines
