"""Pictures of architectures side by side, as rectangles and polygons of one scale.

Each model is drawn from its input, at the top, to its output. The pale band is the residual
stream, as wide as the hidden size; on it lie the operations of each layer, as wide as their heads
together, their feed-forward network, or their channels. A template writes the SVG.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from stillhouse.report.shapes import Layer, Part, Shape

WIDEST_PX = 280.0
"""Of the widest part on the page: it fits on a phone."""
TALLEST_PX = 400.0
THINNEST_PX, THICKEST_PX = 2.5, 9.0
"""Height of a part: many layers are drawn thinner, few no thicker than reads well."""
GAP = 0.6  # of a part's height, between layers and as the height of a bridge
NARROWEST_HEAD_PX = 2.0
"""Heads that would be narrower are not told apart."""
SCALE_STEPS = (2048, 1024, 512, 256, 128, 64, 32, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is drawn, and the words around it; `mark` is a student's number."""

    name: str
    mark: str
    kind: str
    label: str
    note: str
    shape: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle in pixels; `look` names its style, `cuts` are where heads meet."""

    look: str
    x: float
    y: float
    width: float
    height: float
    cuts: tuple[float, ...] = ()
    written: str = ""
    told: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """A projection from one width to another, as the points of a polygon."""

    points: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A model as it is drawn."""

    model: Model
    width: float
    height: float
    bridges: tuple[Bridge, ...]
    bands: tuple[Bar, ...]
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """All models of a page at one scale, which a bar of `scale_units` shows."""

    pictures: tuple[Picture, ...]
    scale_units: int
    scale_px: float
    kinds: tuple[str, ...]
    has_bottleneck: bool


def draw_models(models: Sequence[Model]) -> Gallery | None:
    """Draw models of one page; None without any."""
    if not models:
        return None
    scale = WIDEST_PX / max(model.shape.widest for model in models)
    rows = max(_rows(model.shape) for model in models)
    thickness = min(THICKEST_PX, max(THINNEST_PX, TALLEST_PX / rows))
    units = next((step for step in SCALE_STEPS if step * scale <= WIDEST_PX / 3), SCALE_STEPS[-1])
    layers = [layer for model in models for layer in model.shape.layers]
    return Gallery(
        pictures=tuple(_Drawing(model, scale, thickness).picture() for model in models),
        scale_units=units,
        scale_px=round(units * scale, 1),
        kinds=tuple(dict.fromkeys(part.kind for layer in layers for part in layer.parts)),
        has_bottleneck=any(layer.bottleneck is not None for layer in layers),
    )


def _rows(shape: Shape) -> float:
    """Height in parts."""
    parts = sum(len(layer.parts) for layer in shape.layers)
    bridges = 2 * GAP * sum(layer.bottleneck is not None for layer in shape.layers)
    return parts + bridges + GAP * (len(shape.layers) + 1) + 1


class _Drawing:
    """One model on its way to a picture: what is drawn so far, and how far down."""

    def __init__(self, model: Model, scale: float, thickness: float) -> None:
        self.model, self.scale, self.thickness = model, scale, thickness
        self.width = round(model.shape.widest * scale, 1)
        self.y = 0.0
        self.bridges: list[Bridge] = []
        self.bands: list[Bar] = []
        self.bars: list[Bar] = []

    def picture(self) -> Picture:
        """Everything from input to output."""
        layers = self.model.shape.layers
        embedding = self.model.shape.embedding_size or layers[0].width
        self.bars.append(self._bar("embeddings", embedding, f"embeddings {embedding:,}"))
        self.y += self.thickness
        self._bridge(embedding, layers[0].width)
        for place, (layer, following) in enumerate(pairwise([*layers, None]), start=1):
            assert layer is not None
            self._layer(layer, place)
            self._bridge(layer.width, layer.width if following is None else following.width)
        return Picture(
            model=self.model,
            width=self.width,
            height=round(self.y, 1),
            bridges=tuple(self.bridges),
            bands=tuple(self.bands),
            bars=tuple(self.bars),
        )

    def _layer(self, layer: Layer, place: int) -> None:
        inner = layer.bottleneck
        if inner is not None:
            self._bridge(layer.width, inner)
        top = self.y
        for part in layer.parts:
            self.bars.append(self._part(part, f"layer {place}, {layer.told}"))
            self.y += self.thickness
        band = self._bar("stream", layer.width if inner is None else inner, "")
        height = round(self.y - top, 2)
        self.bands.append(replace(band, y=round(top, 2), height=height))
        if inner is not None:
            self._bridge(inner, layer.width)

    def _bridge(self, above: int, below: int) -> None:
        """The stream between two layers, or between a layer and its bottleneck."""
        top, bottom = self.y, self.y + GAP * self.thickness
        ends = [*self._ends(above, top), *reversed(list(self._ends(below, bottom)))]
        self.bridges.append(Bridge(points=" ".join(f"{x:.1f},{y:.2f}" for x, y in ends)))
        self.y = bottom

    def _ends(self, width: int, y: float) -> Iterator[tuple[float, float]]:
        half = width * self.scale / 2
        yield self.width / 2 - half, y
        yield self.width / 2 + half, y

    def _part(self, part: Part, told: str) -> Bar:
        bar = self._bar(part.kind, part.width, told)
        if part.kind == "convolution":
            return replace(bar, written=str(part.count))
        if part.kind != "attention" or bar.width < NARROWEST_HEAD_PX * part.count:
            return bar
        each = bar.width / part.count
        cuts = tuple(round(bar.x + each * number, 2) for number in range(1, part.count))
        return replace(bar, cuts=cuts)

    def _bar(self, look: str, width: int, told: str) -> Bar:
        wide = round(width * self.scale, 2)
        # A slit between neighbours of a layer keeps them apart where they are thin.
        return Bar(
            look=look,
            x=round((self.width - wide) / 2, 2),
            y=round(self.y + 0.06 * self.thickness, 2),
            width=wide,
            height=round(0.88 * self.thickness, 2),
            told=told,
        )
