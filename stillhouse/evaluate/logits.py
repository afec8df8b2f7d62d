"""Checks of what a model gave, before it is scored.

Letters in names: N examples, P tokens of all examples in a row, C outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stillhouse.errors import DataError, TrainingError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from stillhouse.data.answers import SpanGold, TagGold


def checked_logits(logits: ArrayLike) -> NDArray[np.float64]:
    """Reads logits.

    Raises:
        TrainingError: If one is not finite.
    """
    checked = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(checked).all():
        raise TrainingError("logits hold NaN or infinity: training diverged; lower learning rates")
    return checked


def token_logits(logits: ArrayLike, gold: TagGold | SpanGold, outputs: int) -> NDArray[np.float64]:
    """Reads the logits of every token.

    Args:
        logits: `[P, C]`.
        gold: Of the same tokens.
        outputs: C.

    Raises:
        DataError: If there are no examples, or the logits are of other tokens.
        TrainingError: If a logit is not finite.
    """
    if not len(gold):
        raise DataError("there are no sentences or questions to score; give at least one")
    logits_PC = checked_logits(logits)
    if logits_PC.shape != (gold.offsets[-1], outputs):
        raise DataError(
            f"examples of {gold.offsets[-1]} tokens need logits of shape "
            f"[{gold.offsets[-1]}, {outputs}], one row for every token, but got "
            f"{list(logits_PC.shape)}"
        )
    return logits_PC
