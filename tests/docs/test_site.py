"""The site of the documents builds without a warning, asks no network, and leaves nothing out."""

import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import stillhouse
from stillhouse import errors
from stillhouse.run.settings import RunSettings

REPOSITORY = Path(__file__).resolve().parents[2]
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(folder)],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder


class Loaded(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in LOADS and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get(LOADS[tag]) or "")


def test_no_page_loads_anything_from_the_network(site):
    for page in site.rglob("*.html"):
        parser = Loaded()
        parser.feed(page.read_text("utf-8"))
        assert not [one for one in parser.found if re.match(r"(\w+:)?//", one)], page


def test_every_setting_is_listed_with_its_default(site):
    page = (site / "settings.html").read_text("utf-8")
    for field in dataclasses.fields(RunSettings):
        if not dataclasses.is_dataclass(field.default_factory):
            assert f"<code>{field.name}</code>" in page
            continue
        for one in dataclasses.fields(field.default_factory):
            assert f"<code>{field.name}.{one.name}</code>" in page
    assert re.search(r"<code>distill\.temperature</code></td>\s*<td><code>1\.0</code>", page)


def test_every_public_name_has_its_reference(site):
    page = (site / "api.html").read_text("utf-8")
    for name in stillhouse.__all__:
        assert re.search(rf'id="stillhouse\.[\w.]*\b{name}"', page), name


def test_every_error_has_its_reference(site):
    page = (site / "api.html").read_text("utf-8")
    names = [
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and one.__module__ == errors.__name__
    ]
    assert len(names) > 8
    assert [name for name in names if f'id="stillhouse.errors.{name}"' not in page] == []


def test_pictures_stand_in_the_page_and_have_words_for_who_cannot_see_them(site):
    for page in (REPOSITORY / "docs" / "methods").glob("*.md"):
        drawn = page.read_text("utf-8").count(".svg)")
        built = (site / "methods" / f"{page.stem}.html").read_text("utf-8")
        assert len(re.findall(r'<svg role="img" aria-label="[^"]{40,}"', built)) == drawn


def test_what_is_said_to_tests_is_not_shown(site):
    for page in (site / "tutorials").glob("*.html"):
        assert "<!-- test:" not in page.read_text("utf-8")


def test_the_site_opens_from_disk_and_finds_words_without_a_network(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    asked, thrown = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: thrown.append(str(error)))
    page.goto((site / "index.html").as_uri())
    page.locator(".md-search__input").press_sequentially("hill climbing")  # it listens to keys
    found = page.locator(".md-search-result__link").first
    found.wait_for(state="attached")
    assert "add_strategy" in found.get_attribute("href")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert thrown == []
    page.close()
