"""Scores of one judgement that are kept one by one, so that a killed one goes on where it was."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stillhouse.errors import TrainingError
from stillhouse.files import write_text_atomically
from stillhouse.search.trial import CandidateFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


class KeptScores:
    """Scores by name, in a file.

    Args:
        file: Where they are kept.
        fingerprint: Of what is judged: scores of anything else in that file are not read.
    """

    def __init__(self, file: Path, fingerprint: str) -> None:
        """Read what was kept; nothing is written yet."""
        self._file, self._fingerprint = file, fingerprint
        self._known: dict[str, list[float]] = {}
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if kept["fingerprint"] == fingerprint:
                self._known = kept.get("by_name", {})  # which older versions called otherwise

    def score(self, name: str, find: Callable[[], float]) -> float:
        """Returns the score of a name, and finds and keeps it where it is not known."""
        return self.several(name, lambda: [find()])[0]

    def several(self, name: str, find: Callable[[], Sequence[float]]) -> list[float]:
        """Returns what is found out together, such as a score and a loss, in its order."""
        if name not in self._known:
            self._known[name] = list(find())
            self._file.parent.mkdir(parents=True, exist_ok=True)
            kept = {"fingerprint": self._fingerprint, "by_name": self._known}
            write_text_atomically(self._file, json.dumps(kept))
        return self._known[name]

    @contextmanager
    def until_judged(self) -> Iterator[None]:
        """Removes the file when the judgement is at its end, or has failed for good."""
        try:
            yield
        except (CandidateFailed, TrainingError):
            self.clear()
            raise
        self.clear()

    def clear(self) -> None:
        """Removes the file: the judgement is recorded elsewhere."""
        self._file.unlink(missing_ok=True)
