"""Batches of examples of like length, padded.

Shapes: B examples of a batch, T tokens, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillhouse.data.encoding import NO_CLASS
from stillhouse.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    from stillhouse.data.encoding import EncodedSet

BATCHES_SORTED_TOGETHER = 50
LENGTH_MULTIPLE = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Padded examples.

    Attributes:
        indices: `[B]` positions of the examples in their set.
        input_ids: `[B, T]` token numbers.
        attention_mask: `[B, T]` 1 for tokens, 0 for padding.
        token_type_ids: `[B, T]` text (0 or 1) that each token belongs to.
        labels: `[B]` int64 classes, `[B, C]` float32 with 1 at the classes of an example, `[B]`
            float32 numbers, `[B, 2]` int64 first and last token of an answer, or `[B, T]` int64
            tags as in `EncodedSet.tags`; `None` without labels.
    """

    indices: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    labels: Tensor | None

    def to(self, device: torch.device | str) -> Batch:
        """Moves every tensor to a device."""
        return Batch(
            indices=self.indices.to(device),
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            token_type_ids=self.token_type_ids.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )


def plan_batches(
    lengths: ArrayLike, *, batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Plans an epoch of training: shuffled batches of examples of like length.

    The examples are shuffled, sorted by length within stretches of 50 batches, cut into batches,
    and the batches shuffled.

    Args:
        lengths: `[N]` tokens of every example.
        batch_size: Examples of a batch; one batch may have fewer.
        seed: With `epoch`, decides the plan.
        epoch: Number of the pass over the examples.

    Returns:
        Positions of examples; each of 0 to N - 1 is in exactly one batch.
    """
    _check_batch_size(batch_size)
    generator = np.random.default_rng([seed, epoch])
    sizes = np.asarray(lengths)
    shuffled = generator.permutation(len(sizes))
    stretch = np.arange(len(sizes)) // (BATCHES_SORTED_TOGETHER * batch_size)
    batches = _cut(shuffled[np.lexsort((sizes[shuffled], stretch))], batch_size)
    return [batches[number] for number in generator.permutation(len(batches))]


def plan_ordered(lengths: ArrayLike, batch_size: int) -> list[NDArray[np.int64]]:
    """Plans a pass for evaluation: by length, longest first, so that memory runs out at once.

    Args:
        lengths: `[N]` tokens of every example.
        batch_size: Examples of a batch; the last may have fewer.

    Returns:
        Positions of examples; each of 0 to N - 1 is in exactly one batch.
    """
    _check_batch_size(batch_size)
    return _cut(np.argsort(-np.asarray(lengths), kind="stable"), batch_size)


def collate(encoded: EncodedSet, indices: NDArray[np.int64] | Sequence[int]) -> Batch:
    """Pads the given examples to one length.

    The length is the longest example's, rounded up to a multiple of 8, but never more than the
    longest example's of the whole set: a model need not have positions beyond that.

    Args:
        encoded: N examples.
        indices: B positions of examples.
    """
    chosen = np.asarray(indices, dtype=np.int64)
    starts_B = encoded.offsets[chosen]
    lengths_B = encoded.offsets[chosen + 1] - starts_B
    longest = int(lengths_B.max(initial=0))
    width = min(-(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE, encoded.longest)
    place_T = np.arange(width)
    mask_BT = place_T < lengths_B[:, None]
    tokens = (starts_B[:, None] + place_T)[mask_BT]
    input_ids_BT = np.full(mask_BT.shape, encoded.pad_id, dtype=np.int64)
    input_ids_BT[mask_BT] = encoded.input_ids[tokens]
    token_type_ids_BT = np.zeros(mask_BT.shape, dtype=np.int64)
    token_type_ids_BT[mask_BT] = encoded.token_type_ids[tokens]
    return Batch(
        indices=torch.from_numpy(chosen.copy()),
        input_ids=torch.from_numpy(input_ids_BT),
        attention_mask=torch.from_numpy(mask_BT.astype(np.int64)),
        token_type_ids=torch.from_numpy(token_type_ids_BT),
        labels=_labels(encoded, chosen, mask_BT, tokens),
    )


def _labels(
    encoded: EncodedSet,
    chosen: NDArray[np.int64],
    mask_BT: NDArray[np.bool_],
    tokens: NDArray[np.int64],
) -> Tensor | None:
    if encoded.tags is not None:
        tags_BT = np.full(mask_BT.shape, NO_CLASS, dtype=np.int64)
        tags_BT[mask_BT] = encoded.tags[tokens]
        return torch.from_numpy(tags_BT)
    return None if encoded.labels is None else torch.from_numpy(encoded.labels[chosen])


def percentile_length(lengths: ArrayLike, q: float = 0.95, multiple: int = 16) -> int:
    """Gives a length that holds most examples.

    Args:
        lengths: `[N]` tokens of every example, N at least 1.
        q: Fraction of the examples that fit, 0 to 1.
        multiple: The length is rounded up to a multiple of this.

    Raises:
        DataError: If there are no examples.
    """
    sizes = np.asarray(lengths)
    if not sizes.size:
        raise DataError("there are no examples to take a typical length of; give at least one")
    reached = np.quantile(sizes, q, method="inverted_cdf")
    return int(-(-reached // multiple) * multiple)


def _cut(order: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise DataError(f"a batch has at least one example, but batch_size is {batch_size}")
