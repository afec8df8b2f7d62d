"""What `--help` teaches: text and examples of a command, both from its docstring.

The section `Examples:` of a docstring holds captions, and below each, further in, the words of one
command. They are shown as commands, broken where a shell continues a line, so that they can be
pasted from a terminal of 80 columns.
"""

from __future__ import annotations

import inspect
import shlex
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from typer.core import TyperCommand

if TYPE_CHECKING:
    import typer

SECTION = "Examples:"
WIDTH = 74
"""Characters of a line of an example."""
_STEP = 4
"""Spaces that the caption of an example is further in than the section, and its command again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One command that is shown.

    Attributes:
        caption: What it is for.
        words: The command, split as a shell does.
    """

    caption: str
    words: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """The command in lines that a shell joins; an option stays beside its value."""
        pieces: list[str] = []
        for word in map(shlex.quote, self.words):
            is_value = bool(pieces) and pieces[-1].startswith("--") and " " not in pieces[-1]
            if is_value and not word.startswith("--"):
                pieces[-1] += f" {word}"
            else:
                pieces.append(word)
        lines = [pieces[0]]
        for piece in pieces[1:]:
            if len(lines[-1]) + len(piece) + len("  \\") <= WIDTH:
                lines[-1] += f" {piece}"
            else:
                lines.append(f"    {piece}")
        return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A docstring, read.

    Attributes:
        text: What the command does, what it writes, and what to do next.
        examples: How it is typed.
    """

    text: str
    examples: tuple[Example, ...]


def read_lesson(function: Callable[..., Any]) -> Lesson:
    """Reads what the docstring of a command teaches."""
    text, _, section = (inspect.getdoc(function) or "").partition(f"\n{SECTION}\n")
    captions: list[tuple[str, list[str]]] = []
    for line in textwrap.dedent(section).splitlines():
        if line and not line.startswith(" " * _STEP):
            captions.append((line, []))
        elif line:
            captions[-1][1].extend(shlex.split(line))
    paragraphs = (" ".join(one.split()) for one in text.split("\n\n"))
    examples = tuple(Example(caption=one, words=tuple(words)) for one, words in captions)
    return Lesson(text="\n\n".join(paragraphs), examples=examples)


class TaughtCommand(TyperCommand):
    """A command whose help ends with examples."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Shows the help as typer does, and the examples below."""
        super().format_help(ctx, formatter)
        console = Console()
        console.print(" Examples", style="bold")
        for example in read_lesson(self.callback).examples if self.callback is not None else ():
            console.print(f"\n  {example.caption}:", style="dim", markup=False, soft_wrap=True)
            for line in example.lines:
                console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)


def teach(app: typer.Typer, command: Callable[..., None], *, panel: str) -> None:
    """Registers a command under its own name, with what its docstring teaches.

    Args:
        app: The program.
        command: A function whose signature typer reads.
        panel: Under which heading of `stillhouse --help` it is listed.
    """
    register = app.command(cls=TaughtCommand, help=read_lesson(command).text, rich_help_panel=panel)
    register(command)
