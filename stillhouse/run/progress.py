"""What a run tells while it works: progress for a person, curves for TensorBoard."""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class Narrator(Protocol):
    """Who is told how a run goes."""

    def say(self, text: str) -> None:
        """Tells one fact that a user should see."""
        ...

    def note(self, text: str) -> None:
        """Tells one step of the work; nobody misses it where nobody watches."""
        ...

    def begin(self, task: str, total: float) -> None:
        """Starts a stretch of work of `total` units, and ends the one before."""
        ...

    def advance(self, done: float, detail: str = "") -> None:
        """Tells how many units of the stretch are done."""
        ...

    def end(self) -> None:
        """Ends the stretch of work."""
        ...


class LoggingNarrator:
    """Writes facts to the log and keeps progress to itself: for programs and for tests."""

    def say(self, text: str) -> None:  # noqa: D102
        logger.info("%s", text)

    def note(self, text: str) -> None:  # noqa: D102
        logger.info("%s", text)

    def begin(self, task: str, total: float) -> None:  # noqa: D102
        logger.debug("%s: 0 of %g", task, total)

    def advance(self, done: float, detail: str = "") -> None:  # noqa: D102
        logger.debug("%g %s", done, detail)

    def end(self) -> None:  # noqa: D102
        logger.debug("done")
