"""From options on the command line to the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.errors import SettingsError
from stillhouse.run.settings import (
    RunSettings,
    apply_overrides,
    parse_duration,
    parse_override,
    read_settings,
    settings_from_dict,
)


def gather_settings(
    file: Path | None,
    options: Mapping[str, Any],
    *,
    limits: Sequence[str] = (),
    time: str | None = None,
    overrides: Sequence[str] = (),
) -> RunSettings:
    """Merges a settings file, options and `--set`, the later ones winning.

    Args:
        file: YAML file, or `None`.
        options: Values by settings path; `None` means not given.
        limits: Texts such as `latency_ms=5`.
        time: Text such as `45m`.
        overrides: Texts such as `search.epochs=2`.

    Raises:
        SettingsError: Naming the path, the rule and the value of whatever is wrong.
    """
    data = {} if file is None else read_settings(file)
    values = {path: value for path, value in options.items() if value is not None}
    for text in limits:
        name, bound = parse_override(text)
        values[f"limit.{name}"] = _number(name, bound)
    if time is not None:
        values["search.seconds"] = parse_duration(time)
    values.update(parse_override(text) for text in overrides)
    return settings_from_dict(apply_overrides(data, values))


def _number(name: str, value: object) -> float:
    try:
        return float(str(value))
    except ValueError as error:
        raise SettingsError(f"limit {name} must be a number, got {value!r}") from error
