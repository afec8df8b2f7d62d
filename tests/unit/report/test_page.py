import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stillhouse.errors import RunError
from stillhouse.report import write_report


class Page(HTMLParser):
    """Counts elements, and collects the text and every address that an element would fetch."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.texts, self._scripts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        in_script = self.tags[-1:] == ["script"]
        (self._scripts if in_script else self.texts).append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def figure(self):
        return json.loads(self._scripts[0])


@pytest.fixture
def read():
    return lambda run: Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_fetches_nothing(full_run, read):
    page = read(full_run)

    assert page.addresses == []
    assert "link" not in page.tags


def test_hostile_names_stay_text(full_run, read):
    page = read(full_run)

    assert page.tags.count("script") == 3  # the figure, plotly.js, the call: none from the run
    assert "data <script>alert(1)</script>.csv" in page.text
    assert "b" not in page.figure["layout"]["yaxis"]["title"]
    assert "bold" in page.text


def test_the_page_tells_students_costs_and_failures(full_run, read):
    text = read(full_run).text

    assert "0.789 to 0.849, n = 660" in text
    assert "7 min 11 s" in text
    assert "9 trials:" in text
    assert "5 complete" not in text  # four, since one of the five is a repeat
    assert "latency_ms 50 % over" in text


def test_failures_of_one_reason_are_told_together(full_run, read):
    text = read(full_run).text

    assert re.search(r"2 failed out of memory <script>alert\(1\)</script> 4 × 128", text)


def test_reasons_that_differ_in_figures_only_are_one_line(full_run, read):
    path = full_run / "trials.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    over = next(line for line in lines if "50 % over" in line)
    path.write_text("\n".join([*lines, over.replace("50 % over", "7.5 % over")]), encoding="utf-8")

    assert "2 infeasible for example: latency_ms 50 % over" in read(full_run).text


@pytest.mark.parametrize("kind", ["interrupted_run", "distill_run"])
def test_runs_without_a_search_are_reported_too(kind, request, read):
    run = request.getfixturevalue(kind)

    assert "Settings and provenance" in read(run).text


def test_a_first_page_of_an_interrupted_run_is_replaced_by_a_later_one(interrupted_run, read):
    assert "Nothing has been measured yet" in read(interrupted_run).text

    (interrupted_run / "run.json").write_text('{"status": "now complete"}', encoding="utf-8")

    assert "now complete" in read(interrupted_run).text
    assert not list(interrupted_run.glob(".*"))


def test_a_failed_run_tells_why(interrupted_run, read):
    (interrupted_run / "run.json").write_text(
        '{"status": "failed", "reason": "no room <here>"}', encoding="utf-8"
    )

    assert "It stopped with: no room <here>" in read(interrupted_run).text


def test_a_page_that_cannot_be_written_leaves_the_old_one(full_run, monkeypatch):
    old = write_report(full_run).read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(RunError, match="No space left on device"):
        write_report(full_run)

    assert (full_run / "report.html").read_bytes() == old
    assert [path.name for path in Path(full_run).glob(".*")] == []
