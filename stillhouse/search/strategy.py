"""The protocol of search strategies: ask for candidates, tell what became of them."""

from collections.abc import Sequence
from typing import Protocol

from stillhouse.search.trial import Trial
from stillhouse.space.architecture import Architecture


class Strategy(Protocol):
    """Proposes architectures and learns from trials.

    What it proposes depends on its seed and on the trials it was told, and on nothing else: not
    on the order of telling, not on earlier asks. So a run that was interrupted goes on as if it
    never had been, once a new strategy is told the recorded trials.
    """

    def ask(self, count: int) -> list[Architecture]:
        """Propose candidates to try next.

        Args:
            count: How many, at least 1.

        Returns:
            `count` architectures of the search space; tried ones may come again.
        """

    def tell(self, trials: Sequence[Trial]) -> None:
        """Learn the outcome of trials.

        Args:
            trials: Finished ones, told in any order; a number told again replaces what was known.
        """
