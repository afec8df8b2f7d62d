"""The regressor of KD-NAS's controller: embeddings of three states, an LSTM, one number.

The one file of this room that imports torch; a controller is handed what it makes.
Shapes: B examples, S = 3 states, P dimensions of the space, E features of an embedding.
"""

import itertools
from collections.abc import Callable
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stillhouse.space.search_space import SearchSpace

_EMBEDDING_SIZE = 32  # both sizes as in the re-implementation of KD-NAS that states them
_HIDDEN_SIZE = 32


def reward_lstm(space: SearchSpace) -> Callable[[int], "RewardLstm"]:
    """Return the function that makes a fresh regressor for a space from a seed."""
    sizes = [len(dimension.values) for dimension in space.dimensions]
    return lambda seed: RewardLstm(sizes, seed)


@final
class RewardLstm:
    """A `RewardModel`: mean squared error, RMSprop, all examples in one batch, float32 on the CPU.

    Args:
        sizes: Number of values of each dimension of the space.
        seed: Of the first weights; nothing else is random.
    """

    def __init__(self, sizes: list[int], seed: int) -> None:
        """Draw the first weights and leave torch's own randomness as it was."""
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            self._network = _Network(sizes)
        self._optimizer = torch.optim.RMSprop(self._network.parameters())

    def fit(
        self,
        inputs: NDArray[np.int64],
        rewards: NDArray[np.float64],
        *,
        passes: int,
        learning_rate: float,
    ) -> None:
        """Go on training as `RewardModel` says; one step a pass."""
        states_BSP = torch.from_numpy(inputs)
        target_B = torch.from_numpy(rewards).float()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.enable_grad():
            for _ in range(passes):
                self._optimizer.zero_grad()
                loss = nn.functional.mse_loss(self._network(states_BSP), target_B)
                loss.backward()
                self._optimizer.step()

    def predict(self, inputs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Predict as `RewardModel` says."""
        with torch.inference_mode():
            predicted_B: Tensor = self._network(torch.from_numpy(inputs))
        return predicted_B.double().numpy()


class _Network(nn.Module):
    offsets: Tensor

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        # One table with an offset for each dimension is one table for each dimension, but faster.
        self.register_buffer("offsets", torch.tensor([0, *itertools.accumulate(sizes)][:-1]))
        self.embedding = nn.Embedding(sum(sizes), _EMBEDDING_SIZE)
        self.lstm = nn.LSTM(_EMBEDDING_SIZE * len(sizes), _HIDDEN_SIZE, batch_first=True)
        self.head = nn.Linear(_HIDDEN_SIZE, 1)

    def forward(self, states_BSP: Tensor) -> Tensor:
        embedded_BSPE = self.embedding(states_BSP + self.offsets)
        _, (last_1BE, _) = self.lstm(embedded_BSPE.flatten(2))
        reward_B1: Tensor = self.head(last_1BE[0])
        return reward_B1[:, 0]
