"""The errors that stillhouse raises on bad input; each names the rule, the value and what to do."""


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


class TrainingError(StillhouseError):
    """Training went wrong in a way that the next candidate need not share."""


class RunError(StillhouseError):
    """A run directory is in use, damaged, or was made with other settings."""


class ExportError(StillhouseError):
    """A checkpoint could not be written or does not agree with its source."""
