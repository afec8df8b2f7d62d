"""Whole students without a task in 8 bits: words that are hidden from them, and states of chains.

Letters in names: B batch, T tokens, D hidden, N examples.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from stillhouse.device.runtimes import ONNX_INPUTS
from stillhouse.distill.masked_lm import BorrowedHead, held_out_mlm
from stillhouse.model.mlm_teachers import MlmTeacher
from stillhouse.model.modeling_chain_bert import ChainOperation
from stillhouse.recipe.served import (
    CALIBRATION_BATCH,
    CALIBRATION_EXAMPLES,
    EIGHT_BITS,
    Answer,
    Inputs,
    ScorePrecision,
    Served,
    served_precision,
)
from stillhouse.supernet.blocks import Alone

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from stillhouse.data.packing import PackedSet
    from stillhouse.distill.masked_lm import MaskedBatch, MlmNetwork, MlmScore
    from stillhouse.recipe.chain_nursery import ChainNursery
    from stillhouse.recipe.mlm_nursery import MlmNursery
    from stillhouse.space.chain import ChainBlock
    from stillhouse.supernet.blocks import BlockSupernet, DevBatch

LAST_STATE = "last_hidden_state"


def scored_in(nursery: MlmNursery) -> ScorePrecision:
    """Tells in which precision whole students without a task are scored."""
    return served_precision(nursery.settings.device) or nursery.precision


@dataclass(frozen=True, slots=True, kw_only=True)
class WordScores:
    """How a network tells the masked words of some texts.

    Attributes:
        scores: One for each text, in their order.
        precision: That of its encoder's answers.
    """

    scores: tuple[MlmScore, ...]
    precision: ScorePrecision

    @property
    def is_served(self) -> bool:
        """Whether the encoder answered in 8 bits."""
        return self.precision in EIGHT_BITS


def score_words(nursery: MlmNursery, network: MlmNetwork, texts: Sequence[PackedSet]) -> WordScores:
    """Scores a network on held-out texts, a student as the device serves its encoder.

    In 8 bits the encoder answers from its file; the head that reads masked words is not served, and
    stays in PyTorch in float32, as the projection before it does. A teacher is not served at all.

    Args:
        nursery: Device, and training text for scales that are fixed before.
        network: On any device; it stays there.
        texts: Held out.

    Raises:
        ExportError: If the encoder cannot be written or quantised.
    """
    served = served_words(nursery)
    if served is None or isinstance(network, MlmTeacher):
        scores = [
            held_out_mlm(network, text, nursery.masker, precision=nursery.precision)
            for text in texts
        ]
        return WordScores(scores=tuple(scores), precision=nursery.precision)
    student = network.student if isinstance(network, BorrowedHead) else network
    with served.opened(student.base_model, inputs=ONNX_INPUTS, output=LAST_STATE) as answer:
        lent = _with_encoder(student, ServedEncoder(answer))
        read: MlmNetwork = lent
        if isinstance(network, BorrowedHead):
            read = replace(network, student=lent)
        scores = [held_out_mlm(read, text, nursery.masker) for text in texts]
    return WordScores(scores=tuple(scores), precision=served.precision)


def served_words(nursery: MlmNursery) -> Served | None:
    """Makes what serves encoders of masked words; `None` where the device is not of 8 bits."""
    settings = nursery.settings.device
    if served_precision(settings) is None:
        return None

    def calibrating() -> Iterator[Inputs]:
        for batch in _training_batches(nursery, torch.device("cpu")):
            yield dict(zip(ONNX_INPUTS, (_array(batch.input_ids), _mask(batch)), strict=True))

    return Served(settings=settings, workload=nursery.workload, calibration=calibrating)


class ServedEncoder(nn.Module):
    """Stands where an encoder stood, and answers from its file in 8 bits."""

    def __init__(self, answer: Answer) -> None:
        """Keeps what answers token numbers and mask with last hidden states."""
        super().__init__()
        self._answer = answer

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """Gives the last hidden states in float32, where the token numbers are."""
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given = zip(ONNX_INPUTS, (_array(input_ids), _array(mask_BT)), strict=True)
        hidden_BTD = torch.from_numpy(self._answer(dict(given)))
        return BaseModelOutput(last_hidden_state=hidden_BTD.to(input_ids.device))


class CompleteChain(nn.Module):
    """The blocks of a chain with the supernets' weights, each between its two projections."""

    def __init__(self, supernets: Sequence[BlockSupernet], blocks: Sequence[ChainBlock]) -> None:
        """Takes the modules of the supernets, without copying them."""
        super().__init__()
        self.parts = nn.ModuleList()
        for supernet, block in zip(supernets, blocks, strict=True):
            size = str(block.hidden_size)
            self.parts.append(supernet.inputs[size])
            for place in range(len(block.operations)):
                self.parts.append(supernet.operation(block, place))
            self.parts.append(supernet.outputs[size])

    def forward(self, state: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Leads the teacher's first state, `[B, T, D]`, to its predicted last one."""
        for part in self.parts:
            state = part(state, mask) if isinstance(part, ChainOperation) else part(state)
        return {LAST_STATE: state}


def served_chains(nursery: ChainNursery) -> Served | None:
    """Makes what serves complete chains; `None` where the device is not of 8 bits.

    What fixes scales are the teacher's first states of training text, read once for all chains.
    """
    settings, device = nursery.settings.device, nursery.accelerator.device
    if served_precision(settings) is None:
        return None

    @cache
    def calibrating() -> list[Inputs]:
        batches = _training_batches(nursery, device)
        return [_chain_inputs(nursery.reader(one.input_ids, one.mask)[0], one) for one in batches]

    return Served(settings=settings, workload=nursery.workload, calibration=calibrating)


def served_states(
    served: Served,
    supernets: Sequence[BlockSupernet],
    blocks: Sequence[ChainBlock],
    batches: Sequence[DevBatch],
) -> Iterator[Tensor]:
    """Runs a complete chain in 8 bits from the teacher's first states on, which stay in float32.

    Yields:
        The predicted last state of the teacher for each batch, `[B, T, D]`.

    Raises:
        ExportError: If the chain cannot be written or quantised.
    """
    chain = CompleteChain(supernets, blocks)
    states = {"state": batches[0].states[0].shape[-1]}
    with served.opened(chain, inputs=("mask",), output=LAST_STATE, states=states) as answer:
        for batch in batches:
            found_BTD = answer(_chain_inputs(batch.states[0], batch.text))
            yield torch.from_numpy(found_BTD).to(batch.text.labels.device)


def _with_encoder(student: PreTrainedModel, encoder: nn.Module) -> PreTrainedModel:
    """Returns a student's head, not copied, on another encoder."""
    changed = copy.copy(student)
    changed._modules = {**student._modules, student.base_model_prefix: encoder}
    return changed


def _training_batches(nursery: MlmNursery, device: torch.device) -> Iterator[MaskedBatch]:
    """Reads some of the text that students learn from, with words hidden as in what is judged."""
    text = nursery.text_of(CALIBRATION_BATCH)
    examples = min(CALIBRATION_EXAMPLES, len(text.corpus))
    for step in range(-(-examples // CALIBRATION_BATCH)):
        yield text.batch(step, Alone(device=device))


def _chain_inputs(state_BTD: Tensor, batch: MaskedBatch) -> dict[str, NDArray[Any]]:
    return {"state": _array(state_BTD.float()), "mask": _mask(batch)}


def _mask(batch: MaskedBatch) -> NDArray[Any]:
    return _array(torch.ones_like(batch.input_ids) if batch.mask is None else batch.mask)


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().cpu().numpy()
    return array
