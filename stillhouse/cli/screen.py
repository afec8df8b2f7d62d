"""The two streams: results go to standard output, everything else to standard error.

A table in a pipe or a file is as wide as it must be, so that a script or `grep` finds whole lines.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import typer
from rich.console import Console
from rich.table import Table

from stillhouse.cli.progress import RichNarrator
from stillhouse.errors import LimitError

out = Console()
"""Results, on standard output."""
err = Console(stderr=True)
"""Errors and warnings, on standard error."""
chat = Console(stderr=True)
"""Progress, facts and what to do next, on standard error; `--quiet` silences it."""

WIDE = 160
"""Columns of a table in a file or a pipe, where nothing folds it."""

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_OVER_LIMITS = 3
EXIT_INTERRUPTED = 130


UsageError = cast(type[Exception], typer.BadParameter.__base__)
"""Of the parser, whichever copy of click typer brings; told in `app.main`."""


class Stopped(typer.Exit):
    """Ctrl-C, with the word on how to go on, which was said."""

    def __init__(self, told: str) -> None:
        """Keeps the words, for scripts."""
        super().__init__(EXIT_INTERRUPTED)
        self.told = told


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of a command that ends with an error."""
    if isinstance(error, LimitError):
        return EXIT_OVER_LIMITS
    code = getattr(error, "exit_code", EXIT_ERROR)  # the parser's own errors know theirs
    return code if isinstance(code, int) else EXIT_ERROR


def narrator() -> RichNarrator:
    """Returns who tells progress; with `--verbose` every step is told in a pipe as well."""
    return RichNarrator(chat, has_notes=logging.getLogger("stillhouse").isEnabledFor(logging.INFO))


def print_line(text: str, console: Console = out) -> None:
    """Prints one line as it is: no markup, no colours, not folded."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Prints a table, folded in a terminal only."""
    fitting = out if out.is_terminal else Console(width=max(WIDE, out.width))
    fitting.print(table)


@contextmanager
def resumable(run: Path) -> Iterator[None]:
    """Turns Ctrl-C into a word on how to go on, and exit code 130."""
    quiet_libraries()
    with stoppable(
        f"Stopped. What was finished is kept in {run}; the same command again goes on there."
    ):
        yield


@contextmanager
def stoppable(told: str = "Stopped; nothing was written.") -> Iterator[None]:
    """Turns Ctrl-C into words of one's own and exit code 130.

    Args:
        told: What is left, and how to go on.
    """
    try:
        yield
    except KeyboardInterrupt:
        print_line(f"\n{told}", err)
        raise Stopped(told) from None


def quiet_libraries() -> None:
    """Takes the loading bars and reports of libraries off the screen; warnings stay."""
    from datasets.utils.logging import disable_progress_bar  # noqa: PLC0415  heavy import
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415  heavy import

    disable_progress_bar()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
