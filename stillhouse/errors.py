"""The errors that stillhouse raises on bad input; each names the rule, the value and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches


class StillhouseError(Exception):
    """Base of every error that a user can cause and mend."""


class SettingsError(StillhouseError):
    """A setting is unknown, impossible, or contradicts another."""


class SpaceError(StillhouseError):
    """An architecture or a search space breaks its rules."""


class DataError(StillhouseError):
    """A file, a column or a label is missing or unusable."""


class TeacherError(StillhouseError):
    """The teacher cannot be loaded, matched to the task, or trusted."""


class DeviceError(StillhouseError):
    """A latency cannot be told, or no architecture meets the limit."""


class LimitError(DeviceError):
    """Nothing within the limits can be had."""


class TrainingError(StillhouseError):
    """Training went wrong in a way that the next candidate need not share."""


class RunError(StillhouseError):
    """A run directory is in use, damaged, or was made with other settings."""


class ExportError(StillhouseError):
    """A checkpoint could not be written or does not agree with its source."""


def did_you_mean(
    name: str, known: Iterable[str], *, show: Callable[[str], str] = lambda name: name
) -> str:
    """Ends a message with the nearest known name, if one is near.

    Args:
        name: As it was given.
        known: Those that there are.
        show: Writes a known name as a user gives it.
    """
    spelt = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), list(spelt), n=1)
    return f": did you mean {show(spelt[close[0]])!r}?" if close else ""
