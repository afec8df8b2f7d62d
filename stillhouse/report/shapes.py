"""Architectures as a picture needs them: layers from input to output, and what each consists of.

They are read from what files say, without the rules of a space: a family of later versions whose
sizes differ by layer is drawn as well, if it keeps the names of the sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from stillhouse.report.fields import Fields, finite, mappings, sequence
from stillhouse.space.chain import KERNELS, ChainArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

MOST_LAYERS = 200
"""A file that tells of more is damaged, or of no use as a picture."""
Kind = Literal["attention", "feed-forward", "convolution"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """An operation of a layer; `count` is its heads, or the tokens that a convolution spans."""

    kind: Kind
    width: int
    count: int = 0

    @property
    def told(self) -> str:
        """The part in words, as in `feed-forward 1,536`."""
        if self.kind == "attention":
            heads = "1 head" if self.count == 1 else f"{self.count} heads"
            return f"attention {self.width:,} wide, {heads}"
        if self.kind == "convolution":
            return f"convolution of {self.count} tokens, {self.width:,} wide"
        return f"feed-forward {self.width:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A layer: its residual stream, the narrower one inside it if it has one, and its parts."""

    width: int
    parts: tuple[Part, ...]
    bottleneck: int | None = None

    @property
    def told(self) -> str:
        """The layer in words."""
        inside = "" if self.bottleneck is None else f", bottleneck {self.bottleneck:,}"
        counted = Counter(part.told for part in self.parts)
        parts = [told if many == 1 else f"{many} × {told}" for told, many in counted.items()]
        return f"hidden {self.width:,}{inside}: {', '.join(parts)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A whole encoder; `embedding_size` is None where it is that of the first layer."""

    layers: tuple[Layer, ...]
    embedding_size: int | None = None

    @property
    def widest(self) -> int:
        """The largest width of anything in it."""
        parts = [part.width for layer in self.layers for part in layer.parts]
        return max([*parts, *(layer.width for layer in self.layers), self.embedding_size or 0])

    @property
    def told(self) -> str:
        """The shape in words, equal neighbours together, from input to output."""
        told = [f"embeddings {self.embedding_size:,}"] if self.embedding_size else []
        start = 1
        for words, run in groupby(self.layers, key=lambda layer: layer.told):
            end = start + len(list(run)) - 1
            which = f"layer {start}" if start == end else f"layers {start} to {end}"
            told.append(f"{which}, {words}")
            start = end + 1
        return "; ".join(told)


def read_shape(described: object) -> Shape | None:
    """The shape of an architecture as a file describes it; None where it cannot be drawn."""
    if not isinstance(described, Mapping):
        return None
    family = described.get("family")
    if family == ChainArchitecture.family:
        layers = _chain_layers(described)
    elif family == MobileBertArchitecture.family:
        layers = _plain_layers(described, has_bottleneck=True)
    else:
        layers = _plain_layers(described, has_bottleneck=False)
    if not layers or len(layers) > MOST_LAYERS:
        return None
    return Shape(layers=layers, embedding_size=_size(described.get("embedding_size")))


def _plain_layers(described: Fields, *, has_bottleneck: bool) -> tuple[Layer, ...]:
    count = _size(described.get("layers")) or _listed_count(described)
    if count is None or count > MOST_LAYERS:
        return ()
    layers = [_plain_layer(described, place, has_bottleneck) for place in range(count)]
    return () if None in layers else tuple(layer for layer in layers if layer is not None)


def _plain_layer(described: Fields, place: int, has_bottleneck: bool) -> Layer | None:  # noqa: FBT001
    width = _at(described, "hidden_size", place)
    heads, ffn_size = _at(described, "heads", place), _at(described, "ffn_size", place)
    inner = _at(described, "bottleneck_size", place) if has_bottleneck else None
    if width is None or heads is None or ffn_size is None or (has_bottleneck and inner is None):
        return None
    head_size = _at(described, "head_size", place)
    attention = heads * head_size if head_size else inner or width
    feed_forward = Part(kind="feed-forward", width=ffn_size)
    networks = _at(described, "ffn_count", place) or 1
    return Layer(
        width=width,
        parts=(
            Part(kind="attention", width=attention, count=heads),
            *[feed_forward] * min(networks, MOST_LAYERS),
        ),
        bottleneck=inner,
    )


def _chain_layers(described: Fields) -> tuple[Layer, ...]:
    """A layer for each operation of each block; none if any of them is unknown."""
    head_size, ratio = (_size(described.get(key)) for key in ("head_size", "ffn_ratio"))
    layers = []
    for block in mappings(described, "blocks"):
        width = _size(block.get("hidden_size"))
        for operation in sequence(block, "operations"):
            part = None if width is None else _operation(operation, width, head_size, ratio)
            if width is None or part is None:
                return ()
            layers.append(Layer(width=width, parts=(part,)))
    return tuple(layers)


def _operation(name: object, width: int, head_size: int | None, ratio: int | None) -> Part | None:
    if name == "M" and head_size:
        return Part(kind="attention", width=width, count=width // head_size)
    if name == "F" and ratio:
        return Part(kind="feed-forward", width=width * ratio)
    if isinstance(name, str) and name in KERNELS:
        return Part(kind="convolution", width=width, count=KERNELS[name])
    return None


def _listed_count(described: Fields) -> int | None:
    """Layers of an architecture that tells them by lists alone."""
    lengths = {len(value) for value in described.values() if isinstance(value, list)}
    return lengths.pop() if len(lengths) == 1 else None


def _at(described: Fields, name: str, place: int) -> int | None:
    """A size of one layer: one for all, or one of a list."""
    told = described.get(name, described.get(f"{name}s"))
    if isinstance(told, list):
        return _size(told[place]) if place < len(told) else None
    return _size(told)


def _size(value: object) -> int | None:
    """A positive whole number; else None."""
    found = finite(value)
    return int(found) if found is not None and found >= 1 and found == int(found) else None
