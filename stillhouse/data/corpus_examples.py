"""Sequences of a corpus as examples without labels, learnt from as those of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.data.encoding import EncodedSet

if TYPE_CHECKING:
    from stillhouse.data.packing import PackedSet


def corpus_examples(packed: PackedSet, *, pad_id: int, count: int | None = None) -> EncodedSet:
    """Copies sequences of a corpus into memory, 5 bytes a token.

    Args:
        packed: The sequences.
        pad_id: Token number to pad with.
        count: How many, spread evenly over the corpus; `None`, or more than there are, takes all.
    """
    wanted = len(packed) if count is None else min(count, len(packed))
    chosen = np.arange(wanted, dtype=np.int64) * len(packed) // max(wanted, 1)
    ids = packed.batch(chosen)[:, : packed.used_length].reshape(-1)
    return EncodedSet(
        input_ids=ids,
        token_type_ids=np.zeros(len(ids), np.int8),
        offsets=np.arange(wanted + 1, dtype=np.int64) * packed.used_length,
        pad_id=pad_id,
    )
