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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet


@contextmanager
def compact_vocabulary(model: PreTrainedModel, encoded: EncodedSet) -> Iterator[EncodedSet]:
    """Cuts the word-embedding table to the rows that `encoded` uses, and puts it back at the end.

    Args:
        model: Model to train inside the context; its table is changed in place.
        encoded: Examples with the ids of the full vocabulary.

    Yields:
        The same examples with the ids of the cut table.
    """
    anatomy = anatomy_of(model.config)
    parent = model.get_submodule(anatomy.embeddings)
    full = parent.word_embeddings
    assert isinstance(full, nn.Embedding)
    used = np.union1d(encoded.input_ids, [encoded.pad_id])
    if anatomy.positions_follow_padding:
        # Such a model counts positions over ids that are not its padding's: that id must stay.
        used = np.union1d(used, np.arange(model.config.pad_token_id + 1))
    rows = torch.from_numpy(used.astype(np.int64)).to(full.weight.device)
    places = {int(row): place for place, row in enumerate(used)}
    # A table's padding row gets no gradient: it must not get one in the cut table either.
    padding = None if full.padding_idx is None else places.get(full.padding_idx)
    small = nn.Embedding.from_pretrained(
        full.weight.detach()[rows], freeze=not full.weight.requires_grad, padding_idx=padding
    )
    parent.word_embeddings = small
    try:
        ids = np.searchsorted(used, encoded.input_ids).astype(np.int32)
        yield dataclasses.replace(encoded, input_ids=ids, pad_id=places[encoded.pad_id])
    finally:
        with torch.no_grad():
            full.weight[rows] = small.weight
        parent.word_embeddings = full
