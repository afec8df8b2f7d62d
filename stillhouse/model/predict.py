"""Plain prediction over a whole encoded set, batched by length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.model.anatomy import label_count
from stillhouse.model.inputs import model_inputs
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.model.precision import Precision


@torch.inference_mode()
def predict(
    model: PreTrainedModel,
    encoded: EncodedSet,
    *,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Computes the logits of every example.

    Args:
        model: Sequence-classification model; put into evaluation mode.
        encoded: N examples.
        batch_size: Examples at once.
        precision: Arithmetic of the matrix products.

    Returns:
        `[N, C]` logits in the set's own order.
    """
    model.eval()
    logits_NC = np.empty((len(encoded), label_count(model.config)), dtype=np.float32)
    for indices in plan_ordered(encoded.lengths, batch_size=batch_size):
        batch = collate(encoded, indices).to(model.device)
        with autocast(model.device, precision):
            output = model(**model_inputs(model.config, batch))
        logits_NC[indices] = output.logits.float().cpu().numpy()
    return logits_NC
