"""From options on the command line to the settings of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.device.chips import find_chip, known_chips
from stillhouse.device.kinds import MEASURED
from stillhouse.errors import SettingsError, did_you_mean
from stillhouse.run.settings import RunSettings, settings_from_dict
from stillhouse.run.settings_file import (
    apply_overrides,
    parse_duration,
    parse_override,
    read_settings,
)

MEASURED_DEVICES = ("auto", *MEASURED)


def gather_settings(
    file: Path | None,
    options: Mapping[str, Any],
    *,
    limits: Sequence[str] = (),
    time: str | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    reads: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
) -> RunSettings:
    """Merges a settings file, options and `--set`, the later ones winning.

    Args:
        file: YAML file, or `None`.
        options: Values by settings path; `None` means not given.
        limits: Texts such as `latency_ms=5` or `latency_ms=5,params_m=10`. All of them hold
            together, but under `nas-bert`, where each is a budget of its own.
        time: Text such as `45m`.
        device: Text such as `onnxruntime-cpu`, `board.csv`, `kd-nas.json` or `tpu-v4i`.
        overrides: Texts such as `search.epochs=2`.
        reads: Sections and settings that the command reads, where that is not most of them; no
            other can be in `overrides`. A file may hold more, for it may serve several commands.
            Where that hangs on the recipe, by recipe; one that is not named reads most of them.

    Raises:
        SettingsError: Naming the path, the rule and the value of whatever is wrong.
    """
    data = {} if file is None else read_settings(file)
    values = {path: value for path, value in options.items() if value is not None}
    budgets = [read_budget(text) for text in limits]
    if budgets and _recipe(data, values, overrides) == "nas-bert":
        values["limits"] = budgets
    else:
        for budget in budgets:
            values |= {f"limit.{name}": bound for name, bound in budget.items()}
    if time is not None:
        values["search.seconds"] = parse_duration(time)
    if device is not None:
        values |= read_device(device)
    given = dict(_single(dict(parse_override(text) for text in overrides)))
    settings = settings_from_dict(apply_overrides(data, values | given))
    if isinstance(reads, Mapping):
        reads = reads.get(settings.recipe)
    if reads is not None:
        _refuse_unread(given, reads)
    return settings


def _refuse_unread(given: Iterable[str], reads: Sequence[str]) -> None:
    """Refuses settings that would do nothing."""
    for path in given:
        if not any(path == one or path.startswith(f"{one}.") for one in reads):
            raise SettingsError(
                f"--set {path}: this command does not read it; it reads {', '.join(reads)}. Leave "
                "that out"
            )


def _single(given: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Takes sections that are given whole apart: what they do not name stays as it is."""
    for name, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from _single(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _recipe(data: Mapping[str, Any], values: Mapping[str, Any], overrides: Sequence[str]) -> object:
    """Returns the recipe that is given last, in the order of `gather_settings`."""
    given = dict(parse_override(text) for text in overrides)
    return given.get("recipe", values.get("recipe", data.get("recipe")))


def read_device(text: str) -> dict[str, str | None]:
    """Reads the name of a device: one to measure on, a file of latencies, a profile, or a chip.

    Returns:
        Settings by path, which replace whatever device was set before.

    Raises:
        SettingsError: If it is none of them.
    """
    table, chip, profile = None, None, None
    if Path(text).suffix.lower() == ".csv":
        kind, table = "table", text
    elif Path(text).suffix.lower() == ".json":
        kind, profile = "predicted", text
    elif text in MEASURED_DEVICES:
        kind = text
    elif text in known_chips():
        kind, chip = "analytic", text
    else:
        known = (*MEASURED_DEVICES, *known_chips())
        raise SettingsError(
            "--device must be a .csv file of latencies, a .json file of stillhouse profile or one "
            f"of {', '.join(known)}, got {text!r}{did_you_mean(text, known)}"
        )
    # The precision is the device's own again, unless `--set` names one.
    values = {
        "device.kind": kind,
        "device.table": table,
        "device.chip": chip,
        "device.profile": profile,
        "device.precision": None,
    }
    if chip is not None and not find_chip(chip).is_processor:
        values["device.threads"] = None  # those of a file are for the device that it names
    return values


def read_budget(text: str) -> dict[str, float]:
    """Reads limits such as `latency_ms=5,params_m=10`.

    Args:
        text: The limits.

    Raises:
        SettingsError: If a part has no `=`, its value is no number, or a limit is there twice.
    """
    budget: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or name in budget:
            raise SettingsError(
                f"--limit needs different limits such as latency_ms=5 or "
                f"latency_ms=5,params_m=10, got {text!r}"
            )
        budget[name] = _number(name, value)
    return budget


def read_layer_map(text: str) -> str | list[int]:
    """Reads a layer map: the name of a rule, or genes such as `0,2,5`.

    Raises:
        SettingsError: If it begins as genes and one is no number.
    """
    genes = [part.strip() for part in text.strip("[]").split(",")]
    if not genes[0].removeprefix("-").isdecimal():
        return text
    if not all(gene.removeprefix("-").isdecimal() for gene in genes):
        raise SettingsError(
            "--layer-map needs a teacher layer for each student layer, or 0 for none, such as "
            f"0,2,5, got {text!r}"
        )
    return [int(gene) for gene in genes]


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise SettingsError(f"limit {name} must be a number, got {value!r}") from error
