"""How the controller of KD-NAS learns and proposes: published figures, and other budgets."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Constants of a controller.

    Args:
        episodes: Planned episodes; the search may end earlier or go on.
        per_episode: Trained candidates of an episode.
        first_epsilon: Share of random draws in the first episode, 0..1.
        last_epsilon: Floor of that share, 0..1.
        epsilon_fall: By how much the share falls from one episode to the next.
        pool: Random architectures that the controller ranks for an episode.
        passes: Passes of the training at the end of an episode.
        learning_rate: Of that training.
        standardise: Train on rewards of mean 0 and deviation 1 instead of the raw ones.
        memory: `episode` goes on training one model with the episode's trials and the best ones;
            `all` trains fresh weights on all trials.

    Raises:
        ValueError: A value breaks its rule.
    """

    episodes: int
    per_episode: int
    first_epsilon: float
    last_epsilon: float
    epsilon_fall: float
    pool: int
    passes: int
    learning_rate: float
    standardise: bool
    memory: Literal["episode", "all"]

    def __post_init__(self) -> None:
        """Check every rule once."""
        for name in ("episodes", "per_episode", "pool", "passes", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.last_epsilon <= self.first_epsilon <= 1 or self.epsilon_fall < 0:
            raise ValueError(
                "the share of random draws must fall within 0 to 1, got "
                f"{self.first_epsilon} to {self.last_epsilon} by {self.epsilon_fall}"
            )

    def epsilon(self, episode: int) -> float:
        """Return the share of random draws in an episode, counted from 0.

        Beyond the planned episodes it stays what it was in the last one.
        """
        falls = min(episode, self.episodes - 1)
        return max(self.last_epsilon, self.first_epsilon - self.epsilon_fall * falls)

    def random_draws(self, episode: int) -> int:
        """Return how many trained candidates of an episode are drawn at random, rounded down."""
        # The tenth of a millionth is for shares such as 1 − 0.05 · 2, which are a hair too small.
        return int(self.epsilon(episode) * self.per_episode + 1e-7)


def published_controller() -> ControllerSettings:
    """Return the constants of KD-NAS: 300 candidates, of which 65 % are random.

    Source: arXiv 2303.09639 by two re-implementations; the pool is 100 in one and 150 in the
    other, the passes 1 and 10.
    """
    return ControllerSettings(
        episodes=15,
        per_episode=20,
        first_epsilon=1.0,
        last_epsilon=0.05,
        epsilon_fall=0.05,
        pool=150,
        passes=10,
        learning_rate=1e-4,
        standardise=False,
        memory="episode",
    )


def default_controller(candidates: int) -> ControllerSettings:
    """Return constants that learn within tens of candidates.

    Ours. The published ones take 15 small steps at a small rate from 20 trials each, most of which
    are random to the end; these train on everything told, often and at a larger rate.

    Args:
        candidates: How many will be trained, at least 1; they are spread over episodes of 5.
    """
    episodes = math.ceil(candidates / 5)
    return ControllerSettings(
        episodes=episodes,
        per_episode=5,
        first_epsilon=1.0,
        last_epsilon=0.1,
        epsilon_fall=0.9 / max(1, episodes - 1),
        pool=150,
        passes=60,
        learning_rate=3e-3,  # chosen with benchmarks.strategies --tune
        standardise=True,
        memory="all",
    )
