"""A loss measured over a whole set, without training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from stillhouse.data.batching import collate, plan_ordered
from stillhouse.distill.signals import SignalReader
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.data.encoding import EncodedSet
    from stillhouse.distill.teacher import TeacherSignals
    from stillhouse.distill.terms import Term
    from stillhouse.model.precision import Precision

_EXAMPLES_AT_ONCE = 64


@torch.inference_mode()
def mean_loss(
    model: PreTrainedModel,
    encoded: EncodedSet,
    term: Term,
    teacher: TeacherSignals,
    *,
    precision: Precision = "float32",
) -> float:
    """Returns a term's mean loss over a set, every real token counting alike.

    Args:
        model: The student; put into evaluation mode.
        encoded: At least one example.
        term: What is measured, with the projection that was trained beside the student.
        teacher: Signals of the teacher for the same examples.
        precision: Arithmetic of the matrix products.
    """
    model.eval()
    total, tokens = 0.0, 0
    with SignalReader(model, term.student_layers, attention=term.student_attention) as reader:
        for indices in plan_ordered(encoded.lengths, batch_size=_EXAMPLES_AT_ONCE):
            batch = collate(encoded, indices).to(model.device)
            with autocast(model.device, precision):
                loss = term(reader(batch), teacher(batch), batch)
            kept = int(batch.attention_mask.sum())
            total += float(loss) * kept
            tokens += kept
    return total / tokens
