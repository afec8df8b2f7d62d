"""What the documents tell a reader to type exists: commands, options, settings, make targets."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from stillhouse import api
from stillhouse.cli.app import app
from stillhouse.cli.lesson import read_lesson
from stillhouse.cli.settings import gather_settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "RESULTS.md")]
DOCUMENTS += sorted((REPOSITORY / "docs").rglob("*.md"))
SHELLS = ("sh", "bash", "console")
COMMANDS = typer.main.get_command(app)


def blocks(document, languages):
    """The fenced blocks of a document in one of the languages."""
    text = document.read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [content for language, content in fenced if language in languages]


def shell_lines(document):
    """The commands in a document: prompts and comments taken away, continued lines joined."""
    for block in blocks(document, SHELLS):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            ends = [place for place, word in enumerate(words) if word in ("|", ">")]
            if words:
                yield words[: ends[0]] if ends else words


def shown(first):
    """Every command in the documents that begins with a word, named by document and text."""
    return [
        pytest.param(words[1:], id=f"{document.name}: {' '.join(words)}")
        for document in DOCUMENTS
        for words in shell_lines(document)
        if words[0].removeprefix(".venv/bin/") == first and words[1:2] != ["--install-completion"]
    ]


class Reached(Exception):  # noqa: N818  no error: the job would begin here
    """Raised in place of the work."""


@pytest.fixture
def without_work(monkeypatch):
    def reached(*_, **__):
        raise Reached

    monkeypatch.chdir(REPOSITORY)
    jobs = (
        "run_search_job",
        "run_select_job",
        "run_train_job",
        "run_distill_job",
        "run_finetune_job",
        "plan_job",
        "run_profile_job",
        "run_quantise_job",
        "run_cross_view_job",
        "run_attack_job",
        "evaluate",
        "export_onnx",
        "measure",
        "compare_runs",
    )
    for job in jobs:
        monkeypatch.setattr(api, job, reached)


def parse(arguments):
    name, *options = arguments
    with COMMANDS.commands[name].make_context(name, options):
        pass


@pytest.mark.parametrize("arguments", shown("stillhouse"))
def test_a_command_that_is_shown_is_valid(arguments, run_cli, without_work):
    parse(arguments)
    without_settings = ("report", "devices", "watch", "doctor")  # nothing of them can be wrong
    if arguments[0] not in without_settings:
        with pytest.raises(Reached):
            run_cli(*arguments)


def test_the_readme_shows_every_main_command():
    told = {words.values[0][0] for words in shown("stillhouse") if "README" in words.id}
    assert told >= {
        "search",
        "select",
        "train",
        "distill",
        "finetune",
        "evaluate",
        "export",
        "report",
        "devices",
        "measure",
        "profile",
    }


@pytest.mark.parametrize("arguments", shown("make"))
def test_a_make_target_that_is_shown_exists(arguments):
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE)
    assert [word for word in arguments if "=" not in word and word not in targets] == []


@pytest.mark.parametrize("command", sorted(COMMANDS.commands))
def test_every_command_has_examples_and_they_parse(command):
    examples = read_lesson(COMMANDS.commands[command].callback).examples
    assert examples
    for example in examples:
        program, name, *options = example.words
        assert (program, name) == ("stillhouse", command)
        parse([name, *options])


@pytest.mark.parametrize("path", sorted((REPOSITORY / "settings").glob("*.yaml")), ids=str)
def test_a_shipped_settings_file_is_valid(path):
    settings = gather_settings(path, {})
    assert all(limits.given() for limits in settings.limits or (settings.limit,))


def test_the_settings_file_of_the_readme_is_shipped():
    assert (REPOSITORY / "settings" / "sst2.yaml").exists()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_a_document_is_python(document):
    for block in blocks(document, ("python",)):
        ast.parse(block)


def test_the_readme_imports_what_exists():
    for block in blocks(REPOSITORY / "README.md", ("python",)):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names)
