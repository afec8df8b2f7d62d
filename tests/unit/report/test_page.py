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
        self.html = html
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
    def plots(self):
        return json.loads(self._scripts[0]) if self._scripts else {}


@pytest.fixture
def read():
    return lambda run: Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_fetches_nothing(full_run, read):
    page = read(full_run)

    assert page.addresses == []
    assert "link" not in page.tags


def test_hostile_names_stay_text(full_run, read):
    page = read(full_run)

    assert page.tags.count("script") == 3  # the figures, plotly.js, the call: none from the run
    assert "data <script>alert(1)</script>.csv" in page.text
    assert "b" not in page.plots["front"]["layout"]["yaxis"]["title"]
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


def test_a_run_without_the_extra_files_has_no_such_sections(full_run, read):
    page = read(full_run)

    assert list(page.plots) == ["front"]
    for title in ("The controller", "Proxy against final", "Competitors", "Reward"):
        assert title not in page.text


def test_every_place_of_a_figure_is_on_the_page(checked_run, read):
    page = read(checked_run)

    assert set(page.plots) == {"front", "finished", "proxy", "predictions"}
    assert all(f'id="{place}" class="plot"' in page.html for place in page.plots)
    assert page.tags.count("script") == 3


def test_labels_of_all_sections_stay_text(checked_run, read):
    page = read(checked_run)

    assert "3 × 384 <script>alert(1)</script>" in page.text
    assert "It ranks candidates <script>alert(1)</script>." in page.text
    assert "trial <script>alert(1)</script>" in page.text
    assert "<script>alert" not in page.html


def test_the_controller_is_told_with_its_verdict_first(checked_run, read):
    page = read(checked_run)
    _, told = page.text.split("The controller ", 1)

    assert told.strip().startswith("It ranks candidates")
    assert "random proposals 62.5 %" in told
    assert "0.61 (95 % interval 0.38 to 0.79, n = 45)" in told
    assert "default, 3 episodes of 2 trained candidates, 60 passes after each at rate 0.01" in told
    assert "accuracy × (latency ÷ 5.00 ms) to the power −0.06" in told
    assert re.search(r"Episode .* 1 0\.50 1 1 0 3 0\.860 2 0\.77 n = 2 2 0\.00", told)
    assert 'class="warning"' not in page.html


def test_a_controller_that_learnt_nothing_is_a_warning(checked_run, read, describe, rewrite):
    changed = describe["controller.json"](has_learnt=False, verdict="It learnt nothing.")
    rewrite(checked_run / "controller.json", changed)

    page = read(checked_run)

    assert "Warning. It learnt nothing." in page.text
    assert 'class="warning" role="note"' in page.html


def test_a_controller_with_too_few_rewards_has_no_bare_correlation(
    checked_run, read, describe, rewrite
):
    silent = {"value": None, "low": None, "high": None, "count": 4}
    changed = describe["controller.json"](has_learnt=None, correlation=silent)
    rewrite(checked_run / "controller.json", changed)

    page = read(checked_run)

    assert "predicted and true reward too few to say (n = 4)" in page.text
    assert 'class="warning"' not in page.html


def test_correlations_stand_with_interval_and_number(checked_run, read):
    told = read(checked_run).text

    assert "2 winners and 1 control were trained to the end" in told
    assert "Spearman’s rho 0.74 0.41 to 0.92, n = 14 0.81 0.52 to 0.96, n = 12" in told
    assert "Kendall’s tau-b 0.58 0.27 to 0.83, n = 14 0.66 0.33 to 0.88, n = 12" in told
    assert "Regret: 1.0 points of accuracy." in told
    assert "the proxy cannot be better without more training" in told


def test_too_few_students_are_told_in_words(checked_run, read, describe, rewrite):
    silent = {
        "kendall": None,
        "spearman": None,
        "count": 3,
        "reason": "too few to say (n = 3, at least 8 needed)",
    }
    changed = describe["proxy_final.json"](agreement=silent, noise=None, regret=None)
    rewrite(checked_run / "proxy_final.json", changed)

    told = read(checked_run).text

    assert "Spearman’s rho too few to say (n = 3, at least 8 needed) –" in told
    assert "No trial was judged twice" in told
    assert "Regret" not in told


def test_competitors_stand_between_students_and_teacher(checked_run, read):
    told = read(checked_run).text
    _, rows = told.split("Competitors: given beforehand, distilled as the students were")

    assert re.search(r"c1 .* \(shape\), competitors/1 0\.798 0\.768 to 0\.818 95\.0 %", rows)
    assert rows.index("c2") < rows.index("teacher")


@pytest.mark.parametrize("name", ["controller.json", "proxy_final.json", "competitors.json"])
@pytest.mark.parametrize("content", ['{"points": [', "[1, 2]", "null"])
def test_a_damaged_file_is_a_note_and_no_section(name, content, checked_run, read):
    (checked_run / name).write_text(content, encoding="utf-8")

    page = read(checked_run)

    assert f"finished/{name} could not be read" in page.text
    titles = {
        "controller": "The controller",
        "proxy_final": "Proxy against",
        "competitors": "Compe",
    }
    assert f"{titles[name.split('.')[0]]}" not in page.text


@pytest.mark.parametrize("name", ["controller.json", "proxy_final.json", "competitors.json"])
def test_files_with_little_in_them_still_make_a_page(name, checked_run, read):
    few = {"verdict": "?", "episodes": [{}, 3], "agreement": {"count": 0}, "points": [{}, 7, None]}
    (checked_run / name).write_text(json.dumps(few), encoding="utf-8")

    assert "Settings and provenance" in read(checked_run).text


def test_rewards_are_shown_where_a_trial_has_one(full_run, read):
    path = full_run / "trials.csv"
    header, first, *rest = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{header},reward", f"{first},0.7654", *(f"{line}," for line in rest)]
    path.write_text("\n".join(lines), encoding="utf-8")

    text = read(full_run).text

    assert "search-validation Reward Latency" in text
    assert "0.700 0.765 1.00 ms" in text


def test_trials_judged_by_hidden_states_do_not_stand_beside_finished_models(checked_run, read):
    path = checked_run / "settings.yaml"
    path.write_text("search:\n  quality: hidden\n", encoding="utf-8")

    page = read(checked_run)
    names = {place: {t["name"] for t in plot["data"]} for place, plot in page.plots.items()}

    assert "teacher" in names["finished"]
    assert not names["front"] & names["finished"]
    assert "1 less hidden-state loss" in page.plots["front"]["layout"]["yaxis"]["title"]["text"]
    assert "1 less hidden-state loss" in page.plots["proxy"]["layout"]["xaxis"]["title"]["text"]
