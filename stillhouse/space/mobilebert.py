"""MobileBERTs: deep encoders whose every layer works inside a bottleneck.

Source: Sun et al., "MobileBERT", ACL 2020, arXiv 2004.02984, and its published code. Letters in
formulas: h hidden size, b bottleneck size, f feed-forward size, E embedding size.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from stillhouse.errors import SpaceError
from stillhouse.space.checks import check_size

_SIZES = (
    "layers",
    "hidden_size",
    "bottleneck_size",
    "heads",
    "ffn_size",
    "ffn_count",
    "embedding_size",
)
_ATTENTION = "attention"
_ATTENTION_FROM = {False: "shared", True: "bottleneck"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileBertArchitecture:
    """A MobileBERT: narrow layers between a wide residual stream.

    Embeddings of three tokens side by side are projected to the residual stream. Each layer
    projects it down, attends, passes `ffn_count` feed-forward networks, and projects up again.
    Activations are ReLU, norms are affine maps without statistics.

    Attributes:
        layers: Number of layers.
        hidden_size: Width of the residual stream between layers.
        bottleneck_size: Width inside a layer; a multiple of `heads`.
        heads: Attention heads per layer.
        ffn_size: Width inside each feed-forward network.
        ffn_count: Feed-forward networks, one after the other, in each layer.
        embedding_size: Width of the token embeddings, at most `hidden_size`.
        bottleneck_attention: Whether queries, keys and values all come from the layer's bottleneck,
            as in MobileBERT-tiny. Else queries and keys share a bottleneck of their own and values
            come from the residual stream.
    """

    layers: int
    hidden_size: int
    bottleneck_size: int
    heads: int
    ffn_size: int
    ffn_count: int
    embedding_size: int = 128
    bottleneck_attention: bool = False
    family: ClassVar[Literal["mobilebert"]] = "mobilebert"
    activation: ClassVar[str] = "relu"
    has_free_heads: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every rule once, so that no reader has to.

        Raises:
            SpaceError: A size is not a positive whole number, the heads do not divide the
                bottleneck, or the embeddings are wider than the residual stream.
        """
        for name in _SIZES:
            check_size(name, getattr(self, name))
        if self.bottleneck_size % self.heads:
            raise SpaceError(
                f"bottleneck_size must be a multiple of heads, got {self.bottleneck_size} and "
                f"{self.heads}; choose a number of heads that divides {self.bottleneck_size}"
            )
        if self.embedding_size > self.hidden_size:
            raise SpaceError(
                f"embedding_size must be at most hidden_size, got {self.embedding_size} and "
                f"{self.hidden_size}"
            )

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.bottleneck_size // self.heads

    @property
    def attention_width(self) -> int:
        """Width of all heads of a layer together: that of its queries, keys and values."""
        return self.bottleneck_size

    @property
    def key(self) -> str:
        """Short name that two architectures share only if they are equal; fit for a file name."""
        attention = "-t" if self.bottleneck_attention else ""
        return (
            f"{self.family}-{self.layers}x{self.hidden_size}-b{self.bottleneck_size}-a{self.heads}"
            f"-f{self.ffn_count}x{self.ffn_size}-e{self.embedding_size}{attention}"
        )

    @property
    def label(self) -> str:
        """Readable name for tables and plots."""
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        attention = ", attention in the bottleneck" if self.bottleneck_attention else ""
        return (
            f"{self.layers} × {self.hidden_size}, bottleneck {self.bottleneck_size}, {heads}, "
            f"{self.ffn_count} FFN of {self.ffn_size}, embeddings {self.embedding_size}{attention}"
        )

    def to_dict(self) -> dict[str, int | str]:
        """Return plain data that `mobilebert_from_dict` reads."""
        sizes = {name: getattr(self, name) for name in _SIZES}
        attention = _ATTENTION_FROM[self.bottleneck_attention]
        return {"family": self.family, **sizes, _ATTENTION: attention}


def mobilebert_from_dict(data: Mapping[str, object]) -> MobileBertArchitecture:
    """Build the architecture that `to_dict` described.

    Args:
        data: Exactly the keys of `to_dict`.

    Raises:
        SpaceError: A key is missing or unknown, the family is another, or a value breaks a rule.
    """
    expected = ("family", *_SIZES, _ATTENTION)
    missing = [name for name in expected if name not in data]
    unknown = [name for name in data if name not in expected]
    if missing or unknown:
        raise SpaceError(
            f"a MobileBERT has the keys {', '.join(expected)}; missing: "
            f"{', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    if data["family"] != MobileBertArchitecture.family:
        raise SpaceError(
            f"family must be {MobileBertArchitecture.family!r}, got {data['family']!r}"
        )
    names = {name: is_inside for is_inside, name in _ATTENTION_FROM.items()}
    attention = data[_ATTENTION]
    if attention not in names:
        raise SpaceError(f"attention must be one of {', '.join(names)}, got {attention!r}")
    sizes = {name: check_size(name, data[name]) for name in _SIZES}
    return MobileBertArchitecture(**sizes, bottleneck_attention=names[str(attention)])


def mobilebert() -> MobileBertArchitecture:
    """Return the hand-crafted MobileBERT, of 24.6 M parameters without a pooler."""
    return MobileBertArchitecture(
        layers=24, hidden_size=512, bottleneck_size=128, heads=4, ffn_size=512, ffn_count=4
    )


def mobilebert_tiny() -> MobileBertArchitecture:
    """Return the hand-crafted MobileBERT-tiny, of 15.5 M parameters without a pooler."""
    return MobileBertArchitecture(
        layers=24,
        hidden_size=512,
        bottleneck_size=128,
        heads=4,
        ffn_size=512,
        ffn_count=2,
        bottleneck_attention=True,
    )
