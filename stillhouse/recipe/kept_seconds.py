"""The time of a training that may be interrupted, over all processes that worked on it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stillhouse.files import write_text_atomically
from stillhouse.search.trial_time import time_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """What `time_kept` counts on from, and where it notes the time."""

    file: Path
    cost_s: float
    number: int = 0

    def note_time(self, number: int, *, cost_s: float) -> None:
        del number  # the file is of this training alone
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.file, json.dumps({"cost_s": cost_s}))


@contextmanager
def seconds_kept(file: Path) -> Iterator[Callable[[], float]]:
    """Counts the time of a training, from what earlier processes spent on it.

    A process that is killed loses at most half a minute. The file goes when the training is done.

    Args:
        file: Keeps the time meanwhile; of this training alone.

    Yields:
        Tells the wall-clock time until now, in seconds.
    """
    spent_s = float(json.loads(file.read_text())["cost_s"]) if file.exists() else 0.0
    begun = _Begun(file=file, cost_s=spent_s)
    with time_kept(begun, begun) as until_now:
        yield until_now
    file.unlink(missing_ok=True)
