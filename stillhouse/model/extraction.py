"""Extracts: students that begin as chosen neurons of their teacher.

A neuron has a score, and the student has those of highest score. Random scores choose at random.

Letters in names: D hidden, L layers of the teacher, H heads, K per-head width, F feed-forward
width, N any neurons.

Source: ETD (Chen et al., arXiv 2104.11928), its width-wise extraction and its uniform selection of
layers. Their students have as many heads as the teacher; where ours have fewer, whole heads are
chosen first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stillhouse.errors import SettingsError
from stillhouse.model.anatomy import architecture_of
from stillhouse.model.kept_layers import uniform_layers
from stillhouse.model.slicing import NO_SOURCE, Cut, copy_cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.space.architecture import Architecture, BertArchitecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Scores of a teacher's neurons; only their order counts. All are float32, on the processor.

    Attributes:
        hidden_D: Neurons of the residual stream.
        heads_LHK: Neurons of the queries, keys and values.
        ffn_LF: Neurons inside the feed-forward blocks.
    """

    hidden_D: Tensor  # noqa: N815
    heads_LHK: Tensor  # noqa: N815
    ffn_LF: Tensor  # noqa: N815


def random_importance(teacher: BertArchitecture, *, seed: int) -> Importance:
    """Draws scores, by which every choice of neurons is as likely as any other (ETD-Rand)."""
    generator = torch.Generator().manual_seed(seed)
    return Importance(
        hidden_D=torch.rand(teacher.hidden_size, generator=generator),
        heads_LHK=torch.rand(teacher.layers, teacher.heads, teacher.head_size, generator=generator),
        ffn_LF=torch.rand(teacher.layers, teacher.ffn_size, generator=generator),
    )


def extract(student: PreTrainedModel, teacher: PreTrainedModel, importance: Importance) -> Cut:
    """Fills a student with the teacher's most important neurons, in place.

    Layers are those of the uniform map. Embeddings, norms, biases and a head of the same kind are
    cut with them; queries and keys are rescaled as `slicing.score_scale` tells.

    Args:
        student: Freshly built, of the teacher's vocabulary; see `slicing.copy_cut`. Of heads and
            feed-forward neurons that the teacher lacks, it keeps the fresh weights.
        teacher: Of any family with layers.
        importance: Of its neurons.

    Returns:
        What was taken.

    Raises:
        SettingsError: If the student is deeper or wider than the teacher.
    """
    cut = chosen_cut(architecture_of(student.config), architecture_of(teacher.config), importance)
    copy_cut(student, teacher, cut)
    return cut


def check_extract(student: Architecture, teacher: Architecture) -> None:
    """Refuses a student that is no part of the teacher; asked early, it saves hours.

    Raises:
        SettingsError: If the student is deeper or wider than the teacher.
    """
    for name in ("layers", "hidden_size"):
        ours, theirs = getattr(student, name), getattr(teacher, name)
        if ours > theirs:
            raise SettingsError(
                f"an extract is a part of the teacher, whose {name} is {theirs}, but the student's "
                f"is {ours}: take a smaller student ({name}; of a search, space.{name}), or "
                "distill.initialisation slices or scratch"
            )


def chosen_cut(student: BertArchitecture, teacher: BertArchitecture, importance: Importance) -> Cut:
    """Chooses neurons by score; each vector of them is in the teacher's order.

    Hidden neurons are chosen once for the whole model, feed-forward neurons for each layer, and
    the dimensions of a head for each head, as many of every kept one. Where the student has fewer
    heads, the whole ones of highest sum are kept; where it has more, they take the next most
    important dimensions of the same heads.

    Raises:
        SettingsError: If the student is deeper or wider than the teacher.
    """
    check_extract(student, teacher)
    layers = uniform_layers(student.layers, teacher.layers)
    return Cut(
        layers=layers,
        hidden=most_important(importance.hidden_D, student.hidden_size),
        heads=tuple(chosen_head_rows(importance.heads_LHK[layer], student) for layer in layers),
        ffn=tuple(most_important(importance.ffn_LF[layer], student.ffn_size) for layer in layers),
    )


def most_important(scores_N: Tensor, count: int) -> Tensor:
    """Chooses the places of the highest scores, in ascending order; of equal ones the first.

    Returns:
        `[count]`, with `NO_SOURCE` at the end where there are fewer.
    """
    kept = _by_importance(scores_N)[:count].sort().values
    return torch.cat([kept, kept.new_full((count - len(kept),), NO_SOURCE)])


def chosen_head_rows(scores_HK: Tensor, student: BertArchitecture) -> Tensor:
    """Chooses the query/key/value rows of one layer.

    Returns:
        `[H_student * K_student]` teacher rows, `NO_SOURCE` where a head has none left.
    """
    heads, size = scores_HK.shape
    kept = most_important(scores_HK.sum(dim=1), min(student.heads, heads))
    rows = []
    for head in range(student.heads):
        turn, place = divmod(head, len(kept))
        source = int(kept[place])
        order_K = _by_importance(scores_HK[source])[turn * student.head_size :]
        within = order_K[: student.head_size].sort().values
        missing = within.new_full((student.head_size - len(within),), NO_SOURCE)
        rows += [source * size + within, missing]
    return torch.cat(rows)


def _by_importance(scores_N: Tensor) -> Tensor:
    return torch.argsort(scores_N, descending=True, stable=True)
