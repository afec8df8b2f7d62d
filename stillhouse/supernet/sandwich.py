"""The sandwich rule: which subnets a step trains, and how their gradients come together.

Source: AutoDistil (Xu et al., NeurIPS 2022), section 3.4 of the code's account: the largest, the
smallest and two random subnets a step; their gradients are summed, clipped, and make one step.

Letters in names: B batch, T tokens, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from stillhouse.data.packing import shard
from stillhouse.distill.relations import RelationTarget, relations_loss
from stillhouse.distill.workers import average_gradients, mean_over_workers, own_chance
from stillhouse.model.precision import autocast

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stillhouse.data.packing import PackedSet
    from stillhouse.distill.relations import QueryKeyValue
    from stillhouse.model.precision import Precision
    from stillhouse.space.architecture import Architecture
    from stillhouse.supernet.skeletons import ProjectionReader
    from stillhouse.supernet.subnets import Supernet


def draw_subnets(
    architectures: Sequence[Architecture], *, random_count: int, seed: int, step: int
) -> list[Architecture]:
    """Draws the subnets of a step: the largest, the smallest, and some of the others by chance.

    It is a function of its arguments alone, so that every worker of a data-parallel training draws
    the same, and a resumed training what an unbroken one would have drawn.

    Args:
        architectures: All subnets, smallest first.
        random_count: Subnets to draw by chance, without replacement; fewer where there are fewer.
        seed: Of the training.
        step: 0-based number of the step.

    Returns:
        The largest first, then the smallest, then the random ones; a space of one has one.
    """
    ends = [architectures[-1], architectures[0]][: len(architectures)]
    others = architectures[1:-1]
    generator = np.random.default_rng([seed, step])
    chosen = generator.choice(len(others), size=min(random_count, len(others)), replace=False)
    return [*ends, *(others[index] for index in chosen)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationLesson:
    """What subnets learn from their teacher, and in which arithmetic.

    Attributes:
        teacher: Asked once for all subnets of a step.
        heads: Relation heads.
        target: What of the relations is compared.
        weights: Of queries, keys and values.
        precision: Arithmetic of the matrix products.
    """

    teacher: ProjectionReader
    heads: int
    target: RelationTarget = "scores"
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0)
    precision: Precision = "float32"

    def wanted(self, input_ids_BT: Tensor, mask_BT: Tensor | None) -> QueryKeyValue:
        """Asks the teacher."""
        with torch.no_grad(), autocast(input_ids_BT.device, self.precision):
            asked: QueryKeyValue = self.teacher(input_ids_BT, mask_BT)
        return asked

    def loss(
        self,
        supernet: Supernet,
        subnet: Architecture,
        words_BTD: Tensor,
        mask_BT: Tensor | None,
        wanted: QueryKeyValue,
    ) -> Tensor:
        """Runs a subnet and returns its loss, summed over queries, keys and values."""
        with autocast(words_BTD.device, self.precision):
            found = supernet.projections(subnet, words_BTD, mask_BT)
        return relations_loss(
            found, wanted, mask_BT, heads=self.heads, target=self.target, weights=self.weights
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What a step reads and trains.

    Attributes:
        batch_size: Sequences a step, over all workers; a multiple of their number.
        random_count: Random subnets a step, beside the largest and the smallest.
        seed: Order of the sequences, choice of the subnets, and dropout.
    """

    batch_size: int
    random_count: int = 2
    seed: int = 0


