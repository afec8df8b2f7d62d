"""Progress for a person at a terminal: one bar with the time left, facts above it."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class RichNarrator:
    """Shows facts, and a bar where standard error is a terminal.

    Args:
        console: Where to write.
        has_notes: Whether steps of the work are told where it is no terminal as well.
    """

    def __init__(self, console: Console, *, has_notes: bool = False) -> None:
        """Prepare the bar without showing it."""
        self._console = console
        self._has_notes = has_notes or console.is_terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """Prints one fact; a bar on screen moves below it."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Prints one step of the work, to a terminal or where it is asked for."""
        if self._has_notes:
            self.say(text)

    def begin(self, task: str, total: float) -> None:
        """Shows a new bar; without a terminal nothing."""
        self.end()
        if not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task(task, total=total, detail="")
        self._progress.start()

    def advance(self, done: float, detail: str = "") -> None:
        """Moves the bar; an empty detail keeps the one before."""
        if self._progress is None or self._task is None:
            return
        if detail:
            self._progress.update(self._task, completed=done, detail=detail)
        else:
            self._progress.update(self._task, completed=done)

    def end(self) -> None:
        """Takes the bar away."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None
