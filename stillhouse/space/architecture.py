"""Frozen, validated descriptions of one network, and how to read them from data or text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from stillhouse.errors import SpaceError

ACTIVATIONS = ("gelu", "relu", "silu")

_SIZES = ("layers", "hidden_size", "heads", "ffn_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class BertArchitecture:
    """A plain encoder after BERT: the same layer `layers` times, every head `head_size` wide.

    It describes RoBERTa, DistilBERT and ELECTRA as well: their layers have the same parts.

    Args:
        layers: Number of transformer layers.
        hidden_size: Width of the residual stream; a multiple of `heads`.
        heads: Attention heads per layer.
        ffn_size: Width inside the feed-forward block.
        activation: Non-linearity of the feed-forward block, one of `ACTIVATIONS`.

    Raises:
        SpaceError: A size is not a positive whole number, the heads do not divide the width, or
            the activation is unknown.
    """

    layers: int
    hidden_size: int
    heads: int
    ffn_size: int
    activation: str = "gelu"
    family: ClassVar[Literal["bert"]] = "bert"

    def __post_init__(self) -> None:
        """Check every rule once, so that no reader has to."""
        for name in _SIZES:
            _check_size(name, getattr(self, name))
        if self.hidden_size % self.heads:
            raise SpaceError(
                f"hidden_size must be a multiple of heads, got {self.hidden_size} and "
                f"{self.heads}; choose a number of heads that divides {self.hidden_size}"
            )
        if self.activation not in ACTIVATIONS:
            raise SpaceError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.heads

    @property
    def key(self) -> str:
        """Short name that two architectures share only if they are equal; fit for a file name."""
        return (
            f"{self.family}-{self.layers}x{self.hidden_size}-a{self.heads}"
            f"-f{self.ffn_size}-{self.activation}"
        )

    @property
    def label(self) -> str:
        """Readable name for tables and plots."""
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        return (
            f"{self.layers} × {self.hidden_size}, {heads}, FFN {self.ffn_size}, {self.activation}"
        )

    def to_dict(self) -> dict[str, int | str]:
        """Return plain data that `architecture_from_dict` reads back."""
        return {
            "family": self.family,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            "ffn_size": self.ffn_size,
            "activation": self.activation,
        }


Architecture: TypeAlias = BertArchitecture


def architecture_from_dict(data: Mapping[str, object]) -> Architecture:
    """Build the architecture that `to_dict` described.

    Args:
        data: Exactly the keys of `to_dict`.

    Returns:
        The validated architecture.

    Raises:
        SpaceError: A key is missing or unknown, the family is unknown, or a value breaks a rule.
    """
    expected = ("family", *_SIZES, "activation")
    missing = [name for name in expected if name not in data]
    unknown = [name for name in data if name not in expected]
    if missing or unknown:
        raise SpaceError(
            f"an architecture has the keys {', '.join(expected)}; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    _check_family(data["family"])
    return BertArchitecture(
        layers=_check_size("layers", data["layers"]),
        hidden_size=_check_size("hidden_size", data["hidden_size"]),
        heads=_check_size("heads", data["heads"]),
        ffn_size=_check_size("ffn_size", data["ffn_size"]),
        activation=str(data["activation"]),
    )


def parse_architecture(text: str, *, like: Architecture) -> Architecture:
    """Read `"layers=3,hidden_size=384"`; what is not given follows `like`.

    Heads that are not given keep the head size of `like`, or the largest smaller one that divides
    the width; a feed-forward size that is not given keeps the ratio to the width.

    Args:
        text: `name=value` pairs with commas between; names are layers, hidden_size, heads,
            ffn_size, activation and family.
        like: The architecture that fills the gaps, as a rule the teacher's.

    Returns:
        The validated architecture.

    Raises:
        SpaceError: A pair is malformed, given twice, unknown, or breaks a rule.
    """
    given = _read_pairs(text)
    _check_family(given.get("family", like.family))
    sizes = {name: _read_size(name, given[name]) for name in _SIZES if name in given}
    hidden_size = sizes.get("hidden_size", like.hidden_size)
    return BertArchitecture(
        layers=sizes.get("layers", like.layers),
        hidden_size=hidden_size,
        heads=sizes.get("heads") or _default_heads(hidden_size, like.head_size),
        ffn_size=sizes.get("ffn_size") or round(hidden_size * like.ffn_size / like.hidden_size),
        activation=given.get("activation", like.activation),
    )


def _check_size(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpaceError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value


def _check_family(family: object) -> None:
    if family != BertArchitecture.family:
        raise SpaceError(f"family must be {BertArchitecture.family!r}, got {family!r}")


def _read_pairs(text: str) -> dict[str, str]:
    names = (*_SIZES, "activation", "family")
    given: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or name not in names:
            raise SpaceError(
                f"an architecture is written as name=value pairs with commas between, "
                f"names {', '.join(names)}; got {pair.strip()!r}"
            )
        if name in given:
            raise SpaceError(f"{name} is given twice in {text!r}; keep one")
        given[name] = value
    return given


def _read_size(name: str, text: str) -> int:
    try:
        return _check_size(name, int(text))
    except ValueError:
        raise SpaceError(f"{name} must be a whole number, got {text!r}") from None


def _default_heads(hidden_size: int, head_size: int) -> int:
    widest = next(size for size in range(head_size, 0, -1) if hidden_size % size == 0)
    return hidden_size // widest
