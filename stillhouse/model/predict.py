"""Plain prediction over a whole encoded set, batched by length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.model.anatomy import label_count
from stillhouse.model.heads import answers_tokens, outputs_of
from stillhouse.model.inputs import model_inputs
from stillhouse.model.precision import autocast
from stillhouse.model.ragged import LogitTable

if TYPE_CHECKING:
    import numpy as np
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
    """Computes the logits of every example, or of every token.

    Args:
        model: Model with a head; put into evaluation mode.
        encoded: N examples.
        batch_size: Examples at once.
        precision: Arithmetic of the matrix products.

    Returns:
        `[N, C]` logits in the set's own order; `[P, C]` of all its tokens in a row where the model
        answers tokens, 2 of them, start and end, where it answers questions.
    """
    model.eval()
    outputs = label_count(model.config)
    table = LogitTable(encoded, outputs=outputs, per_token=answers_tokens(model))
    for indices in plan_ordered(encoded.lengths, batch_size=batch_size):
        batch = collate(encoded, indices).to(model.device)
        with autocast(model.device, precision):
            output = model(**model_inputs(model.config, batch))
        table.fill(indices, outputs_of(output).float().cpu().numpy())
    return table.logits
