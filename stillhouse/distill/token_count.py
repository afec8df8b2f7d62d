"""How many tokens models have been trained on in this process.

A count for the whole process, as a car's odometer: every training adds to it, and who wants to know
what a stretch of work took compares what it tells before and after.
"""

from __future__ import annotations


class TokenCount:
    """Counts up, and never back."""

    def __init__(self) -> None:
        """Begin at 0."""
        self._total = 0

    def add(self, tokens: int) -> None:
        """Counts tokens of one step."""
        self._total += tokens

    @property
    def total(self) -> int:
        """Tokens so far."""
        return self._total


TRAINED = TokenCount()
"""Of this process: tokens of the batches of all optimiser steps, those of a step that is done anew
after a kill once more. Padding does not count where a set tells its lengths. Of taggers that read
whole words these are words."""


def tokens_trained() -> int:
    """Tells how many tokens models of this process have been trained on since it began."""
    return TRAINED.total
