"""Students cut out of their teacher: kept layers, hidden and feed-forward neurons, heads.

A cut is index vectors, and leading slices are one of them. Heads are kept whole where the student
has the teacher's head size. Otherwise each kept head gives some of its dimensions, and queries and
keys are rescaled so that attention scores keep their scale: re-splitting the leading rows instead
mixes heads and costs accuracy from the first step.

Letters in names: D hidden, H heads, K per-head width, F feed-forward width, V rows of an embedding
table, E width of factored embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stillhouse.model.anatomy import (
    LayeredAnatomy,
    anatomy_of,
    architecture_of,
    encoder_layers,
    factored_size,
    head_paths,
    label_count,
    layered_anatomy_of,
)
from stillhouse.model.heads import head_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.space.architecture import BertArchitecture

NO_SOURCE = -1
"""Marks a row that the teacher cannot fill; the student keeps its fresh weights there."""


def head_rows(student: BertArchitecture, teacher: BertArchitecture) -> Tensor:
    """Finds the teacher's leading query/key/value row for each of the student's.

    A student with more heads than the teacher takes the next unused dimensions of the same heads.

    Returns:
        `[H_student * K_student]` teacher rows, `NO_SOURCE` where the teacher has none left.
    """
    head_H = torch.arange(student.heads)
    round_H = head_H // teacher.heads
    within_HK = round_H[:, None] * student.head_size + torch.arange(student.head_size)[None, :]
    rows_HK = (head_H % teacher.heads)[:, None] * teacher.head_size + within_HK
    return torch.where(within_HK < teacher.head_size, rows_HK, NO_SOURCE).flatten()


def score_scale(student_head_size: int, teacher_head_size: int) -> float:
    """Factor on queries and on keys that keeps the scale of query·key/√K when K changes.

    Where a head's dimensions agree, K_S < K_T of them shrink the product by K_S/K_T and the divisor
    by √(K_S/K_T), so the scores need √(K_T/K_S), half of it (in the exponent) on each side. In a
    teacher whose dimensions are independent the product shrinks by the root only and the factor
    overshoots: all-MiniLM-L6-v2 lies between, at 1.05 to 1.29 of the teacher's spread with half
    heads (0.74 to 0.91 without the factor). What a narrower hidden state takes from the scores is
    not made up for. With K_S > K_T the added dimensions are near zero and only the divisor grows.

    ETD (arXiv 2104.11928) divides by the root of the new head size. Every student does, for that
    divisor is part of its attention; this factor comes on top.
    """
    wide, narrow = (
        max(student_head_size, teacher_head_size),
        min(student_head_size, teacher_head_size),
    )
    return float((wide / narrow) ** 0.25)


def leading(student_size: int, teacher_size: int) -> Tensor:
    """Returns the leading teacher indices for an axis of the student, `NO_SOURCE` beyond."""
    index = torch.arange(student_size)
    return torch.where(index < teacher_size, index, NO_SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Which of the teacher's layers and neurons a student has, `NO_SOURCE` for one of its own.

    Attributes:
        layers: 0-based teacher layer for each student layer.
        hidden: `[D]` neurons of the residual stream: the same ones for embeddings, all layers,
            their norms and the head, because each layer adds to what the one before it gave.
        heads: `[H * K]` query/key/value rows for each student layer, a head after the other.
        ffn: `[F]` feed-forward neurons for each student layer.
    """

    layers: tuple[int, ...]
    hidden: Tensor
    heads: tuple[Tensor, ...]
    ffn: tuple[Tensor, ...]


def leading_cut(
    student: BertArchitecture, teacher: BertArchitecture, layers: tuple[int, ...]
) -> Cut:
    """Takes the leading neurons of everything, and so the same ones of every layer."""
    return Cut(
        layers=layers,
        hidden=leading(student.hidden_size, teacher.hidden_size),
        heads=(head_rows(student, teacher),) * len(layers),
        ffn=(leading(student.ffn_size, teacher.ffn_size),) * len(layers),
    )


def copy_slices(
    student: PreTrainedModel, teacher: PreTrainedModel, layers: tuple[int, ...]
) -> None:
    """Fills the student with leading slices of the teacher, in place; see `copy_cut`.

    Args:
        student: Model to fill.
        teacher: Model to cut.
        layers: 0-based teacher layer for each student layer.
    """
    shapes = architecture_of(student.config), architecture_of(teacher.config)
    copy_cut(student, teacher, leading_cut(*shapes, layers))


