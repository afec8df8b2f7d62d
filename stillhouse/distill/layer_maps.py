"""Layer maps: which teacher layers each student layer learns from.

All indices are 0-based in the code; the rules are stated 1-based, as the papers have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

from stillhouse.errors import SettingsError
from stillhouse.model.kept_layers import uniform_layer

LayerMapName: TypeAlias = Literal["uniform", "last", "uniform_last"]
Genes: TypeAlias = tuple[int, ...]
"""A layer map as ELM writes it: for each student layer the 1-based teacher layer that it learns
from, or 0 where it learns from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLink:
    """One student layer and the teacher layers whose states it learns, concatenated."""

    student: int
    teacher: tuple[int, ...]


def layer_links(
    name: LayerMapName, student_layers: int, teacher_layers: int
) -> tuple[LayerLink, ...]:
    """Builds a layer map.

    Args:
        name: `uniform` spreads the teacher's layers over the student's; `last` links only the two
            last layers; `uniform_last` links student layer i to its uniform layer and to teacher
            layer L_T − L_S + i (KD-NAS, arXiv 2303.09639 v2; ours starts the uniform half 1-based).
        student_layers: L_S, >= 1.
        teacher_layers: L_T, >= 1.

    Returns:
        Links in the order of student layers.
    """
    match name:
        case "last":
            return (LayerLink(student=student_layers - 1, teacher=(teacher_layers - 1,)),)
        case "uniform":
            return tuple(
                LayerLink(student=i, teacher=(uniform_layer(i, student_layers, teacher_layers),))
                for i in range(student_layers)
            )
        case "uniform_last":
            offset = teacher_layers - student_layers
            return tuple(
                LayerLink(
                    student=i,
                    teacher=(
                        uniform_layer(i, student_layers, teacher_layers),
                        max(0, offset + i),
                    ),
                )
                for i in range(student_layers)
            )
        case _:
            assert_never(name)


def gene_links(genes: Genes, student_layers: int, teacher_layers: int) -> tuple[LayerLink, ...]:
    """Builds the layer map that genes spell.

    Args:
        genes: One for each student layer; 0 leaves the layer without supervision.
        student_layers: L_S.
        teacher_layers: L_T.

    Returns:
        Links of the layers that have any, in order; none where all genes are 0.

    Raises:
        SettingsError: If there is not one gene for each layer, or one is beyond the teacher.

    Source: ELM (Jiao et al., arXiv 2012.06153). The embeddings are no layer: gene 1 is the first.
    """
    if len(genes) != student_layers:
        raise SettingsError(
            f"layer map {list(genes)} has {len(genes)} genes, but the student {student_layers} "
            "layers: give one gene for each layer, 0 for none"
        )
    beyond = [gene for gene in genes if not 0 <= gene <= teacher_layers]
    if beyond:
        raise SettingsError(
            f"layer map {list(genes)}: {beyond[0]} is no layer of the teacher, which has "
            f"{teacher_layers}; genes are 1 to {teacher_layers}, or 0 for no layer"
        )
    return tuple(
        LayerLink(student=layer, teacher=(gene - 1,)) for layer, gene in enumerate(genes) if gene
    )


def links_of(
    layer_map: LayerMapName | Genes, student_layers: int, teacher_layers: int
) -> tuple[LayerLink, ...]:
    """Builds a layer map by its name or its genes, see `layer_links` and `gene_links`."""
    if isinstance(layer_map, str):
        return layer_links(layer_map, student_layers, teacher_layers)
    return gene_links(layer_map, student_layers, teacher_layers)
