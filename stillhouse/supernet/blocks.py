"""Block-wise supernets: the weights of all students of one block, trained on the teacher's states.

Source: NAS-BERT (Xu et al., KDD 2021), sections 3.2 and 3.3: a student block reads the hidden state
that the teacher has before its own block, and predicts the one after it; a step trains one path
that was drawn uniformly. Blocks have nothing in common but the teacher, so each may be trained in a
process of its own.

A path is a view by choice: an operation of a place, kind and width is one module, and a block is
the list of those that it names.

Letters in names: B batch, T tokens, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from stillhouse.model.modeling_chain_bert import ChainBertConfig, ChainOperation
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stillhouse.distill.masked_lm import MaskedBatch, MaskedText
    from stillhouse.model.precision import Precision
    from stillhouse.space.chain import BlockSpace, ChainBlock

CLIP_NORM = 1.0


class BlockSupernet(nn.Module):
    """All operations of one block, and what leads from the teacher's width to theirs and back.

    Attributes:
        inputs: A projection from the teacher's width for each hidden size.
        operations: One `ChainOperation` for each hidden size, place and kind.
        outputs: A projection back for each hidden size, which makes losses comparable.
    """

    def __init__(self, space: BlockSpace, *, width: int, config: ChainBertConfig) -> None:
        """Draws fresh weights.

        Args:
            space: The block's students.
            width: Hidden size of the teacher.
            config: What operations take beside their kind and width: head size, activation, norm.
        """
        super().__init__()
        self.inputs = nn.ModuleDict()
        self.outputs = nn.ModuleDict()
        self.operations = nn.ModuleDict()
        for hidden_size in space.hidden_sizes:
            self.inputs[str(hidden_size)] = nn.Linear(width, hidden_size)
            self.outputs[str(hidden_size)] = nn.Linear(hidden_size, width)
            self.operations[str(hidden_size)] = nn.ModuleList(
                nn.ModuleDict(
                    {kind: ChainOperation(kind, hidden_size, config) for kind in space.operations}
                )
                for _ in range(space.most_operations)
            )

    def begin(self, hidden_size: int, state_BTD: Tensor) -> Tensor:
        """Projects the teacher's state to the width of a block."""
        narrow_BTD: Tensor = self.inputs[str(hidden_size)](state_BTD)
        return narrow_BTD

    def operate(
        self, block: ChainBlock, place: int, hidden_BTD: Tensor, mask_BT: Tensor | None
    ) -> Tensor:
        """Runs one operation of a block."""
        changed_BTD: Tensor = self.operation(block, place)(hidden_BTD, mask_BT)
        return changed_BTD

    def operation(self, block: ChainBlock, place: int) -> ChainOperation:
        """Returns the shared module of one place of a block."""
        places = self.operations[str(block.hidden_size)]
        assert isinstance(places, nn.ModuleList)
        kinds = places[place]
        assert isinstance(kinds, nn.ModuleDict)
        found = kinds[block.operations[place]]
        assert isinstance(found, ChainOperation)
        return found

    def end(self, hidden_size: int, hidden_BTD: Tensor) -> Tensor:
        """Projects back to the teacher's width."""
        wide_BTD: Tensor = self.outputs[str(hidden_size)](hidden_BTD)
        return wide_BTD

    def forward(self, block: ChainBlock, state_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
        """Predicts the teacher's next state from its last one.

        Args:
            block: Which path to take.
            state_BTD: The teacher's state before the block.
            mask_BT: 1 for tokens, 0 for padding, or `None` where there is none.
        """
        hidden_BTD = self.begin(block.hidden_size, state_BTD)
        for place in range(len(block.operations)):
            hidden_BTD = self.operate(block, place, hidden_BTD, mask_BT)
        return self.end(block.hidden_size, hidden_BTD)


class BorderReader:
    """Reads the teacher's hidden states at the borders of equal blocks.

    Attributes:
        model: A bare encoder, frozen and in evaluation mode.
        blocks: Number of blocks; it divides the teacher's layers.
    """

    def __init__(self, model: PreTrainedModel, blocks: int, *, precision: Precision) -> None:
        """Keeps the parts."""
        self.model, self.blocks = model, blocks
        self._precision = precision

    @torch.no_grad()
    def __call__(self, input_ids_BT: Tensor, mask_BT: Tensor | None) -> tuple[Tensor, ...]:
        """Returns the state before the first layer and that after each block, `[B, T, D]` each."""
        with autocast(input_ids_BT.device, self._precision):
            states = self.model(
                input_ids=input_ids_BT, attention_mask=mask_BT, output_hidden_states=True
            ).hidden_states
        step = (len(states) - 1) // self.blocks
        return tuple(states[::step])


def state_loss(found_BTD: Tensor, wanted_BTD: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Mean squared difference of two states over the real tokens, in float32."""
    squared_BT = (found_BTD.float() - wanted_BTD.float()).square().mean(dim=-1)
    if mask_BT is None:
        return squared_BT.mean()
    return (squared_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A worker that reads whole batches, whatever others do.

    Workers of a block-wise training share out blocks, not sequences.
    """

    device: torch.device
    process_index: int = 0
    num_processes: int = 1


class BlockStep:
    """Computes the gradients of one step of some blocks' supernets, each on its own path.

    The gradient of every block is clipped by itself, so that a block learns the same whether it is
    trained alone or beside others.
    """

    def __init__(
        self,
        supernets: Sequence[BlockSupernet],
        places: Sequence[int],
        reader: BorderReader,
        text: MaskedText,
        draw: Callable[[int, int], ChainBlock],
        *,
        precision: Precision,
    ) -> None:
        """Keeps the parts.

        Args:
            supernets: Trained in place.
            places: Number of each one's block, from 0.
            reader: The teacher.
            text: What is read.
            draw: Returns the path of a block (its number) at a step.
            precision: Arithmetic of the matrix products.
        """
        self._supernets, self._places, self._reader = supernets, places, reader
        self._text, self._draw, self._precision = text, draw, precision

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step; returns the blocks' losses."""
        device = next(self._supernets[0].parameters()).device
        batch = self._text.batch(step, Alone(device=device))
        states = self._reader(batch.input_ids, batch.mask)
        losses = []
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            for place, supernet in zip(self._places, self._supernets, strict=True):
                numbers = np.random.SeedSequence([self._text.seed, step, place])
                torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))  # for dropout
                path = self._draw(place, step)
                supernet.train()  # a comparison of candidates may have been in between
                with autocast(device, self._precision):
                    found_BTD = supernet(path, states[place], batch.mask)
                loss = state_loss(found_BTD, states[place + 1], batch.mask)
                loss.backward()
                nn.utils.clip_grad_norm_(supernet.parameters(), CLIP_NORM)
                losses.append(loss.detach())
        return torch.stack(losses)


