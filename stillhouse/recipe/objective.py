"""The distillation objective that settings describe, for a student and its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stillhouse.distill.layer_maps import LayerLink, gene_links, links_of
from stillhouse.distill.signals import EMBEDDINGS
from stillhouse.distill.terms import AttentionTerm, HiddenTerm, LabelTerm, LogitTerm, Term
from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from stillhouse.data.metric_names import TaskKind
    from stillhouse.run.settings import DistillSettings


def distillation_terms(
    settings: DistillSettings,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    *,
    kind: TaskKind,
    seed: int,
) -> list[Term]:
    """Builds the terms with a weight above 0.

    Args:
        settings: Weights, temperature and layer map. What no layer is linked for has no term.
        student: Gives depth and width.
        teacher: Gives depth and width.
        kind: What the task's labels are.
        seed: First weights of the projection between unequal widths.
    """
    terms: list[Term] = []
    if settings.logit_weight:
        terms.append(
            LogitTerm(
                weight=settings.logit_weight,
                temperature=settings.temperature,
                kind=kind,
            )
        )
    if settings.label_weight:
        terms.append(LabelTerm(weight=settings.label_weight, kind=kind))
    if settings.hidden_weight and hidden_links(settings, student, teacher):
        terms.append(
            hidden_term(settings, student, teacher, weight=settings.hidden_weight, seed=seed)
        )
    links = layer_links_of(settings, student, teacher)
    if settings.attention_weight and links:
        terms.append(AttentionTerm(links=links, weight=settings.attention_weight))
    return terms


def hidden_term(
    settings: DistillSettings,
    student: PreTrainedConfig,
    teacher: PreTrainedConfig,
    *,
    weight: float,
    seed: int,
) -> HiddenTerm:
    """Builds the loss of hidden states with the settings' layer map, whatever its weight there."""
    return HiddenTerm(
        links=hidden_links(settings, student, teacher),
        student_hidden=student.hidden_size,
        teacher_hidden=teacher.hidden_size,
        weight=weight,
        seed=seed,
    )


def layer_links_of(
    settings: DistillSettings, student: PreTrainedConfig, teacher: PreTrainedConfig
) -> tuple[LayerLink, ...]:
    """Builds the settings' layer map; one that is still to be searched is uniform until then."""
    layer_map = "uniform" if settings.layer_map == "search" else settings.layer_map
    return links_of(layer_map, student.num_hidden_layers, teacher.num_hidden_layers)


def check_layer_map(
    settings: DistillSettings, depths: Sequence[int], teacher: PreTrainedConfig
) -> None:
    """Refuses genes that do not fit every student, before anything is trained.

    Args:
        settings: Gives the layer map.
        depths: Layers of the students that may be distilled by it.
        teacher: Gives its depth.

    Raises:
        SettingsError: If a depth needs another number of genes, one is beyond the teacher, or they
            leave nothing to learn.
    """
    genes = settings.layer_map
    if isinstance(genes, str):
        return
    others = sorted({depth for depth in depths if depth != len(genes)})
    if others and len(set(depths)) > 1:
        raise SettingsError(
            f"distill.layer_map {list(genes)} is for students of {len(genes)} layers, but there "
            f"are students of {', '.join(map(str, others))} as well: give genes for one depth only "
            f"(space.layers=[{len(genes)}]), or distill.layer_map=uniform, last, uniform_last or "
            "search, which fit all"
        )
    for depth in depths:
        gene_links(genes, depth, teacher.num_hidden_layers)
    if not any(genes) and not learns_without_layers(settings):
        raise nothing_to_learn(list(genes))


def learns_without_layers(settings: DistillSettings) -> bool:
    """Tells whether a map that links no layer leaves a loss."""
    embeddings = settings.hidden_weight if settings.embeddings else 0.0
    return settings.logit_weight + settings.label_weight + embeddings > 0


def nothing_to_learn(layer_map: object) -> SettingsError:
    """Makes the error of a map that links no layer, where every loss needs one."""
    return SettingsError(
        f"layer map {layer_map} links no layer, and so leaves nothing to learn: give one layer a "
        "teacher layer, or set distill.embeddings with distill.hidden_weight above 0"
    )


def check_hidden_quality(settings: DistillSettings) -> None:
    """Refuses to judge candidates by their hidden states where the map compares none.

    Raises:
        SettingsError: If no layer is linked, nor the embeddings.
    """
    genes = settings.layer_map
    if not (isinstance(genes, str) or any(genes) or settings.embeddings):
        raise SettingsError(
            f"search.quality hidden judges by hidden states, but distill.layer_map {list(genes)} "
            "links no layer: give one layer a teacher layer, set distill.embeddings, or take "
            "search.quality task"
        )


def told_layer_map(
    settings: DistillSettings, student: PreTrainedConfig, teacher: PreTrainedConfig
) -> dict[str, list[int] | str]:
    """Tells by which layer map a student is distilled, for its measures.

    Returns:
        `layer_map`: genes, or the name where a layer learns from several of the teacher; nothing
        where neither hidden states nor attention are learnt.
    """
    if not settings.hidden_weight + settings.attention_weight:
        return {}
    links = layer_links_of(settings, student, teacher)
    if any(len(link.teacher) > 1 for link in links):
        return {"layer_map": str(settings.layer_map)}
    linked = {link.student: link.teacher[0] + 1 for link in links}
    return {"layer_map": [linked.get(layer, 0) for layer in range(student.num_hidden_layers)]}


def hidden_links(
    settings: DistillSettings, student: PreTrainedConfig, teacher: PreTrainedConfig
) -> tuple[LayerLink, ...]:
    """Returns the links of hidden states: those of the layer map, and perhaps the embeddings'."""
    links = layer_links_of(settings, student, teacher)
    if not settings.embeddings:
        return links
    count = len(links[0].teacher) if links else 1
    return (LayerLink(student=EMBEDDINGS, teacher=(EMBEDDINGS,) * count), *links)
