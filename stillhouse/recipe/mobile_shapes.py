"""MobileBERTs by name, or by shape, to be set beside what a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stillhouse.errors import SettingsError, SpaceError, did_you_mean
from stillhouse.recipe.single import is_shape
from stillhouse.space.mobilebert import mobilebert_from_dict
from stillhouse.space.published import autodistill_references

if TYPE_CHECKING:
    from stillhouse.space.architecture import Architecture
    from stillhouse.space.mobilebert import MobileBertArchitecture


def mobilebert_named(text: str, teacher: Architecture) -> MobileBertArchitecture:
    """Returns a hand-crafted MobileBERT in the proportions of a teacher, or one of a given shape.

    Args:
        text: `MobileBERT`, `MobileBERT-tiny`, or `name=value` pairs with commas between, such as
            `hidden_size=256,ffn_count=2`; what they do not say is as in the scaled MobileBERT.
        teacher: The teacher's architecture.

    Raises:
        SettingsError: If it is neither.
        SpaceError: If a pair is malformed, given twice, unknown, or breaks a rule.
    """
    known = autodistill_references(teacher)
    if text in known:
        return known[text]
    if is_shape(text):
        return _shape(text, like=known["MobileBERT"])
    raise SettingsError(_unknown(text, known))


def _unknown(text: str, known: Mapping[str, object]) -> str:
    """Says what can be compared; names the nearest, however it is spelt."""
    return (
        f"compare: autodistill knows {' and '.join(known)}, or a shape such as "
        f"hidden_size=256,ffn_count=2, got {text!r}{did_you_mean(text, known)}"
    )


def _shape(text: str, *, like: MobileBertArchitecture) -> MobileBertArchitecture:
    given: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or name in given:
            raise SpaceError(
                f"a shape is written as name=value pairs with commas between, each name once, got "
                f"{pair.strip()!r} in {text!r}"
            )
        given[name] = value
    typed = {name: int(value) if value.isdecimal() else value for name, value in given.items()}
    return mobilebert_from_dict({**like.to_dict(), **typed})