@dataclass(frozen=True, kw_only=True)
class DevBatch:
    """A held-out batch with what the teacher makes of it.

    Attributes:
        text: Token numbers, padding mask and hidden tokens.
        states: The teacher's states at the borders, `[B, T, D]` each.
    """

    text: MaskedBatch
    states: tuple[Tensor, ...]


def dev_batches(
    reader: BorderReader, text: MaskedText, count: int, device: torch.device
) -> list[DevBatch]:
    """Asks the teacher about the batches that all candidates are compared on."""
    batches = [text.batch(step, Alone(device=device)) for step in range(count)]
    return [DevBatch(text=one, states=reader(one.input_ids, one.mask)) for one in batches]


@torch.no_grad()
def block_losses(
    supernet: BlockSupernet,
    place: int,
    blocks: Sequence[ChainBlock],
    batches: Sequence[DevBatch],
    *,
    precision: Precision,
) -> list[float]:
    """Scores paths of one block by their loss on held-out batches.

    Paths that begin alike are computed together as far as they do: they are visited in the order of
    their operations, and the states of the current one's beginnings are kept.

    Args:
        supernet: The shared weights; computed where they are.
        place: Number of the block, from 0.
        blocks: Paths.
        batches: The same for all.
        precision: Arithmetic of the matrix products.

    Returns:
        Mean loss over the batches, of each path.
    """
    supernet.eval()
    sums = np.zeros(len(blocks))
    order = sorted(range(len(blocks)), key=lambda n: (blocks[n].hidden_size, blocks[n].operations))
    for batch in batches:
        device = batch.text.labels.device
        with autocast(device, precision):
            walk = _walk(supernet, [blocks[n] for n in order], batch.states[place], batch.text.mask)
            for n, found_BTD in zip(order, walk, strict=True):
                loss = state_loss(found_BTD, batch.states[place + 1], batch.text.mask)
                sums[n] += loss.item()
    return [float(total / len(batches)) for total in sums]


def _walk(
    supernet: BlockSupernet,
    ordered: Sequence[ChainBlock],
    state_BTD: Tensor,
    mask_BT: Tensor | None,
) -> Iterator[Tensor]:
    """Yields the prediction of every block, computing shared beginnings once."""
    kept: list[Tensor] = []  # after the input projection and after each operation of `before`
    before: ChainBlock | None = None
    for block in ordered:
        if before is None or before.hidden_size != block.hidden_size:
            kept, before = [supernet.begin(block.hidden_size, state_BTD)], None
        shared = 0 if before is None else _shared(before.operations, block.operations)
        del kept[shared + 1 :]
        for place in range(shared, len(block.operations)):
            kept.append(supernet.operate(block, place, kept[-1], mask_BT))
        before = block
        yield supernet.end(block.hidden_size, kept[-1])


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the common beginning."""
    count = 0
    for ours, theirs in zip(one, other, strict=False):
        if ours != theirs:
            break
        count += 1
    return count


@torch.no_grad()
def chain_states(
    supernets: Sequence[BlockSupernet],
    blocks: Sequence[ChainBlock],
    batch: DevBatch,
    *,
    precision: Precision,
) -> Tensor:
    """Runs a complete model: each block reads what the one before predicts.

    Returns:
        The predicted last state of the teacher, `[B, T, D]`.
    """
    state_BTD = batch.states[0]
    with autocast(batch.text.labels.device, precision):
        for supernet, block in zip(supernets, blocks, strict=True):
            state_BTD = supernet.eval()(block, state_BTD, batch.text.mask)
    return state_BTD


NO_CLIPPING = math.inf
"""For the schedule of `run_steps`: a `BlockStep` has clipped already, each block by itself."""
