"""Names that would be markup, code or an endless line are text wherever a run brings them in."""

import csv
import json

import pytest

MARKUP = "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
QUOTES = "\"'`</script></style></title>--><b>"
ENDLESS = "w" * 10_000
FORMULA = "=cmd|' /C calc'!A1"
UNICODE = "\u202e\u05d8\u05e2\u05dd \U0001f943 e\u0301 \ufeff"
ALL = " ".join((MARKUP, QUOTES, UNICODE, FORMULA))
NAME = ALL.replace("=", "≠")  # where the name of a method ends
LONG = "w" * 150  # no path of a run is longer
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? []
    : [...document.querySelectorAll('main *')]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 100))"""
SAFE_TAGS = """() => [...document.querySelectorAll('img, iframe, b')]
    .filter(one => !one.closest('.facts, p')).map(one => one.outerHTML)"""


def spoil(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.fixture(params=[ALL, ENDLESS], ids=["markup", "endless"])
def hostile_run(request, checked_run, describe, rewrite):
    """Every text of a run is hostile: names, labels, reasons, settings, versions."""
    name = request.param
    spoil(checked_run / "run.json", teacher=name, task=name, reason=name, status="failed")
    student = checked_run / "students/1/metrics.json"
    spoil(student, metric="accuracy", device=name, workload_label=name, architecture=name)
    spoil(student, labels=[{"label": name, "precision": 1, "recall": 1, "f1": 1, "support": 2}])
    spoil(checked_run / "competitors.json", points=[{"name": name, "label": name, "quality": 0.8,
          "latency_ms": 3.0, "kind": name, "folder": name}])  # fmt: skip
    rewrite(checked_run / "references.json", describe["references.json"]())
    path = checked_run / "trials.csv"
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with path.open("w", encoding="utf-8", newline="") as file:
        reason = head.index("reason")
        csv.writer(file).writerows(
            [
                head,
                *([*row[:reason], name if row[reason] else "", *row[reason + 1 :]] for row in rows),
            ]
        )
    (checked_run / "settings.yaml").write_text(
        json.dumps({name: name, "provenance": {"versions": {name: name}}}), encoding="utf-8"
    )
    return checked_run


def test_hostile_texts_change_nothing(hostile_run, show, page):
    show(hostile_run)
    page.locator("#front").scroll_into_view_if_needed()  # an endless name takes pages
    page.locator("#front .main-svg").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert page.title() == f"{hostile_run.name} – stillhouse"
    assert page.evaluate(SAFE_TAGS) == []
    assert page.locator("main h2").last.inner_text() == "Settings and provenance"
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.evaluate(TOO_WIDE) == []


@pytest.mark.parametrize("name", [NAME, LONG], ids=["markup", "endless"])
def test_a_hostile_name_of_a_method_changes_nothing(compare_as, show, page, name):
    show(compare_as(name))
    page.locator("#finished").scroll_into_view_if_needed()
    page.locator("#finished .main-svg").first.wait_for()
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")

    assert page.title() == f"{name} and random – stillhouse"
    assert page.evaluate(SAFE_TAGS) == []
    assert page.locator("main h2").last.inner_text() == "Runs and settings"
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        assert page.evaluate(TOO_WIDE) == []


def test_downloads_hold_no_formula(hostile_run, show, page):
    show(hostile_run)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    with page.expect_download() as waited:
        page.locator("a.download", has_text="trials").first.click()

    with waited.value.path().open(encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    assert "latency_ms" in head
    assert len(rows) == 9
    assert not any(cell.startswith(("=", "@")) for row in rows for cell in row)
