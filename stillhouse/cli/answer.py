"""How a command answers: tables for people, or one JSON document for scripts.

`answers` gives a command the options --json, --quiet and --verbose and does what they say, so that
no command prints by itself and all of them keep standard output for the answer alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import IO, Annotated, Any, get_type_hints

import typer

from stillhouse.cli.plain import as_json, plain_error
from stillhouse.cli.screen import (
    Stopped,
    UsageError,
    chat,
    err,
    exit_code_of,
    print_line,
    stoppable,
)

JSON = "--json"
_PANEL = "Output"

JsonOption = Annotated[
    bool,
    typer.Option(
        JSON,
        help="Print one JSON document on standard output instead of tables, for scripts.",
        rich_help_panel=_PANEL,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Only the result, warnings and errors; no progress.",
        rich_help_panel=_PANEL,
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Tell every step and log messages, in a pipe as well.",
        rich_help_panel=_PANEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command found.

    Attributes:
        told: For scripts; keys carry their units.
        show: Prints it for people.
        done: What is where, and what to do next; on standard error.
        exit_code: Of the program.
    """

    told: Mapping[str, Any]
    show: Callable[[], None]
    done: str = ""
    exit_code: int = 0


class Unfinished(Exception):  # noqa: N818  says what happened
    """A command was stopped on its way, but has an answer so far.

    Args:
        answer: What is known; its exit code is the program's.
        told: Why it ends here.
    """

    def __init__(self, answer: Answer, told: str) -> None:
        """Keeps both."""
        super().__init__(told)
        self.answer = answer
        self.told = told


def answers(command: Callable[..., Answer | None]) -> Callable[..., None]:
    """Makes a command of a function that returns an answer, or nothing in a worker process."""
    own = list(parameters_of(command))

    @wraps(command)
    def wrapper(
        *words: Any, as_json: bool = False, quiet: bool = False, verbose: bool = False, **given: Any
    ) -> None:
        def work() -> Answer | None:
            with stoppable("Stopped before the work began."):  # which has words of its own
                return command(*words, **given)

        with _talking(quiet=quiet, verbose=verbose):
            if as_json:
                _answer_in_json(command.__name__.replace("_", "-"), work)
            else:
                _answer_in_words(work)

    options = {"as_json": JsonOption, "quiet": QuietOption, "verbose": VerboseOption}
    parameters = own + [
        Parameter(name, Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in options.items()
    ]
    give_signature(wrapper, parameters)
    return wrapper


def give_signature(wrapper: Callable[..., object], parameters: list[Parameter]) -> None:
    """Makes typer see these parameters, which it reads from signature and annotations."""
    vars(wrapper)["__signature__"] = Signature(parameters)
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}


def parameters_of(function: Callable[..., object]) -> list[Parameter]:
    """Parameters with their annotations evaluated, which typer does for plain functions only."""
    given = signature(function)
    if "__signature__" in vars(function):  # was evaluated before
        return list(given.parameters.values())
    names = {"RunSettings": object, "Answer": object}
    hints = get_type_hints(function, localns=names, include_extras=True)
    return [
        parameter.replace(annotation=hints[name]) for name, parameter in given.parameters.items()
    ]


@contextmanager
def _talking(*, quiet: bool, verbose: bool) -> Iterator[None]:
    logger = logging.getLogger("stillhouse")
    before = chat.quiet, logger.level
    chat.quiet = quiet
    if verbose:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        chat.quiet = before[0]
        logger.setLevel(before[1])


def _answer_in_words(work: Callable[[], Answer | None]) -> None:
    try:
        answer = work()
    except Unfinished as stop:
        stop.answer.show()
        print_line(f"\n{stop.told}", err)
        raise typer.Exit(stop.answer.exit_code) from None
    if answer is None:
        return
    answer.show()
    if answer.done:
        print_line(f"\nDone. {answer.done}", chat)
    _end(answer)


def _answer_in_json(command: str, work: Callable[[], Answer | None]) -> None:
    """Prints one document and nothing else on standard output, of errors as well."""
    stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            answer = work()
    except Unfinished as stop:
        code = stop.answer.exit_code
        told = {**stop.answer.told, **plain_error("Stopped", stop.told, code)}
        _write(command, told, stdout)
        print_line(f"\n{stop.told}", err)
        raise typer.Exit(code) from None
    except Stopped as stop:
        _write(command, plain_error("Stopped", stop.told, stop.exit_code), stdout)
        raise
    except (typer.Exit, UsageError):
        raise
    except Exception as error:
        told = plain_error(type(error).__name__, str(error), exit_code_of(error))
        _write(command, told, stdout)
        raise
    if answer is not None:
        _write(command, answer.told, stdout)
        _end(answer)


def _write(command: str, told: Mapping[str, Any], stream: IO[str]) -> None:
    stream.write(as_json(command, told) + "\n")
    stream.flush()


def _end(answer: Answer) -> None:
    if answer.exit_code:
        raise typer.Exit(answer.exit_code)
