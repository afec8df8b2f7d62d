import pytest
import typer

from stillhouse.cli.app import app
from stillhouse.cli.lesson import Example, read_lesson

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def taught():
    """Do a thing
    in one sentence.

    Writes
    this.

    Examples:
        The first, in
            stillhouse thing --text 'two words' --much
            --run there
        The second
            stillhouse thing
    """


def test_a_docstring_is_a_text_and_examples():
    lesson = read_lesson(taught)
    assert lesson.text == "Do a thing in one sentence.\n\nWrites this."
    first, second = lesson.examples
    assert (first.caption, second.caption) == ("The first, in", "The second")
    assert first.words == (
        *("stillhouse", "thing", "--text", "two words", "--much", "--run", "there"),
    )
    assert second.words == ("stillhouse", "thing")


def test_a_long_command_is_broken_where_a_shell_continues_it():
    words = ("stillhouse", "search", "--teacher", "t" * 30, "--task", "k" * 30, "--text", "a b")
    lines = Example(caption="", words=words).lines
    assert lines == [
        f"stillhouse search --teacher {'t' * 30} \\",
        f"    --task {'k' * 30} --text 'a b'",
    ]


def test_a_function_without_examples_has_none():
    def plain():
        """Do it."""

    assert read_lesson(plain).examples == ()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_a_command_shows_its_examples_as_they_are_typed(run_cli, command):
    code, out, _ = run_cli(command, "--help")
    assert code == 0
    [first, *_] = read_lesson(COMMANDS[command].callback).examples
    assert "\n".join(f"    {line}" for line in first.lines) in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_summary_fits_one_line_of_the_list(command, run_cli):
    summary = COMMANDS[command].help.partition("\n\n")[0]
    _, out, _ = run_cli("--help")
    assert f"{summary} " in out


def test_every_command_is_under_a_heading(run_cli):
    _, out, _ = run_cli("--help")
    for heading in ("Search and distil", "Use and judge", "Measure and look", "Set up"):
        assert f"─ {heading} ─" in out
    assert "─ Commands ─" not in out
