import logging
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer

from stillhouse import api
from stillhouse.cli import app as cli
from stillhouse.device.chips import known_chips
from stillhouse.errors import DataError
from stillhouse.recipe.plan import Plan


@pytest.mark.parametrize("command", ["search", "distill", "finetune", "evaluate", "report", "demo"])
def test_every_command_explains_itself(run_cli, command):
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    assert "Usage: stillhouse" in out


@pytest.mark.parametrize("command", ["search", "plan", "distill"])
def test_the_help_of_a_device_names_every_chip(command):
    options = typer.main.get_command(cli.app).commands[command].params
    (told,) = [option.help for option in options if option.name == "device"]
    assert f"({', '.join(known_chips())})" in told


def test_what_shows_the_help_loads_little():
    code = "import stillhouse.cli.app, sys; print({'torch', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_without_a_command_the_help_is_shown(run_cli):
    code, out, err = run_cli()
    assert code == 2
    assert "search" in out + err


@pytest.mark.parametrize(
    "arguments",
    [("serach",), ("search", "--lmit", "5"), ("evaluate",), ("search", "--candidates", "many")],
)
def test_wrong_words_are_named(run_cli, arguments):
    code, _, err = run_cli(*arguments)
    assert code == 2
    assert "Traceback" not in err
    assert "error: " in err


@pytest.mark.parametrize("error", [DataError("no [column] 'x'"), OSError(28, "No space left")])
def test_an_error_is_one_message_and_exit_code_1(run_cli, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("stillhouse.cli.settings.gather_settings", fail)
    code, out, err = run_cli("search")
    assert (code, out) == (1, "")
    assert err.strip() == f"error: {error}"


def test_what_is_our_own_mistake_is_not_hidden(run_cli, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("stillhouse.cli.settings.gather_settings", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("search")


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys):
    with pytest.raises(typer.Exit) as caught, cli.resumable(tmp_path / "run"):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert f"kept in {tmp_path / 'run'}; the same command again" in capsys.readouterr().err


def test_report_of_what_is_no_run(run_cli, tmp_path):
    code, _, err = run_cli("report", tmp_path / "nothing")
    assert code == 1
    assert "is no run directory" in err


def test_ctrl_c_while_the_program_still_loads_is_no_traceback(run_cli, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.cli.settings.gather_settings", stopped)
    code, out, err = run_cli("search")
    assert (code, out) == (130, "")
    assert err.strip() == "Stopped before the work began."


@pytest.fixture
def talking(monkeypatch):
    """A job that says facts, steps and warnings on its way."""

    def work(settings, narrator):
        narrator.say("a fact")
        narrator.note("a step")
        logging.getLogger("stillhouse.some.where").info("a message")
        logging.getLogger("stillhouse.some.where").warning("a warning")
        return Plan(phases=(), disk_mb={}, notes=("the result",))

    monkeypatch.setattr(api, "plan_job", work)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), {"a fact"}),
        (("--quiet",), set()),
        (("-q",), set()),
        (("--verbose",), {"a fact", "a step", "a message"}),
        (("-v",), {"a fact", "a step", "a message"}),
    ],
)
def test_how_much_is_told(run_cli, talking, caplog, options, told):
    code, out, err = run_cli("plan", *options)
    assert code == 0
    assert "the result" in out
    heard = {*err.splitlines(), *caplog.messages}
    assert heard & {"a fact", "a step", "a message"} == told
    assert "a warning" in heard
    assert not logging.getLogger("stillhouse").isEnabledFor(logging.INFO)  # as before


def test_the_version(run_cli):
    code, out, _ = run_cli("--version")
    assert (code, out) == (0, f"stillhouse {version('stillhouse')}\n")
