"""Outputs of a whole set, gathered batch by batch: a row an example, or a row a token.

Letters in names: N examples, P tokens of all examples in a row, B examples of a batch, T tokens,
C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.data.encoding import EncodedSet


def token_places(offsets: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Finds the tokens of some examples among all tokens in a row.

    Args:
        offsets: `[N + 1]` example i holds the tokens `offsets[i]:offsets[i + 1]`.
        indices: `[B]` positions of examples.

    Returns:
        Places on axis P, one example after the other: the order in which a mask of real tokens
        picks them out of padded rows.
    """
    starts_B = offsets[indices]
    lengths_B = offsets[indices + 1] - starts_B
    ends_B = np.cumsum(lengths_B)
    before_B = ends_B - lengths_B
    places: NDArray[np.int64] = np.repeat(starts_B - before_B, lengths_B)
    return places + np.arange(len(places))


def real_tokens(
    offsets: NDArray[np.int64], indices: NDArray[np.int64], width: int
) -> NDArray[np.bool_]:
    """Tells the tokens of padded rows from their padding, as `[B, width]`."""
    return np.arange(width) < (offsets[indices + 1] - offsets[indices])[:, None]


class LogitTable:
    """Logits of a whole set, in its own order.

    Attributes:
        logits: `[N, C]`, or `[P, C]` where they are of every token.
    """

    def __init__(self, encoded: EncodedSet, *, outputs: int, per_token: bool) -> None:
        """Makes room for the logits of a set.

        Args:
            encoded: N examples.
            outputs: Number of outputs C.
            per_token: Whether they are of every token.
        """
        self._offsets, self._per_token = encoded.offsets, per_token
        rows = len(encoded.input_ids) if per_token else len(encoded)
        self.logits = np.empty((rows, outputs), dtype=np.float32)

    def fill(self, indices: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Puts the logits of a batch in their places.

        Args:
            indices: `[B]` positions of its examples.
            logits: `[B, C]`, or `[B, T, C]` with padding, which is left out.
        """
        if not self._per_token:
            self.logits[indices] = logits
            return
        real_BT = real_tokens(self._offsets, indices, logits.shape[1])
        self.logits[token_places(self._offsets, indices)] = logits[real_BT]