class SandwichStep:
    """Computes the gradients of one step of a supernet.

    The word embeddings are looked up once for all subnets and sliced after, so that the gradient of
    the table, the largest matrix, is made once a step. Every subnet's backward pass runs at once
    after its forward pass, so that the memory is that of the largest one.

    With several workers each has its part of the batch, and the gradients are averaged over the
    workers after the last backward pass: parameters that a step's subnets leave out, on which a
    wrapper such as DistributedDataParallel would wait, are no special case then.
    """

    def __init__(
        self,
        supernet: Supernet,
        lesson: RelationLesson,
        corpus: PackedSet,
        draws: Draws,
        accelerator: Accelerator,
    ) -> None:
        """Keeps the parts.

        Args:
            supernet: Trained in place.
            lesson: What its subnets learn.
            corpus: Sequences to train on.
            draws: How much of both a step takes.
            accelerator: Device and workers.
        """
        self._supernet, self._lesson, self._corpus = supernet, lesson, corpus
        self._draws, self._accelerator = draws, accelerator
        self._parameters = supernet.reached()

    @property
    def tokens(self) -> int:
        """Tokens that a step reads, over all workers."""
        return self._draws.batch_size * self._corpus.length

    def __call__(self, step: int) -> Tensor:
        """Adds the gradients of a step to the supernet's.

        Returns:
            Losses of the largest, the smallest and the random subnets, over all workers.
        """
        input_ids_BT, mask_BT = self._batch(step)
        subnets = draw_subnets(
            self._supernet.architectures,
            random_count=self._draws.random_count,
            seed=self._draws.seed,
            step=step,
        )
        wanted = self._lesson.wanted(input_ids_BT, mask_BT)
        looked_up_BTD = self._supernet.words(input_ids_BT)
        words_BTD = looked_up_BTD.detach().requires_grad_()
        losses = []
        with own_chance(self._accelerator, seed=self._draws.seed, step=step):
            for subnet in subnets:
                loss = self._lesson.loss(self._supernet, subnet, words_BTD, mask_BT, wanted)
                loss.backward()
                losses.append(loss.detach())
        torch.autograd.backward(looked_up_BTD, words_BTD.grad)
        average_gradients(self._parameters, self._accelerator)
        return mean_over_workers(torch.stack(losses), self._accelerator)

    def _batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        draws, workers = self._draws, self._accelerator
        everything = self._corpus.plan(batch_size=draws.batch_size, seed=draws.seed, step=step)
        own = shard(everything, rank=workers.process_index, world=workers.num_processes)
        return packed_batch(self._corpus, own, workers.device)


def packed_batch(
    corpus: PackedSet, indices: np.ndarray[tuple[int], np.dtype[np.int64]], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Reads sequences of a corpus.

    Returns:
        Token numbers `[B, T]`, and the mask `[B, T]` where there is padding, which attention
        without a mask is the faster for.
    """
    input_ids_BT = torch.from_numpy(corpus.batch(indices)).long().to(device)
    if corpus.used_length == corpus.length:
        return input_ids_BT, None
    return input_ids_BT, torch.from_numpy(corpus.attention_mask(indices)).long().to(device)


@torch.no_grad()
def held_out_losses(
    supernet: Supernet,
    lesson: RelationLesson,
    corpus: PackedSet,
    architectures: Sequence[Architecture],
    *,
    batch_size: int,
    on_progress: Callable[[float], None] | None = None,
) -> list[float]:
    """Scores subnets by their loss on held-out text, all on the same batches.

    Args:
        supernet: The shared weights; computed where they are.
        lesson: The loss; the teacher is asked once a batch for all subnets.
        corpus: Held-out sequences; all are read.
        architectures: Subnets to score.
        batch_size: Sequences at a time.
        on_progress: Told the finished fraction, 0..1.

    Returns:
        Mean loss over the sequences, of each architecture.
    """
    supernet.eval()
    device = next(supernet.parameters()).device
    sums = np.zeros(len(architectures))
    for start in range(0, len(corpus), batch_size):
        indices = np.arange(start, min(start + batch_size, len(corpus)))
        input_ids_BT, mask_BT = packed_batch(corpus, indices, device)
        wanted = lesson.wanted(input_ids_BT, mask_BT)
        words_BTD = supernet.words(input_ids_BT)
        for place, architecture in enumerate(architectures):
            loss = lesson.loss(supernet, architecture, words_BTD, mask_BT, wanted)
            sums[place] += loss.item() * len(indices)
            if on_progress is not None:
                share = (place + 1) / len(architectures)
                on_progress((start + share * len(indices)) / len(corpus))
    return [float(total / len(corpus)) for total in sums]
