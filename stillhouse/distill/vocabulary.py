"""Training on the vocabulary that the data uses.

A row of the word-embedding table that no example names gets no gradient, and with no weight decay
on embeddings AdamW leaves it exactly as it was. So the table can be cut to the used rows for
training and put back after: the same numbers, without the cost of a gradient, two moments and a
clipping norm over 30,000 rows of which a small task touches a few thousand.
"""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from stillhouse.model.anatomy import anatomy_of
from stillhouse.model.lsq_parts import QuantisedEmbedding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet


class CutTable(nn.Embedding):
    """The used rows of a word-embedding table; it knows the table that it was cut from."""

    _source: tuple[nn.Embedding, Tensor]  # in a tuple, or it would be a part of this module

    @classmethod
    def of(cls, full: nn.Embedding, rows: Tensor, padding: int | None) -> CutTable:
        """Cuts rows out of a table.

        Args:
            full: The whole table.
            rows: Numbers of the rows to keep, ascending.
            padding: Number of the padding row among the kept ones, or `None`.
        """
        weight_VD = full.weight.detach()[rows]
        count, width = weight_VD.shape
        frozen = not full.weight.requires_grad
        table = cls(count, width, padding_idx=padding, _weight=weight_VD, _freeze=frozen)
        table._source = (full, rows)
        if isinstance(full, QuantisedEmbedding):
            table.weight_clip = full.weight_clip  # learnt as a part of this module
        return table

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002, D102  its name in torch
        rows_BTD = super().forward(input)
        full, _ = self._source
        return full.quantised(rows_BTD) if isinstance(full, QuantisedEmbedding) else rows_BTD

    @torch.no_grad()
    def whole(self) -> nn.Embedding:
        """Writes the rows back as they are now; returns the whole table."""
        full, rows = self._source
        full.weight[rows] = self.weight
        return full


@contextmanager
def compact_vocabulary(model: PreTrainedModel, encoded: EncodedSet) -> Iterator[EncodedSet]:
    """Cuts the word-embedding table to the rows that `encoded` uses, and puts it back at the end.

    Args:
        model: Model to train inside the context; its table is changed in place.
        encoded: Examples with the ids of the full vocabulary.

    Yields:
        The same examples with the ids of the cut table.
    """
    parent = _embeddings(model)
    full = parent.word_embeddings
    assert isinstance(full, nn.Embedding)
    used = np.union1d(encoded.input_ids, [encoded.pad_id])
    if anatomy_of(model.config).positions_follow_padding:
        # Such a model counts positions over ids that are not its padding's: that id must stay.
        used = np.union1d(used, np.arange(model.config.pad_token_id + 1))
    rows = torch.from_numpy(used.astype(np.int64)).to(full.weight.device)
    places = {int(row): place for place, row in enumerate(used)}
    # A table's padding row gets no gradient: it must not get one in the cut table either.
    padding = None if full.padding_idx is None else places.get(full.padding_idx)
    cut = CutTable.of(full, rows, padding)
    parent.word_embeddings = cut
    try:
        ids = np.searchsorted(used, encoded.input_ids).astype(np.int32)
        yield dataclasses.replace(encoded, input_ids=ids, pad_id=places[encoded.pad_id])
    finally:
        parent.word_embeddings = cut.whole()


@contextmanager
def whole_vocabulary(model: PreTrainedModel) -> Iterator[None]:
    """Lends a model whose table is cut the whole one, with what the rows have learnt so far.

    Inside the context the model reads any example with the ids of the full vocabulary. A model
    whose table is not cut stays as it is.
    """
    parent = _embeddings(model)
    cut = parent.word_embeddings
    if not isinstance(cut, CutTable):
        yield
        return
    parent.word_embeddings = cut.whole()
    try:
        yield
    finally:
        parent.word_embeddings = cut


def _embeddings(model: PreTrainedModel) -> nn.Module:
    return model.get_submodule(anatomy_of(model.config).embeddings)
