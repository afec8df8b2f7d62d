"""Plots answer the mouse, the choosers, the system's colours and the printer."""

import json

import pytest

IS_PAPER = """color => getComputedStyle(document.querySelector("#front .main-svg"))
    .backgroundColor === color"""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
ON_PAPER = """() => { window.addEventListener('beforeprint', () => { window.onPaper = {
    closed: document.querySelectorAll('details:not([open])').length,
    paper: getComputedStyle(document.querySelector('#front .main-svg')).backgroundColor,
    drawn: [...document.querySelectorAll('.plot')].map(one => one._fullLayout?.width),
}; }); }"""
AXES = """() => ["xaxis", "yaxis"].map(
    axis => document.querySelector("#front").layout[axis].title.text)"""


@pytest.fixture
def shown(show, page):
    """Opens a report and waits for its front."""

    def opened(run):
        show(run)
        page.locator("#front .main-svg").first.wait_for()
        return page

    return opened


def hover(page, trace):
    """The text that appears over the first mark of a trace of the front."""
    marks = page.locator("#front .scatterlayer .trace").nth(trace).locator(".points path")
    marks.first.scroll_into_view_if_needed()
    box = marks.first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x + 1, y)
    page.mouse.move(x, y)
    return page.locator("#front .hoverlayer .hovertext").first.text_content()


def test_a_mark_tells_its_trial_when_hovered(full_run, shown):
    page = shown(full_run)

    assert "trial 2" in hover(page, 0)  # the only trial that another beats


def test_plots_follow_the_scheme(full_run, shown):
    page = shown(full_run)

    for scheme, paper in (("light", LIGHT), ("dark", DARK), ("light", LIGHT)):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(IS_PAPER, arg=paper)


def test_axes_are_chosen_with_the_keyboard(weighed_run, shown):
    page = shown(weighed_run)
    before = page.evaluate(AXES)
    across = page.locator("form.axes[data-plot=front] select[name=x]")

    across.focus()
    across.select_option("size_mb")
    after = page.evaluate(AXES)
    assert after[0] != before[0]
    assert "MB" in after[0]
    assert after[1].split(",")[0] == before[1].split(",")[0]
    across.select_option("latency_ms")
    assert page.evaluate(AXES) == before


def test_the_caption_tells_nothing_false_of_chosen_axes(weighed_run, shown):
    page = shown(weighed_run)
    written, otherwise = (
        page.locator(f"figure:has(#front) [data-{name}]") for name in ("as-written", "otherwise")
    )
    assert (written.is_visible(), otherwise.is_visible()) == (True, False)

    up = page.locator("form.axes[data-plot=front] select[name=y]")
    up.select_option("quality")
    assert (written.is_visible(), otherwise.is_visible()) == (False, True)
    assert "95 % intervals" in otherwise.inner_text()
    up.select_option("quality_search")
    assert (written.is_visible(), otherwise.is_visible()) == (True, False)


def test_points_are_counted_without_those_of_lines(weighed_run, shown):
    """Of five trained trials and the best so far after each."""
    page = shown(weighed_run)
    page.locator("form.axes[data-plot=course] select[name=x]").select_option("spent_s")

    told = page.locator("form.axes[data-plot=course] output")
    assert told.inner_text() == "5 of 5 points have both."


def test_neighbouring_names_stand_above_and_below_on_any_axes(weighed_run, shown, rewrite):
    path = weighed_run / "references.json"
    large, tiny = json.loads(path.read_text())["points"]
    rewrite(path, {"points": [large | {"size_mb": 5.0}, tiny | {"size_mb": 6.0}]})
    page = shown(weighed_run)
    sides = """() => document.querySelector("#front").data
        .find(one => one.name.startsWith("hand-crafted")).textposition"""

    assert page.evaluate(sides) == ["bottom center", "top center"]  # the tiny one is faster
    page.locator("form.axes[data-plot=front] select[name=x]").select_option("size_mb")
    assert page.evaluate(sides) == ["top center", "bottom center"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_printed_and_on_white(full_run, shown, page, scheme):
    page.emulate_media(color_scheme=scheme)
    shown(full_run)
    page.evaluate(ON_PAPER)
    closed = page.locator("details:not([open])").count()

    assert page.pdf(format="A4").startswith(b"%PDF")
    printed = page.evaluate("window.onPaper")
    assert closed > 0
    assert printed["closed"] == 0
    assert printed["paper"] == LIGHT
    assert set(printed["drawn"]) == {680}
    assert page.locator("details:not([open])").count() == closed
    page.wait_for_function(IS_PAPER, arg=DARK if scheme == "dark" else LIGHT)
