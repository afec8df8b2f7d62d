"""How settings refuse what they cannot be."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Of every class of settings: no key that it does not know, no number that is not finite."""


def check(*, holds: bool, rule: str, value: object) -> None:
    """Refuses a value, as pydantic expects it.

    Raises:
        ValueError: Naming the rule and the value, unless the rule holds.
    """
    if not holds:
        raise ValueError(f"{rule}, got {value!r}")
