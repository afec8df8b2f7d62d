"""What the dimensions of a search space mean in each family of architectures."""

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeAlias

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import Architecture, BertArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

Value: TypeAlias = int | float | str

_HEADS = ("heads", "head_size")
_DEFAULT_ACTIVATION = "gelu"


class Family(Protocol):
    """How a point of a grid becomes an architecture, and back."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all dimensions that a space of the family may have."""

    def check(self, values: Mapping[str, tuple[Value, ...]]) -> None:
        """Refuse dimensions that do not describe an architecture fully and in one way only.

        Args:
            values: Values by dimension.

        Raises:
            SpaceError: A dimension is missing, excludes another, or its values clash.
        """

    def build(self, chosen: Mapping[str, Value]) -> Architecture | None:
        """Build an architecture of one value per dimension, or return None where there is none."""

    def has(self, architecture: Architecture, names: frozenset[str]) -> bool:
        """Tell whether what no dimension says is as it would be built."""

    def place(self, architecture: Architecture, name: str, values: tuple[Value, ...]) -> int | None:
        """Return the place of an architecture's value among those of a dimension, if it is there.

        Args:
            architecture: One that `has` lets pass.
            name: The dimension.
            values: Its values.
        """


class BertFamily:
    """Plain encoders of equal layers; ffn_ratio is the feed-forward size over the hidden size."""

    names = ("layers", "hidden_size", *_HEADS, "ffn_size", "ffn_ratio", "activation")
    _exactly_one_of: ClassVar = (("layers",), ("hidden_size",), ("ffn_size", "ffn_ratio"))

    def check(self, values: Mapping[str, tuple[Value, ...]]) -> None:  # noqa: D102
        foreign = [name for name in values if name not in self.names]
        if foreign:
            raise SpaceError(
                f"{', '.join(foreign)}: only a space with the dimension bottleneck_size, of "
                "MobileBERTs, has that; leave it out or add bottleneck_size"
            )
        for group in self._exactly_one_of:
            present = [name for name in group if name in values]
            if len(present) != 1:
                raise SpaceError(
                    f"a search space needs exactly one of the dimensions {', '.join(group)}, "
                    f"got {', '.join(present) or 'none'}"
                )
        if not any(name in values for name in _HEADS):
            raise SpaceError(f"a search space needs the dimension {' or '.join(_HEADS)}, or both")
        if "ffn_ratio" in values:
            _check_ratios(values["hidden_size"], values["ffn_ratio"])

    def build(self, chosen: Mapping[str, Value]) -> Architecture | None:  # noqa: D102
        hidden_size = int(chosen["hidden_size"])
        heads = _head_count(hidden_size, chosen)
        if heads is None:
            return None
        return BertArchitecture(
            layers=int(chosen["layers"]),
            hidden_size=hidden_size,
            heads=heads,
            head_size=int(chosen["head_size"]) if "head_size" in chosen else None,
            ffn_size=int(chosen["ffn_size"])
            if "ffn_size" in chosen
            else _ffn_size(hidden_size, chosen["ffn_ratio"]),
            activation=str(chosen.get("activation", _DEFAULT_ACTIVATION)),
        )

    def has(self, architecture: Architecture, names: frozenset[str]) -> bool:  # noqa: D102
        if not isinstance(architecture, BertArchitecture):
            return False
        if "activation" not in names and architecture.activation != _DEFAULT_ACTIVATION:
            return False
        return not architecture.has_free_heads or names.issuperset(_HEADS)

    def place(  # noqa: D102
        self, architecture: Architecture, name: str, values: tuple[Value, ...]
    ) -> int | None:
        if name != "ffn_ratio":
            return _place(getattr(architecture, name), values)
        sizes = tuple(_ffn_size(architecture.hidden_size, ratio) for ratio in values)
        return _place(architecture.ffn_size, sizes)


class MobileBertFamily:
    """MobileBERTs; embeddings are 128 wide unless a dimension says otherwise."""

    _needed: ClassVar = (
        "layers",
        "hidden_size",
        "bottleneck_size",
        "heads",
        "ffn_size",
        "ffn_count",
    )
    names = (*_needed, "embedding_size")
    _embedding_size: ClassVar = 128

    def check(self, values: Mapping[str, tuple[Value, ...]]) -> None:  # noqa: D102
        missing = [name for name in self._needed if name not in values]
        foreign = [name for name in values if name not in self.names]
        if missing or foreign:
            raise SpaceError(
                f"a search space of MobileBERTs has the dimensions {', '.join(self._needed)} and "
                f"perhaps embedding_size; missing: {', '.join(missing) or 'none'}, unknown: "
                f"{', '.join(foreign) or 'none'}"
            )

    def build(self, chosen: Mapping[str, Value]) -> Architecture | None:  # noqa: D102
        sizes = {"embedding_size": self._embedding_size}
        sizes.update({name: int(value) for name, value in chosen.items()})
        if sizes["bottleneck_size"] % sizes["heads"]:
            return None
        if sizes["embedding_size"] > sizes["hidden_size"]:
            return None
        return MobileBertArchitecture(**sizes, bottleneck_attention=False)

    def has(self, architecture: Architecture, names: frozenset[str]) -> bool:  # noqa: D102
        if not isinstance(architecture, MobileBertArchitecture):
            return False
        is_usual = architecture.embedding_size == self._embedding_size
        return not architecture.bottleneck_attention and ("embedding_size" in names or is_usual)

    def place(  # noqa: D102
        self, architecture: Architecture, name: str, values: tuple[Value, ...]
    ) -> int | None:
        return _place(getattr(architecture, name), values)


BERT_FAMILY = BertFamily()
MOBILEBERT_FAMILY = MobileBertFamily()
DIMENSION_NAMES = tuple(dict.fromkeys((*BERT_FAMILY.names, *MOBILEBERT_FAMILY.names)))


def family_of(names: frozenset[str]) -> Family:
    """Tell the family that a space of these dimensions is of: a bottleneck makes MobileBERTs."""
    return MOBILEBERT_FAMILY if "bottleneck_size" in names else BERT_FAMILY


def _place(wanted: Value, values: tuple[Value, ...]) -> int | None:
    return values.index(wanted) if wanted in values else None


def _check_ratios(widths: tuple[Value, ...], ratios: tuple[Value, ...]) -> None:
    for width in widths:
        sizes = {_ffn_size(int(width), ratio) for ratio in ratios}
        if len(sizes) < len(ratios) or 0 in sizes:
            raise SpaceError(
                f"the values of ffn_ratio {ratios} must give different feed-forward sizes of "
                f"at least 1 for every width, and do not for {width}; spread them"
            )


def _head_count(hidden_size: int, chosen: Mapping[str, Value]) -> int | None:
    """Return the number of heads, or None where heads that share the width do not divide it."""
    if all(name in chosen for name in _HEADS):
        return int(chosen["heads"])
    # A number of heads and a head size are each other's cofactor of the width.
    divisor = int(chosen["heads" if "heads" in chosen else "head_size"])
    if hidden_size % divisor:
        return None
    return divisor if "heads" in chosen else hidden_size // divisor


def _ffn_size(hidden_size: int, ratio: Value) -> int:
    return round(hidden_size * float(ratio))
