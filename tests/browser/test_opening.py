"""Pages open from disk at every width, alone, and are read with eyes or without."""

import json
from itertools import pairwise

import pytest

WIDTHS = (390, 768, 1280, 1920)
SERIOUS = ("serious", "critical")
TOO_WIDE = """() => [...document.querySelectorAll('body *')]
    .filter(one => document.documentElement.scrollWidth > innerWidth
        && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 120))"""
HEADINGS = (
    "() => [...document.querySelectorAll('h1, h2, h3, h4')].map(one => Number(one.tagName[1]))"
)
NAMELESS_TABLES = """() => [...document.querySelectorAll('table')]
    .filter(one => !one.caption || !one.caption.textContent.trim()
        || [...one.querySelectorAll('th')].some(head => !head.scope))
    .map(one => one.outerHTML.slice(0, 200))"""


@pytest.fixture
def findings(page):
    """What axe finds to be a serious hindrance on the page as it stands."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def found():
        violations = axe.run(page).response["violations"]
        return [
            (one["id"], [node["html"][:150] for node in one["nodes"][:3]])
            for one in violations
            if one["impact"] in SERIOUS
        ]

    return found


def open_details(page):
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")


def test_nothing_is_wider_than_the_window(any_run, show, page):
    show(any_run)
    open_details(page)

    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)  # plots are drawn anew in the next frame
        assert page.evaluate(TOO_WIDE) == []


def test_no_hindrance_is_found_in_either_scheme(any_run, show, page, findings):
    show(any_run)
    open_details(page)

    for scheme, width in (("light", 390), ("dark", 1280)):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert findings() == []


def test_tables_and_headings_can_be_told_apart_without_seeing_them(any_run, show, page):
    show(any_run)
    levels = page.evaluate(HEADINGS)

    assert page.evaluate(NAMELESS_TABLES) == []
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_keyboard_skips_to_the_results_and_opens_the_trials(checked_run, show, page):
    show(checked_run)

    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    assert skip.evaluate("one => one === document.activeElement")
    assert skip.bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    trials = page.locator("summary", has_text="trials")
    trials.first.focus()
    assert trials.first.evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.locator("details[open] table caption", has_text="Trials").count() == 1


def test_sections_are_listed_and_lead_to_their_places(checked_run, show, page):
    show(checked_run)
    links = page.locator("#sections a")
    heads = page.locator("main h2").all_inner_texts()

    assert links.all_inner_texts() == heads
    links.filter(has_text="Cost").click()
    assert page.locator("h2#cost").evaluate("one => one.getBoundingClientRect().top") < 900


@pytest.mark.slow
def test_the_report_of_a_real_search_opens_alone(real_run, show, page, findings):
    show(real_run)
    page.locator("#front .main-svg").first.wait_for()
    first = json.loads((real_run / "students" / "1" / "metrics.json").read_text())

    assert page.locator("table .rank").first.inner_text() == "1"
    assert f"{first['quality']:.3f}" in page.locator("main").inner_text()
    assert findings() == []
