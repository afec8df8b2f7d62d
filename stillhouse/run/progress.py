"""What a run tells while it works: progress for a person, curves for TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from stillhouse.files import write_text_atomically

logger = logging.getLogger(__name__)

PROGRESS_FILE = "progress.json"
"""What `KeptNarrator` writes, in a run directory."""
SECONDS_A_NOTE = 1.0


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


class KeptNarrator:
    """Passes everything on, and keeps in a file what is being done, for who watches from outside.

    Args:
        narrator: Who is told.
        file: Plain data: `task`, `done` and `total` units, `detail`, `since` and `at` in seconds of
            the system's clock. Written at most once a second; removed where nothing is being done.
    """

    def __init__(self, narrator: Narrator, file: Path) -> None:
        """Keep both; nothing is written yet."""
        self._narrator, self._file = narrator, file
        self._now: dict[str, str | float] = {}
        self._written_s = -math.inf

    def say(self, text: str) -> None:  # noqa: D102
        self._narrator.say(text)

    def note(self, text: str) -> None:  # noqa: D102
        self._narrator.note(text)

    def begin(self, task: str, total: float) -> None:  # noqa: D102
        self._narrator.begin(task, total)
        now = time.time()
        self._now = {"task": task, "done": 0.0, "total": total, "detail": "", "since": now}
        self._write(now)

    def advance(self, done: float, detail: str = "") -> None:  # noqa: D102
        self._narrator.advance(done, detail)
        self._now |= {"done": done} | ({"detail": detail} if detail else {})
        now = time.time()
        if now - self._written_s >= SECONDS_A_NOTE:
            self._write(now)

    def end(self) -> None:  # noqa: D102
        self._narrator.end()
        self._now = {}
        with suppress(OSError):
            self._file.unlink(missing_ok=True)

    def _write(self, now_s: float) -> None:
        self._written_s = now_s
        with suppress(OSError):  # who watches may miss something, the run may not
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_text_atomically(self._file, json.dumps({**self._now, "at": now_s}))


def kept_in(run: Path, narrator: Narrator) -> Narrator:
    """Lets `stillhouse watch` see in a run directory what a narrator is told."""
    return KeptNarrator(narrator, run / PROGRESS_FILE)
