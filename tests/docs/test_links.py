"""Every link between the documents leads somewhere, and the tree in the README is the tree."""

import importlib.util
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
OUTWARD = re.compile(r"\[([^\]]*)\]\((\w+:[^)]*)\)")


def links(document):
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.M | re.S)
    return [link for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]


@cache
def with_settings(text):
    """The page of all settings, whose headings are written from the code."""
    spec = importlib.util.spec_from_file_location(
        "site_hooks", REPOSITORY / "docs" / "site_hooks.py"
    )
    site_hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site_hooks)
    return site_hooks.with_settings(text)


def anchors(document):
    """The names that GitHub gives to headings."""
    text = document.read_text("utf-8")
    if document.name == "settings.md":
        text = with_settings(text)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


RELATIVE = [
    pytest.param(document, link, id=f"{document.name}: {link}")
    for document in DOCUMENTS
    for link in links(document)
]


@pytest.mark.parametrize(("document", "link"), RELATIVE)
def test_a_link_leads_somewhere(document, link):
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    assert target.exists(), f"{document.name} links to {path}, which does not exist"
    assert target.is_relative_to(REPOSITORY)
    if anchor:
        assert anchor in anchors(target)


def test_there_are_links():
    assert len(RELATIVE) >= 100


def outward():
    for document in DOCUMENTS:
        for text, link in OUTWARD.findall(document.read_text("utf-8")):
            yield pytest.param(text, link, id=f"{document.name}: {link}")


@pytest.mark.parametrize(("text", "link"), list(outward()))
def test_an_outward_link_is_whole_and_names_what_it_leads_to(text, link):
    parts = urlsplit(link)
    assert parts.scheme == "https"
    assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc)
    if parts.netloc == "arxiv.org":
        number = re.fullmatch(r"/abs/(\d{4}\.\d{4,5})", parts.path)[1]
        assert text == f"arXiv {number}"


PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_every_page_is_linked_to_from_another():
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in links(document)
    }
    alone = {page.relative_to(REPOSITORY).as_posix() for page in PAGES if page not in linked}
    assert alone <= {"README.md", "docs/index.md"}


def test_every_folder_of_the_tree_exists_and_every_room_is_in_it():
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    tree = re.search(r"^```\nstillhouse/\n(.*?)^```", readme, flags=re.M | re.S).group(1)
    rooms = re.findall(r"^  (\S+)", tree, flags=re.M)
    beside = re.findall(r"^(\w+/)", tree, flags=re.M)
    for name in rooms:
        assert (REPOSITORY / "stillhouse" / name).exists(), name
    for name in beside:
        assert (REPOSITORY / name).is_dir(), name
    packages = {path.parent.name for path in (REPOSITORY / "stillhouse").glob("*/__init__.py")}
    assert {room.rstrip("/") for room in rooms if room.endswith("/")} == packages


@pytest.mark.parametrize(
    "room", sorted((REPOSITORY / "stillhouse").glob("*/__init__.py")), ids=lambda p: p.parent.name
)
def test_every_room_says_what_it_may_import(room):
    docstring = room.read_text("utf-8").split('"""')[1]
    assert re.search(r"[Mm]ay import|needs", docstring)
