"""The program: its commands under their headings, its errors, its exit codes."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer

from stillhouse.cli.answer import JSON
from stillhouse.cli.attack import attack
from stillhouse.cli.chains import select, train
from stillhouse.cli.compare import compare
from stillhouse.cli.cross_view import cross_view
from stillhouse.cli.devices import devices
from stillhouse.cli.distill import distill
from stillhouse.cli.doctor import doctor
from stillhouse.cli.evaluate import evaluate
from stillhouse.cli.export import export
from stillhouse.cli.finetune import finetune
from stillhouse.cli.lesson import teach
from stillhouse.cli.measure import measure
from stillhouse.cli.plain import as_json, plain_error
from stillhouse.cli.profile import profile
from stillhouse.cli.quantise import quantise
from stillhouse.cli.report import report
from stillhouse.cli.screen import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UsageError,
    err,
    exit_code_of,
    out,
    print_line,
    quiet_libraries,
    resumable,
)
from stillhouse.cli.search import demo, plan, search
from stillhouse.cli.search_options import gather_settings
from stillhouse.cli.watch import watch
from stillhouse.errors import StillhouseError, did_you_mean

__all__ = [
    "EXIT_ERROR",
    "EXIT_INTERRUPTED",
    "app",
    "err",
    "gather_settings",
    "main",
    "out",
    "quiet_libraries",
    "resumable",
]

SEARCHING = "Search and distil"
USING = "Use and judge"
LOOKING = "Measure and look"
SETTING_UP = "Set up"

EPILOG = (
    "Start with [bold]stillhouse demo[/], or with [bold]stillhouse doctor[/] to see what is "
    "missing here. Every command has examples: [bold]stillhouse search --help[/].",
    "Exit codes: 0 done; 1 an error that you can mend, which is told; 2 a command line that is not "
    "understood; 3 nothing is within the limits; 130 stopped by Ctrl-C, and the same command "
    "goes on.",
    "Results go to standard output, everything else to standard error. With --json standard output "
    "holds one JSON document, of an error as well.",
)

app = typer.Typer(
    name="stillhouse",
    help="Search student architectures of a teacher and distil the best that a limit allows.",
    epilog="\n\n".join(EPILOG),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    rich_markup_mode="rich",
)
for _panel, _commands in {
    SEARCHING: (search, plan, distill, select, train, quantise, cross_view, demo),
    USING: (finetune, evaluate, export, attack),
    LOOKING: (measure, profile, watch, report, compare),
    SETTING_UP: (devices, doctor),
}.items():
    for _command in _commands:
        teach(app, _command, panel=_panel)


def _tell_version(asked: bool) -> None:
    if asked:
        print_line(f"stillhouse {version('stillhouse')}")
        raise typer.Exit


@app.callback()
def about(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_tell_version
        ),
    ] = False,
) -> None:
    """Takes what is asked of the program as a whole."""


def main() -> NoReturn:
    """Runs a command and ends the program; an error of a user is one clear message."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        code = app(standalone_mode=False)
    except UsageError as error:
        _tell_usage(error)
        raise SystemExit(EXIT_USAGE) from None
    except typer.Abort:
        raise SystemExit(EXIT_ERROR) from None
    except (StillhouseError, OSError) as error:
        err.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
        raise SystemExit(exit_code_of(error)) from None
    raise SystemExit(code or 0)


def _tell_usage(error: Any) -> None:
    """Says what of a command line is not understood, and how it is spelt."""
    context = error.ctx
    if type(error).__name__ == "NoArgsIsHelpError":  # which was printed
        return
    told = _usage_told(error)
    if context is not None:
        print_line(context.get_usage(), err)
        print_line(f"Try '{context.command_path} --help' for help.", err)
    err.print(f"error: {told}", markup=False, highlight=False, soft_wrap=True, style="red")
    if JSON in sys.argv[1:]:
        commands = typer.main.get_group(app).commands
        within = context is not None and context.parent
        name = context.info_name if within else next(filter(commands.get, sys.argv[1:]), "")
        sys.stdout.write(as_json(name, plain_error("UsageError", told, EXIT_USAGE)) + "\n")


def _usage_told(error: Any) -> str:
    """Returns the message of the parser; of an unknown option also what was meant by it."""
    option = getattr(error, "option_name", None)
    if type(error).__name__ != "NoSuchOption" or error.ctx is None or option is None:
        return str(error.format_message())
    word, path = option.lstrip("-"), error.ctx.command_path
    arguments = [one for one in error.ctx.command.params if one.param_type_name == "argument"]
    meant = next((one for one in arguments if _singular(one.name) == _singular(word)), None)
    if meant is not None:
        hint = f": give it without a name, as {path} {meant.metavar or meant.name.upper()}"
    elif any(option in one.opts for command in _commands_in(error.ctx) for one in command.params):
        hint = f" here; it stands after the command: {path} COMMAND {option}"
    else:
        known = [name for one in error.ctx.command.params for name in (*one.opts, "--help")]
        words = [name.lstrip("-") for name in known if name.startswith("--")]
        hint = did_you_mean(word, words, show=lambda name: f"--{name}")
    return f"there is no option {option}{hint}"


def _singular(name: str) -> str:
    return name.replace("-", "_").removesuffix("s")


def _commands_in(context: Any) -> list[Any]:
    """The commands of the program, before one of them is given; none within one."""
    return list(getattr(context.command, "commands", {}).values())
