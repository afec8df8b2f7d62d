"""The tutorials do what they say, at smaller sizes: each page from top to bottom."""

import contextlib
import importlib.util
import io
import re
import shutil
import sys
from pathlib import Path

import pytest

from stillhouse.model import anatomy

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path for path in (REPOSITORY / "docs" / "tutorials").glob("*.md") if path.stem != "index"
)
spec = importlib.util.spec_from_file_location(
    "tutorial_steps", Path(__file__).with_name("tutorial_steps.py")
)
steps_of = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steps_of)


@pytest.fixture
def folder(
    weather_teacher_folder, weather_encoder_folder, weather_csv, weather_text, tmp_path, monkeypatch
):
    """What a reader has: a teacher, an encoder, a table and a text, all tiny."""
    shutil.copytree(weather_teacher_folder, tmp_path / "my-teacher")
    shutil.copytree(weather_encoder_folder, tmp_path / "my-encoder")
    shutil.copyfile(weather_csv, tmp_path / "reviews.csv")
    shutil.copyfile(weather_text, tmp_path / "wiki.txt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # a page may import what it had the reader write
    monkeypatch.setattr(anatomy, "FAMILIES", dict(anatomy.FAMILIES))  # and add to these
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def run_block(step, run_cli, names):
    """Runs one block; gives what it printed, `None` of a block that only shows something."""
    if step.title is not None:
        Path(step.title).write_text(step.content, encoding="utf-8")
    if step.language == "python" and step.title is None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(step.content, "block", "exec"), names)
        return printed.getvalue()
    if step.language in steps_of.SHELLS:
        return "".join(
            run_command(words, step, run_cli) for words in steps_of.commands(step.content)
        )
    return None


def run_command(words, step, run_cli):
    assert words[0] == "stillhouse", f"a tutorial runs stillhouse, not {words[0]}"
    code, out, err = run_cli(*words[1:], *step.options)
    assert bool(code) == step.fails, f"{' '.join(words)} ended with {code}:\n{out}\n{err}"
    return out + err


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(page, folder, run_cli):
    output, names = "", {"__name__": "tutorial"}
    for step in steps_of.steps(page.read_text("utf-8")):
        if step.language == "text":
            missing = steps_of.unseen(step.content, output)
            assert not missing, f"not seen: {missing}\n\nbut:\n{output}"
            continue
        printed = run_block(step, run_cli, names)
        output = output if printed is None else printed


def test_there_are_tutorials_and_each_shows_something_to_run_and_to_see():
    assert len(PAGES) >= 7
    for page in PAGES:
        languages = {step.language for step in steps_of.steps(page.read_text("utf-8"))}
        assert languages & {"sh", "python"}, page.name
        assert "text" in languages, page.name


def test_every_tutorial_is_on_the_page_that_lists_them():
    listed = (REPOSITORY / "docs" / "tutorials" / "index.md").read_text("utf-8")
    assert set(re.findall(r"\((\w+\.md)\)", listed)) == {page.name for page in PAGES}


def test_numbers_and_spaces_may_differ_from_the_page_and_words_may_not():
    page = "Teacher 2 × 32: … 0.91\n…\n"
    assert steps_of.unseen(page, "Teacher  4 × 256: accuracy 1.0 on 12") == []
    assert steps_of.unseen(page, "Student 4 × 256: accuracy 1.0") == ["Teacher 2 × 32: … 0.91"]


def test_what_a_comment_says_is_done():
    text = "<!-- test: `40` becomes `2` add --seed 1 -->\n```sh\nstillhouse demo 40\n```\n"
    (step,) = steps_of.steps(text)
    assert step.content == "stillhouse demo 2\n"
    assert step.options == ("--seed", "1")
    assert list(steps_of.steps("<!-- test: skip -->\n```sh\nrm x\n```\n")) == []
