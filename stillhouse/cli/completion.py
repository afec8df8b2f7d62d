"""What a shell offers for a value, on Tab.

A completion runs at every press of the key, so nothing here loads torch or reads the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from stillhouse.device.data_sheets import data_sheets
from stillhouse.device.kinds import MEASURED

Offered = list[str | tuple[str, str]]
"""Values, or values and what each means."""

_SETTINGS_SUFFIXES = (".yaml", ".yml")


def recipes(incomplete: str) -> Offered:
    """Offers recipes of `search`, and settings files."""
    from stillhouse.run.recipes import SEARCHING  # noqa: PLC0415  only on Tab

    named = [name for name in SEARCHING if name.startswith(incomplete)]
    return [*named, *_files(incomplete, _SETTINGS_SUFFIXES)]


def devices(incomplete: str) -> Offered:
    """Offers devices to measure on, chips, and files of latencies."""
    measured = [("auto", "PyTorch, on CUDA where present"), *_measured()]
    chips = [(name, "computed from its data sheet") for name in data_sheets()]
    named = [pair for pair in (*measured, *chips) if pair[0].startswith(incomplete)]
    return [*named, *_files(incomplete, (".csv", ".json"))]


def measured_devices(incomplete: str) -> Offered:
    """Offers devices to measure on, the last of a list with commas."""
    names = ["auto", *MEASURED]
    return _last_of_list(incomplete, names)


def precisions(incomplete: str) -> Offered:
    """Offers precisions, the last of a list with commas."""
    known = dict.fromkeys(name for kind in MEASURED.values() for name in kind.precisions)
    return _last_of_list(incomplete, known)


def tasks(incomplete: str) -> Offered:
    """Offers tasks by name, and files."""
    from stillhouse.cli.setting_names import names_in  # noqa: PLC0415  only on Tab

    glue = [f"glue/{name}" for name in names_in("stillhouse.data.glue", "GLUE_TASKS")]
    squad = names_in("stillhouse.data.squad", "SQUAD_TASKS")
    named = [name for name in ("embedded", *glue, *squad) if name.startswith(incomplete)]
    return [*named, *paths(incomplete)]


def metrics(incomplete: str) -> Offered:
    """Offers metrics."""
    from stillhouse.data.metric_names import METRICS  # noqa: PLC0415  only on Tab

    return [name for name in METRICS if name.startswith(incomplete)]


def spaces(incomplete: str) -> Offered:
    """Offers spaces to profile."""
    from stillhouse.cli.setting_names import words_in  # noqa: PLC0415  only on Tab

    return one_of(*words_in("stillhouse.recipe.profile_job", "SpaceName"))(incomplete)


def objectives(incomplete: str) -> Offered:
    """Offers objectives, the last of a list with commas."""
    from stillhouse.cli.setting_names import choices  # noqa: PLC0415  only on Tab

    return _last_of_list(incomplete, choices("search.objectives"))


def limits(incomplete: str) -> Offered:
    """Offers limits, the last of a list with commas."""
    from stillhouse.cli.setting_names import keys  # noqa: PLC0415  only on Tab

    named = [key.path.removeprefix("limit.") for key in keys() if key.path.startswith("limit.")]
    return _last_of_list(incomplete, [f"{name}=" for name in named])


def settings(incomplete: str) -> Offered:
    """Offers settings by path, and after the = what the setting may be."""
    from stillhouse.cli.setting_names import choices, keys  # noqa: PLC0415  only on Tab

    path, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{path}={value}" for value in choices(path)]
    return [(f"{key.path}=", key.told) for key in keys() if key.path.startswith(incomplete)]


def values_of(path: str) -> Callable[[str], Offered]:
    """Returns a completion of what a setting may be."""

    def offered(incomplete: str) -> Offered:
        from stillhouse.cli.setting_names import choices  # noqa: PLC0415  only on Tab

        return [value for value in choices(path) if value.startswith(incomplete)]

    return offered


def one_of(*names: str) -> Callable[[str], Offered]:
    """Returns a completion of fixed words."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


def teachers(incomplete: str) -> Offered:
    """Offers 'scratch', and checkpoint folders."""
    return [*one_of("scratch")(incomplete), *checkpoints(incomplete)]


def checkpoints(incomplete: str) -> Offered:
    """Offers folders, with what those are that hold a checkpoint."""
    told = (
        (one, "checkpoint" if (one / "config.json").exists() else "") for one in _in(incomplete)
    )
    return [(_typed(folder), what) for folder, what in told if folder.is_dir()]


def runs(incomplete: str) -> Offered:
    """Offers folders, with what those are that hold a run."""
    return [
        (_typed(folder), "run" if (folder / "run.json").exists() else "")
        for folder in _in(incomplete)
        if folder.is_dir()
    ]


def folders(incomplete: str) -> Offered:
    """Offers folders."""
    return [_typed(folder) for folder in _in(incomplete) if folder.is_dir()]


def paths(incomplete: str) -> Offered:
    """Offers files and folders."""
    return [_typed(path) for path in _in(incomplete)]


def _measured() -> Iterator[tuple[str, str]]:
    for name, kind in MEASURED.items():
        yield name, f"{kind.engine} on {'CUDA' if kind.is_cuda else 'the processor'}"


def _last_of_list(incomplete: str, names: Iterable[str]) -> Offered:
    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    return [
        f"{before}{comma}{name}"
        for name in names
        if name.startswith(last) and name.rstrip("=") not in [one.split("=")[0] for one in taken]
    ]


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Offered:
    found = (path for path in _in(incomplete) if path.is_dir() or path.suffix.lower() in suffixes)
    return [_typed(path) for path in found]


def _in(incomplete: str) -> Iterator[Path]:
    """Gives what is in a folder and begins alike; hidden files where a point is typed."""
    folder, _, start = incomplete.rpartition("/")
    root = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return
    for name in names:
        if name.startswith(start) and (start.startswith(".") or not name.startswith(".")):
            yield Path(f"{folder}/{name}" if "/" in incomplete else name)


def _typed(path: Path) -> str:
    return f"{path}/" if path.is_dir() else str(path)
