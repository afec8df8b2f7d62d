"""Rules on single values that the architectures of all families share."""

from stillhouse.errors import SpaceError


def check_size(name: str, value: object) -> int:
    """Return a size, which is a whole number of at least 1.

    Args:
        name: What it is the size of, for the message.
        value: What was given.

    Raises:
        SpaceError: It is something else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpaceError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value
