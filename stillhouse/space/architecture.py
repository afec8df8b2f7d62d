"""Frozen, validated descriptions of one network, and how to read them from data or text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from stillhouse.errors import SpaceError, did_you_mean
from stillhouse.space.checks import check_size
from stillhouse.space.mobilebert import MobileBertArchitecture, mobilebert_from_dict

ACTIVATIONS = ("gelu", "relu", "silu")

_SIZES = ("layers", "hidden_size", "heads", "ffn_size")
_HEAD_SIZE = "head_size"
_ALL_SIZES = (*_SIZES, _HEAD_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class BertArchitecture:
    """A plain encoder after BERT: the same layer `layers` times, every head `head_size` wide.

    It describes RoBERTa, DistilBERT and ELECTRA as well: their layers have the same parts.

    The heads together are as wide as the residual stream, unless a head size is given that says
    otherwise: such heads are *free*. `dataclasses.replace` keeps the head size of free heads alone.

    Attributes:
        layers: Number of transformer layers.
        hidden_size: Width of the residual stream; a multiple of `heads` unless the heads are free.
        heads: Attention heads per layer.
        ffn_size: Width inside the feed-forward block.
        activation: Non-linearity of the feed-forward block, one of `ACTIVATIONS`.
        free_head_size: Width of one head where heads are free, else None; read `head_size`.
    """

    layers: int
    hidden_size: int
    heads: int
    ffn_size: int
    activation: str = "gelu"
    free_head_size: int | None = None
    family: ClassVar[Literal["bert"]] = "bert"

    def __init__(
        self,
        *,
        layers: int,
        hidden_size: int,
        heads: int,
        ffn_size: int,
        activation: str = "gelu",
        head_size: int | None = None,
        free_head_size: int | None = None,
    ) -> None:
        """Check every rule once, so that no reader has to.

        Args:
            layers: Number of transformer layers.
            hidden_size: Width of the residual stream.
            heads: Attention heads per layer.
            ffn_size: Width inside the feed-forward block.
            activation: Non-linearity of the feed-forward block, one of `ACTIVATIONS`.
            head_size: Width of one head; None shares `hidden_size` out among the heads.
            free_head_size: What `dataclasses.replace` hands on; stands for a missing `head_size`.

        Raises:
            SpaceError: A size is not a positive whole number, no head size is given and the heads
                do not divide the width, or the activation is unknown.
        """
        sizes = (layers, hidden_size, heads, ffn_size)
        for name, size in zip(_SIZES, sizes, strict=True):
            object.__setattr__(self, name, check_size(name, size))
        if activation not in ACTIVATIONS:
            raise SpaceError(
                f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        object.__setattr__(self, "activation", activation)
        given = free_head_size if head_size is None else head_size
        # Equal architectures must compare equal, however their head size was given.
        object.__setattr__(self, "free_head_size", _free_head_size(hidden_size, heads, given))

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.free_head_size or self.hidden_size // self.heads

    @property
    def attention_width(self) -> int:
        """Width of all heads of a layer together: that of its queries, keys and values."""
        return self.heads * self.head_size

    @property
    def has_free_heads(self) -> bool:
        """Whether the heads together are narrower or wider than the residual stream."""
        return self.attention_width != self.hidden_size

    @property
    def intermediate_size(self) -> int:
        """Width inside the feed-forward block, under the name that transformers gives it."""
        return self.ffn_size

    @property
    def key(self) -> str:
        """Short name that two architectures share only if they are equal; fit for a file name."""
        head_size = f"-k{self.head_size}" if self.has_free_heads else ""
        return (
            f"{self.family}-{self.layers}x{self.hidden_size}-a{self.heads}{head_size}"
            f"-f{self.ffn_size}-{self.activation}"
        )

    @property
    def label(self) -> str:
        """Readable name for tables and plots."""
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        head_size = f" of {self.head_size}" if self.has_free_heads else ""
        return (
            f"{self.layers} × {self.hidden_size}, {heads}{head_size}, FFN {self.ffn_size}, "
            f"{self.activation}"
        )

    def to_dict(self) -> dict[str, int | str]:
        """Return plain data that `architecture_from_dict` reads; head_size only if it is free."""
        head_size = {"head_size": self.head_size} if self.has_free_heads else {}
        return {
            "family": self.family,
            "layers": self.layers,
            "hidden_size": self.hidden_size,
            "heads": self.heads,
            **head_size,
            "ffn_size": self.ffn_size,
            "activation": self.activation,
        }


Architecture: TypeAlias = BertArchitecture | MobileBertArchitecture


def architecture_from_dict(data: Mapping[str, object]) -> Architecture:
    """Build the architecture that `to_dict` described.

    Args:
        data: Exactly the keys of `to_dict` of its family; head_size of a BERT may be left out where
            heads are not free.

    Returns:
        The validated architecture.

    Raises:
        SpaceError: A key is missing or unknown, the family is unknown, or a value breaks a rule.
    """
    if data.get("family") == MobileBertArchitecture.family:
        return mobilebert_from_dict(data)
    families = [one.family for one in (BertArchitecture, MobileBertArchitecture)]
    if data.get("family", BertArchitecture.family) not in families:
        raise SpaceError(f"family must be one of {', '.join(families)}, got {data['family']!r}")
    expected = ("family", *_SIZES, "activation")
    missing = [name for name in expected if name not in data]
    unknown = [name for name in data if name not in (*expected, _HEAD_SIZE)]
    if missing or unknown:
        raise SpaceError(
            f"an architecture has the keys {', '.join(expected)} (and {_HEAD_SIZE} where the heads "
            f"together are not as wide as the layers); "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    return BertArchitecture(
        layers=check_size("layers", data["layers"]),
        hidden_size=check_size("hidden_size", data["hidden_size"]),
        heads=check_size("heads", data["heads"]),
        head_size=check_size(_HEAD_SIZE, data[_HEAD_SIZE]) if _HEAD_SIZE in data else None,
        ffn_size=check_size("ffn_size", data["ffn_size"]),
        activation=str(data["activation"]),
    )


def parse_architecture(text: str, *, like: BertArchitecture) -> BertArchitecture:
    """Read `"layers=3,hidden_size=384"`; what is not given follows `like`.

    Heads that are not given keep the head size of `like`, or the largest smaller one that divides
    the width; a head size that is given shares the width out among as many heads as it takes. With
    free heads in `like`, its number of heads and its head size each stay until they are given. A
    feed-forward size that is not given keeps the ratio to the width.

    Args:
        text: `name=value` pairs with commas between; names are layers, hidden_size, heads,
            head_size, ffn_size, activation and family.
        like: The architecture that fills the gaps, as a rule the teacher's.

    Returns:
        The validated architecture.

    Raises:
        SpaceError: A pair is malformed, given twice, unknown, or breaks a rule.
    """
    given = _read_pairs(text)
    _check_family(given.get("family", like.family))
    sizes = {name: _read_size(name, given[name]) for name in _ALL_SIZES if name in given}
    hidden_size = sizes.get("hidden_size", like.hidden_size)
    return BertArchitecture(
        layers=sizes.get("layers", like.layers),
        hidden_size=hidden_size,
        heads=sizes.get("heads") or _default_heads(hidden_size, sizes.get(_HEAD_SIZE), like),
        head_size=sizes.get(_HEAD_SIZE, like.free_head_size),
        ffn_size=sizes.get("ffn_size") or round(hidden_size * like.ffn_size / like.hidden_size),
        activation=given.get("activation", like.activation),
    )


def _free_head_size(hidden_size: int, heads: int, head_size: int | None) -> int | None:
    """Return the head size if it is free, and None if it is that of `hidden_size` shared out."""
    if head_size is None:
        if hidden_size % heads:
            raise SpaceError(
                f"hidden_size must be a multiple of heads, got {hidden_size} and {heads}; choose "
                f"a number of heads that divides {hidden_size}, or give head_size"
            )
        return None
    return None if heads * check_size(_HEAD_SIZE, head_size) == hidden_size else head_size


def _check_family(family: object) -> None:
    if family != BertArchitecture.family:
        raise SpaceError(f"family must be {BertArchitecture.family!r}, got {family!r}")


def _read_pairs(text: str) -> dict[str, str]:
    names = (*_ALL_SIZES, "activation", "family")
    given: dict[str, str] = {}
    for pair in text.split(","):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals or not value or name not in names:
            hint = "" if name in names else did_you_mean(name, names)
            raise SpaceError(
                f"an architecture is written as name=value pairs with commas between, "
                f"names {', '.join(names)}; got {pair.strip()!r}{hint}"
            )
        if name in given:
            raise SpaceError(f"{name} is given twice in {text!r}; keep one")
        given[name] = value
    return given


def _read_size(name: str, text: str) -> int:
    try:
        return check_size(name, int(text))
    except ValueError:
        raise SpaceError(f"{name} must be a whole number, got {text!r}") from None


def _default_heads(hidden_size: int, head_size: int | None, like: BertArchitecture) -> int:
    if like.has_free_heads:
        return like.heads
    if head_size is None:
        sizes = range(like.head_size, 0, -1)
        return hidden_size // next(size for size in sizes if hidden_size % size == 0)
    if hidden_size % head_size:
        raise SpaceError(
            f"hidden_size must be a multiple of head_size where heads is not given, got "
            f"{hidden_size} and {head_size}; give heads as well"
        )
    return hidden_size // head_size