@torch.no_grad()
def copy_cut(student: PreTrainedModel, teacher: PreTrainedModel, cut: Cut) -> None:
    """Fills the student with a part of the teacher, in place.

    Args:
        student: Model of any shape of the teacher's family, or of free heads where the teacher's
            family is that of BERT or RoBERTa; where it is larger than the teacher in some
            dimension, the surplus keeps its fresh weights.
        teacher: Model with the same vocabulary, positions and labels. If its embeddings are
            factored, the student's have the same width. A head of another kind than the student's
            gives it nothing.
        cut: Which part; on the processor.
    """
    student_shape, teacher_shape = architecture_of(student.config), architecture_of(teacher.config)
    _copy_embeddings(student, teacher, cut.hidden)
    _copy_head(student, teacher, cut.hidden)
    anatomy = layered_anatomy_of(teacher.config)  # parts of layers have the student's names
    scale = score_scale(student_shape.head_size, teacher_shape.head_size)
    sources = encoder_layers(teacher)
    kept = zip(encoder_layers(student), cut.layers, cut.heads, cut.ffn, strict=True)
    for layer, source, heads, ffn in kept:
        rows = _LayerRows(hidden=cut.hidden, heads=heads, ffn=ffn)
        _copy_layer(layer, sources[source], anatomy, rows, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayerRows:
    """The three index vectors that cut every matrix of a layer."""

    hidden: Tensor
    heads: Tensor
    ffn: Tensor


def _copy_head(student: PreTrainedModel, teacher: PreTrainedModel, hidden: Tensor) -> None:
    """Copies a head of the same kind, whose parts two families may keep in other places."""
    kind = head_of(student)
    if kind is None or kind != head_of(teacher):
        return
    ours, theirs = head_paths(student.config, kind), head_paths(teacher.config, kind)
    labels = torch.arange(label_count(student.config))
    all_rows = (*[hidden] * (len(ours) - 1), labels)
    for target, source, rows in zip(ours, theirs, all_rows, strict=True):
        _fill_linear(student.get_submodule(target), teacher.get_submodule(source), rows, hidden)


def _copy_embeddings(student: PreTrainedModel, teacher: PreTrainedModel, hidden: Tensor) -> None:
    """Copies the tables with the student's dimensions, or whole where they are factored."""
    factored = factored_size(teacher.config)
    columns = hidden if factored is None else torch.arange(factored)
    tables = student.get_submodule(anatomy_of(student.config).embeddings)
    path = anatomy_of(teacher.config).factored_projection
    theirs = dict(teacher.get_submodule(anatomy_of(teacher.config).embeddings).named_parameters())
    for name, target in tables.named_parameters():
        rows = torch.arange(target.shape[0])
        is_table = target.ndim > 1
        _fill(target, theirs[name], *((rows, columns) if is_table else (columns,)))
    if path is None or factored is None:
        assert factored_size(student.config) is None
        return
    assert student.config.embedding_size == factored
    projection = teacher.get_submodule(path)
    if factored_size(student.config) is None:
        assert isinstance(projection, nn.Linear)
        _fold_projection(tables, projection, hidden)
    else:
        _fill_linear(student.get_submodule(path), projection, hidden, columns)


def _fold_projection(embeddings: nn.Module, projection: nn.Linear, hidden: Tensor) -> None:
    """Turns copied tables into those of a student that has no place for the projection.

    transformers leaves the projection out of a model that is as wide as its embeddings. It stands
    behind the normalisation, which divides by the spread of a token's embedding: the folded tables
    have the projected directions, and each token's length as an average token has it.
    """
    norm = embeddings.LayerNorm
    assert isinstance(norm, nn.LayerNorm)
    dtype = norm.weight.dtype
    kept = torch.nonzero(hidden != NO_SOURCE).flatten()  # fewer where the teacher is narrower
    rows = hidden[kept]
    weight_DE, bias_D = projection.weight[rows].to(dtype), projection.bias[rows].to(dtype)
    scaled_DE = weight_DE * norm.weight
    squares_before, squares_after = 0.0, 0.0  # of a token: its embeddings of each table add up
    for table in embeddings.children():
        if isinstance(table, nn.Embedding):
            centred_VE = table.weight - table.weight.mean(dim=1, keepdim=True)
            table.weight[:, kept] = centred_VE @ scaled_DE.T
            squares_before += float(centred_VE.square().mean())
            squares_after += float(table.weight[:, kept].square().mean())
    norm_bias_D = weight_DE @ norm.bias + bias_D
    norm.weight[kept] = (squares_after / squares_before) ** 0.5
    norm.bias[kept] = norm_bias_D


def _copy_layer(
    layer: nn.Module, source: nn.Module, anatomy: LayeredAnatomy, cut: _LayerRows, scale: float
) -> None:
    for name, rows, columns in (
        (anatomy.query, cut.heads, cut.hidden),
        (anatomy.key, cut.heads, cut.hidden),
        (anatomy.value, cut.heads, cut.hidden),
        (anatomy.attention_output, cut.hidden, cut.heads),
        (anatomy.ffn_input, cut.ffn, cut.hidden),
        (anatomy.ffn_output, cut.hidden, cut.ffn),
    ):
        _fill_linear(layer.get_submodule(name), source.get_submodule(name), rows, columns)
    for name in (anatomy.query, anatomy.key):
        for parameter in layer.get_submodule(name).parameters():
            parameter.mul_(scale)
    for name in (anatomy.attention_norm, anatomy.ffn_norm):
        theirs = dict(source.get_submodule(name).named_parameters())
        for key, target in layer.get_submodule(name).named_parameters():
            _fill(target, theirs[key], cut.hidden)


def _fill_linear(target: nn.Module, source: nn.Module, rows: Tensor, columns: Tensor) -> None:
    assert isinstance(target, nn.Linear)
    assert isinstance(source, nn.Linear)
    _fill(target.weight, source.weight, rows, columns)
    _fill(target.bias, source.bias, rows)


def _fill(target: Tensor, source: Tensor, *indices: Tensor) -> None:
    into = [torch.nonzero(index != NO_SOURCE).flatten() for index in indices]
    taken = [index[position] for index, position in zip(indices, into, strict=True)]
    target[torch.meshgrid(*into, indexing="ij")] = source.detach()[
        torch.meshgrid(*taken, indexing="ij")
    ].to(target.dtype)
