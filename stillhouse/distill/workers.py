"""What the workers of a data-parallel step share: gradients, losses, and chance of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def average_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """Averages gradients over the workers, in one message.

    What a worker's step did not use has a gradient of zero then, however many workers there are.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    parts = mean_over_workers(together, accelerator).split([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_over_workers(values: Tensor, accelerator: Accelerator) -> Tensor:
    """Averages a tensor over the workers."""
    averaged = accelerator.reduce(values, reduction="mean")
    assert isinstance(averaged, Tensor)
    return averaged


@contextmanager
def own_chance(accelerator: Accelerator, *, seed: int, step: int) -> Iterator[None]:
    """Makes dropout a function of seed, step and worker; the random state outside stays."""
    device = accelerator.device
    numbers = [seed, step, accelerator.process_index]
    (own,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(own))
        yield
