"""What a tutorial shows, step by step: its commands, its Python, its files, what it expects to see.

A comment above a block says what a test does otherwise, which readers of the site do not see:
`<!-- test: skip -->`, `<!-- test: fails -->`, `<!-- test: add OPTIONS -->` to every command of the
block, and ``<!-- test: `THIS` becomes `THAT` -->``, for smaller sizes.
"""

import re
import shlex
from dataclasses import dataclass

FENCE = re.compile(
    r"^(?:<!-- test: (?P<said>[^\n]*?) -->\n)?```(?P<language>\w+)(?P<info>[^\n]*)\n"
    r"(?P<content>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
SHELLS = ("sh", "console")
CODES = {"text": "expected", "python": "python", "sh": "shell", "console": "shell"}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One fenced block.

    Attributes:
        language: Of the fence.
        title: File that the block is, if any.
        content: With the test's replacements.
        options: What the test adds to every command.
        fails: Whether its commands are to be refused.
    """

    language: str
    title: str | None
    content: str
    options: tuple[str, ...] = ()
    fails: bool = False


def steps(text):
    """Yields the blocks of a page that a test runs, in their order."""
    for found in FENCE.finditer(text):
        said = found["said"] or ""
        if said == "skip":
            continue
        content = found["content"]
        for this, that in re.findall(r"`([^`]*)` becomes `([^`]*)`", said):
            assert this in content, f"{this!r} is not in the block:\n{content}"
            content = content.replace(this, that)
        title = re.search(r'title="([^"]+)"', found["info"])
        added = re.search(r"\badd (.*)", said)
        yield Step(
            language=found["language"],
            title=title[1] if title else None,
            content=content,
            options=tuple(shlex.split(added[1])) if added else (),
            fails="fails" in said.split(),
        )


def commands(block):
    """Yields the words of each command: comments taken away, continued lines joined."""
    for line in block.replace("\\\n", " ").splitlines():
        if words := shlex.split(line.removeprefix("$ "), comments=True):
            yield words


def shape(line):
    """A line as it is compared: numbers and spaces are not told apart."""
    return " ".join(NUMBER.sub("#", line).split())


def unseen(expected, output):
    """The expected lines that are in no line of the output; an ellipsis stands for anything."""
    seen = [shape(line) for line in output.splitlines()]

    def is_seen(line):
        pattern = ".*".join(map(re.escape, shape(line).split("…")))
        return any(re.search(pattern, one) for one in seen)

    return [line for line in expected.splitlines() if line.strip() and not is_seen(line)]
