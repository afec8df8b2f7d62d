"""Exit codes of real processes; the work itself is replaced, so that nothing heavy is loaded."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "command_line.md"
PROGRAM = """
import os, signal, sys, time, types
from stillhouse import errors

# Tests that run in the background ignore Ctrl-C, which their children would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

def write_report(run):
    what = os.environ["WHAT"]
    if what == "signal":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    if what != "done":
        raise getattr(errors, what)("as it was told")
    return run / "report.html"

sys.modules["stillhouse.report"] = types.SimpleNamespace(write_report=write_report)
from stillhouse.cli import main
main()
"""


def ended(*arguments, what="done", **environment):
    """Exit code, standard output and standard error of a process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"WHAT": what, **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run_directory(tmp_path):
    (tmp_path / "settings.yaml").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("what", "code"),
    [("done", 0), ("SettingsError", 1), ("DataError", 1), ("LimitError", 3), ("signal", 130)],
)
def test_a_job_ends_with_its_code(run_directory, what, code):
    ended_with, out, err = ended("report", run_directory, what=what)
    assert ended_with == code
    assert "Traceback" not in err
    if what == "done":
        assert (out, err) == (f"{run_directory / 'report.html'}\n", "")
    else:
        assert out == ""
    if what == "signal":
        assert "Stopped" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("report", "--help"), 0),
        ((), 2),
        (("reprot", "x"), 2),
        (("report",), 2),
        (("report", "x", "--lmit", "1"), 2),
        (("report", "x"), 1),
        (("search", "--candidates", "many"), 2),
    ],
)
def test_words_that_are_and_are_not_understood(arguments, code):
    ended_with, _, err = ended(*arguments)
    assert ended_with == code
    assert "Traceback" not in err


def test_a_signal_with_json_is_one_document(run_directory):
    code, out, err = ended("report", run_directory, "--json", what="signal")
    assert (code, json.loads(out)["error"]["kind"]) == (130, "Stopped")
    assert "Stopped" in err


def test_a_reader_that_goes_away_is_no_traceback():
    command = f"{sys.executable} -c '{PROGRAM}' search --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_codes_are_in_the_help_and_on_the_page():
    _, told, _ = ended("--help")
    page = set(re.findall(r"^\| (\d+) \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert page == {"0", "1", "2", "3", "130"}
    _, _, codes = " ".join(told.split()).partition("Exit codes: ")
    assert page == set(re.findall(r"(?:^|; )(\d+) ", codes))


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_the_help_has_no_colours_in_a_pipe_and_fits(width):
    _, told, _ = ended("report", "--help", COLUMNS=width)
    assert "\x1b" not in told
    assert max(map(len, told.splitlines())) <= int(width)
