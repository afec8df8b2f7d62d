"""Pages open from disk in a real browser, and whatever goes wrong fails the test."""

import shutil

import pytest

import stillhouse
from stillhouse.report import write_report
from stillhouse.report.comparison import compare
from stillhouse.report.comparison_page import write_comparison
from tests.unit.report.conftest import (  # noqa: F401  fixtures of run directories
    HOSTILE,
    chain_run,
    checked_run,
    describe,
    distill_run,
    family_run,
    full_run,
    interrupted_run,
    referenced_run,
    rewrite,
    weighed_run,
)

COMPARISON = "comparison.html"
PATIENCE_MS = 120_000  # of a busy machine; nothing takes a hundredth of it on an idle one
KINDS = (
    "chain_run", "checked_run", "distill_run", "family_run", "interrupted_run", "weighed_run",
    "compared_runs",
)  # fmt: skip


class Watched:
    """A page of the browser with everything that it asked for and complained about."""

    def __init__(self, page):
        self.page, self.requests, self.complaints = page, [], []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._refuse)
        page.route("**/*", self._answer)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _refuse(self, dialog):
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _answer(self, route):
        self.requests.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()


@pytest.fixture
def page(browser):
    """An empty page, 1280 pixels wide; errors, warnings, dialogs and requests fail the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(PATIENCE_MS)
    watched = Watched(page)
    yield page
    page.close()
    assert watched.complaints == []
    own = ("/report.html", f"/{COMPARISON}")
    assert all(url.endswith(own) or url == "about:blank" for url in watched.requests)


@pytest.fixture
def show(page):
    """Opens the report of a run directory, or a page as it is, from disk, once a test."""

    def opened(run):
        page.goto((run if run.is_file() else write_report(run)).as_uri())
        return page

    return opened


@pytest.fixture(params=KINDS)
def any_run(request):
    """Run directories of every recipe that leaves something of its own, and a comparison."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def compare_as(request, tmp_path):
    """Writes a comparison of a search under a name with another, without one."""

    def written(name):
        named = request.getfixturevalue("full_run")
        other = tmp_path / "other"
        shutil.copytree(named, other)
        (other / "settings.yaml").write_text("search:\n  strategy: random\n", encoding="utf-8")
        return write_comparison(compare([f"{name}={named}", str(other)]), tmp_path / COMPARISON)

    return written


@pytest.fixture
def compared_runs(compare_as):
    """The page of a comparison, one method of which has a hostile name."""
    return compare_as(HOSTILE)


@pytest.fixture(scope="session")
def real_run(weather_teacher_folder, weather_csv, weather_table, tmp_path_factory):
    """A search that was made, with students, in a directory that keeps its report."""
    found = stillhouse.search(
        teacher=str(weather_teacher_folder),
        task=str(weather_csv),
        limit={"latency_ms": 1.0},
        candidates=4,
        settings={
            "device": {"kind": "table", "table": str(weather_table)},
            "search": {"epochs": 1.0},
            "distill": {"precision": "float32"},
            "final": {"students": 2, "epochs": 1.0},
        },
        run=tmp_path_factory.mktemp("runs") / "real",
    )
    return found.report.parent
