import json
import re
import shutil
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
        self.tags, self.addresses, self.texts, self.plots = [], [], [], {}
        self._is_figures = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        addresses = [value for name, value in attrs if name in ("src", "href")]
        self.addresses += [one for one in addresses if not one.startswith(("#", "data:"))]
        self._is_figures = ("id", "plots") in attrs

    def handle_data(self, data):
        in_script = self.tags[-1:] == ["script"]
        if not in_script:
            self.texts.append(data)
        elif self._is_figures:
            self.plots, self._is_figures = json.loads(data), False

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def read():
    return lambda run: Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_fetches_nothing(full_run, read):
    page = read(full_run)

    assert page.addresses == []
    assert "link" not in page.tags


def test_hostile_names_stay_text(full_run, read):
    page = read(full_run)

    assert page.tags.count("script") == 4  # figures, axes, plotly.js, the call: none from the run
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


def test_stopped_trials_are_told_with_their_reasons(full_run, read):
    assert "What failed, and why" in read(full_run).text
    path = full_run / "trials.csv"
    path.write_text(path.read_text().replace("infeasible", "stopped"), encoding="utf-8")
    text = read(full_run).text

    assert "1 stopped latency_ms 50 % over 4 × 256" in text
    assert "What failed or was stopped, and why" in text


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

    assert set(page.plots) == {"front", "course"}
    for title in ("The controller", "Proxy against final", "Competitors", "Reward"):
        assert title not in page.text


def test_references_stand_with_the_front_in_a_table(referenced_run, read):
    page = read(referenced_run)
    _, told = page.text.split("The front beside the hand-crafted, as judged in the search", 1)

    assert re.search(
        r"MobileBERT hand-crafted 4 × 32 <script>.* 0\.820 3\.00 ms predicted, 2\.70 ms to", told
    )
    assert "MobileBERT-tiny is beaten by 1 of the 3 trials of the front." in told
    assert "Other <script>alert(1)</script> is left out: the table has no such row" in told
    assert "Trials and the hand-crafted were trained briefly" in page.text
    assert "<script>alert" not in page.html


def test_further_objectives_are_named_and_have_columns(weighed_run, read):
    text = read(weighed_run).text

    assert "searched for quality, latency and size" in text
    assert "Latency (95 % interval) Size Parameters trial 0" in text
    assert re.search(r"trial 2 3 × 64, [^×]*0\.750 3\.00 ms 4\.0 MB 398 k", text)
    assert "Latency Size Parameters Cost Remark" in text


def test_a_run_of_two_objectives_has_no_words_of_others(full_run, read):
    text = read(full_run).text

    for words in ("searched for", "hand-crafted", "no other beats", "The front"):
        assert words not in text


def test_speed_at_length_128_is_a_column_where_a_student_has_it(full_run, read, rewrite):
    assert "Speed-up at length 128" in read(full_run).text

    for path in full_run.glob("students/*/metrics.json"):
        rewrite(path, {"quality": 0.8, "latency_ms": 2.0})

    assert "length 128" not in read(full_run).text


def test_a_teacher_that_was_timed_again_stands_under_the_speed_up(full_run, rewrite, read):
    assert "beside it" not in read(full_run).text

    path = full_run / "students/2/metrics.json"
    rewrite(path, json.loads(path.read_text()) | {"teacher_latency_ms": 9.5, "speedup": 9.5 / 6.4})
    text = read(full_run).text
    assert "6.40 ms 5.76 ms to 7.04 ms 1.5× teacher 9.50 ms beside it" in text
    assert "a speed-up is not the quotient of two latencies in this table" in text


def test_every_place_of_a_figure_is_on_the_page(checked_run, read):
    page = read(checked_run)

    assert set(page.plots) == {"front", "finished", "proxy", "predictions", "course"}
    assert all(f'id="{place}" class="plot"' in page.html for place in page.plots)
    assert page.tags.count("script") == 4


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


@pytest.mark.parametrize(
    "name", ["controller.json", "proxy_final.json", "competitors.json", "references.json"]
)
@pytest.mark.parametrize("content", ['{"points": [', "[1, 2]", "null"])
def test_a_damaged_file_is_a_note_and_no_section(name, content, checked_run, read):
    (checked_run / name).write_text(content, encoding="utf-8")

    page = read(checked_run)

    assert f"finished/{name} could not be read" in page.text
    titles = {
        "controller": "The controller",
        "proxy_final": "Proxy against",
        "competitors": "Compe",
        "references": "hand-crafted",
    }
    assert f"{titles[name.split('.')[0]]}" not in page.text


@pytest.mark.parametrize(
    "name", ["controller.json", "proxy_final.json", "competitors.json", "references.json"]
)
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


def test_a_run_without_a_task_has_no_words_of_one(family_run, read):
    text = read(family_run).text

    for word in ("on dev", "quality", "search-validation", "Within limit", "Rank", "length 128"):
        assert word not in text
    for title in ("Quality and latency", "Students Student", "What failed", "Competitors"):
        assert title not in text


def test_searches_stand_with_their_limits_students_and_costs(family_run, read):
    page = read(family_run)
    _, told = page.text.rsplit("Searches and their students", 1)

    assert "FLOPs ≤ 30 % of the teacher’s 1 4 × 128, 2 heads of 32, FFN 512, gelu" in told
    assert "space small, students/1 4.0500 n = 40 4.00 M 0.40 M 4.9 MB 25.0 % 350 M 3.20 ms" in told
    assert "parameters ≤ 2.5 M, latency ≤ 3 ms 2 2 × 128" in told
    assert "2 runners-up within the same limits" in told
    assert re.search(r"3 × 128, [^×]* small 4\.2500 3\.00 M 20\.0 %", told)
    assert re.search(r"teacher org/teacher – 22\.70 M 100\.0 % 1\.4 G 8\.00 ms 1\.0×", told)
    assert page.addresses == ["students/1/", "students/2/"]


def test_what_the_figures_of_a_family_are_is_said(family_run, read):
    text = read(family_run).text

    assert "relation loss on held-out text, which says nothing about a task by itself" in text
    assert "bare encoder with its pooler at length 64, two per multiply-add, and not" in text
    assert "Latency: measured; cpu <b>bold</b>; batch 1, length 64." in text
    assert "learnt from corpus <script>alert(1)</script>" in text
    assert "stillhouse finetune students/2 --task TASK" in text


def test_supernets_stand_with_steps_tokens_loss_and_time(family_run, read):
    page = read(family_run)
    _, told = page.text.split("Supernets and their subnets")

    assert "5 subnets, each scored on the same held-out text" in told
    assert "tiny 2 5.7500 6,000 3.1 M 4.6591 2 h 14 min small 3 3.9500" in told
    assert list(page.plots) == ["subnets"]
    assert 'id="subnets" class="plot"' in page.html


def test_hostile_names_of_a_family_stay_text(family_run, read, rewrite, describe):
    family = describe["family.json"]()
    family["searches"][0] |= {"limits": {"<i>": 1}, "student": "javascript:alert(1)"}
    family["searches"][0]["best"] = {"space": "<script>x</script>"}
    rewrite(family_run / "family.json", family)

    page = read(family_run)

    assert page.tags.count("script") == 4
    assert "space <script>x</script>, its folder cannot be read" in page.text
    assert page.addresses == ["students/2/"]


def test_a_damaged_list_of_searches_leaves_students_and_supernets(family_run, read):
    (family_run / "family.json").write_text('{"searches": [', encoding="utf-8")

    text = read(family_run).text
    _, told = text.split("Students Student Architecture Latency")

    assert "family/family.json could not be read" in text
    assert "Students of a family: 2. What they were chosen for" in text
    assert "students/1; start: supernet of its layers 1, 3 3.20 ms" in told
    assert "on dev" not in text
    assert "Supernets and their subnets" in text


@pytest.mark.parametrize("lost", ["family.json", "students/1/metrics.json", "supernets"])
def test_a_family_with_a_part_lost_still_makes_a_page(family_run, read, lost):
    path = family_run / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()

    text = read(family_run).text

    assert "Settings and provenance" in text
    assert "on dev" not in text


def test_an_interrupted_family_says_how_far_it_came(family_run, read):
    (family_run / "family.json").unlink()
    shutil.rmtree(family_run / "students")
    shutil.rmtree(family_run / "supernets/small")

    text = read(family_run).text

    assert "No student has been chosen yet; 1 supernet trained so far. Run the same" in text
    assert "limit parameters ≤ 2.5 M, latency ≤ 3 ms" in text
    assert "Searches and their students" not in text
    assert "trials are complete" not in text


def test_a_family_before_its_first_supernet_is_a_run_without_a_task(interrupted_run, read):
    (interrupted_run / "settings.yaml").write_text("recipe: autodistil\n", encoding="utf-8")

    text = read(interrupted_run).text

    assert "No student has been chosen yet; 0 supernets trained so far" in text
    assert "Nothing has been measured yet" not in text


def test_an_empty_family_file_still_makes_a_page(family_run, read):
    few = {"searches": [{"best": {"x": 1}, "runners_up": [{}, 7], "limits": [1]}, {}, 3]}
    (family_run / "family.json").write_text(json.dumps(few), encoding="utf-8")

    text = read(family_run).text

    assert "The search without a limit chose a student. Only fine-tuning shows" in text
    assert "1 runner-up within the same limits" in text


def test_selected_students_stand_with_their_budgets_and_costs(chain_run, read):
    page = read(chain_run)
    _, told = page.text.split("Selected students ", 1)

    assert "parameters ≤ 2.5 M, latency ≤ 1 ms 1 embeddings 64 | 64: M S3 | 64: M, heads" in told
    assert "selected/1, students/1 6.2500 1.4000 2.05 M 8.2 MB 2.5 % 3.5 M 0.80 ms" in told
    assert "0.70 ms to 0.90 ms 0.75 ms 10.7× 10.0× 1 runner-up within the same limits" in told
    assert re.search(r"speed-up ≥ 3× 2 .* selected/2 5\.5000 1\.1000", told)
    assert re.search(r"teacher org/teacher 22\.70 M 100\.0 % 140 M 8\.00 ms 1\.0×", told)
    assert "Latency: measured; cpu <b>bold</b>; batch 1, length 64." in told
    assert page.addresses == ["students/1/", "students/1/"]


@pytest.mark.parametrize(
    ("how", "timed", "told"),
    [
        ("measured", True, "a measured model must be within its limit itself"),
        ("analytic", False, "Nothing was timed: whole models, operations and the teacher"),
        ("predicted", False, "That of a whole model is told by the device’s profile"),
        ("sum of operations", False, "table knows these and the teacher, and no model as a whole"),
        ("", False, ""),
    ],
)
def test_how_latencies_of_chains_are_known_is_what_was_done(chain_run, read, how, timed, told):
    for file in chain_run.glob("selected/*/selected.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "latency_how": how}))
    text = read(chain_run).text
    assert told in text
    assert ("timed in turn with the teacher" in text) is timed


def test_selected_chains_that_were_predicted_first_say_so(chain_run, read):
    file = chain_run / "selected/1/selected.json"
    more = {"latency_predicted_ms": 0.6, "latency_predicted_error_fraction": -0.25}
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    text = read(chain_run).text
    assert "0.80 ms 0.70 ms to 0.90 ms predicted 0.60 ms, 25.0 % too short 0.75 ms" in text
    assert "first by the device’s profile and then as it is measured" in text
    assert "timed in turn with the teacher" not in text


def test_masked_words_of_teacher_and_students_stand_together(chain_run, read):
    _, told = read(chain_run).text.split("Masked words ", 1)

    assert "one was trained for this run, while the teacher’s body stayed" in told
    assert "1 students/1 25.0 % 4.7500 270 4,000 8.2 M scratch" in told
    assert "teacher 40.0 % 3.5000 270" in told


def test_shrinking_tells_what_went_and_why(chain_run, read):
    page = read(chain_run)
    _, told = page.text.split("Shrinking ", 1)

    assert "dropped at once if its latency lies in another bin than its size. Warm" in told
    assert "Warm epochs, without a comparison: 3. Then the worse half of up to 20" in told
    assert "1 60 20 10 25 5 6 600 0.3125 2 – – – 25 5 6 600 0.3125" in told
    blocks = {"blocks-1", "blocks-2", "shrinking-1", "shrinking-2"}
    assert set(page.plots) == {*blocks, "selected"}
    assert all(f'id="{place}" class="plot"' in page.html for place in page.plots)


def test_operations_stand_by_hidden_size_with_what_is_refused(chain_run, read):
    page = read(chain_run)
    _, told = page.text.split("Operations Latency", 1)

    assert "the teacher takes 8.00 ms." in told
    assert "Operation 64 128 M attention 0.20 ms 0.40 ms" in told
    assert "S3 convolution of 3 0.10 ms refused" in told
    assert "S3 of 128 is refused: no kernel, <script>alert(1)</script>" in told
    assert "<script>alert" not in page.html
    assert 'style="--share: 30%"' in page.html  # half of the longest


def test_a_run_of_chains_has_no_words_of_a_task(chain_run, read):
    text = read(chain_run).text

    for word in ("on dev", "quality", "search-validation", "Within limit", "Rank", "supernet of"):
        assert word not in text
    for title in ("Quality and latency", "Students Student", "What failed", "Searches and"):
        assert title not in text


def test_the_last_selection_heads_the_page_with_what_to_do_next(chain_run, read):
    text = read(chain_run).text

    assert "2 students are selected; the last for speed-up ≥ 3× is number 2 (embeddings" in text
    assert "answers in 0.80 ms, 10.0× as fast as the teacher. It is not pre-trained yet." in text
    assert "stillhouse train RUN/selected/2" in text

    shutil.rmtree(chain_run / "selected/2")
    text = read(chain_run).text

    assert "One student is selected for parameters ≤ 2.5 M" in text
    assert "Pre-trained, it tells 25.0 % of masked words right (teacher 40.0 %)." in text
    assert "stillhouse finetune students/1 --task TASK" in text


def test_an_unfinished_run_of_chains_says_how_far_it_came(chain_run, read):
    shutil.rmtree(chain_run / "selected")
    shutil.rmtree(chain_run / "students")
    (chain_run / "blocks.csv").unlink()
    shutil.rmtree(chain_run / "supernets/block-2")

    page = read(chain_run)

    assert "No student has been selected yet; 1 block trained so far. Run the same" in page.text
    assert 'class="outcome open"' in page.html
    assert "No selected student has been pre-trained yet." in page.text
    assert list(page.plots) == ["shrinking-1"]
    for title in ("Selected students", "The table of blocks"):
        assert title not in page.text


def test_a_run_of_chains_before_its_first_file_still_makes_a_page(interrupted_run, read):
    (interrupted_run / "settings.yaml").write_text("recipe: nas-bert\n", encoding="utf-8")

    text = read(interrupted_run).text

    assert "No student has been selected yet; 0 blocks trained so far" in text
    assert "Nothing has been measured yet" not in text


@pytest.mark.parametrize(
    "name",
    [
        "mlm/mlm.json",
        "operations.csv",
        "blocks.csv",
        "selected/1/selected.json",
        "students/1/metrics.json",
        "supernets/block-1/shrinking.json",
        "supernets/block-1/supernet.json",
    ],
)
@pytest.mark.parametrize("content", [None, "", "{", '{"a": 1}'])
def test_a_run_of_chains_with_a_part_lost_or_damaged_makes_a_page(chain_run, read, name, content):
    if content is None:
        (chain_run / name).unlink()
    else:
        (chain_run / name).write_text(content, encoding="utf-8")

    assert "Settings and provenance" in read(chain_run).text


def test_half_a_character_in_json_is_told_as_a_question_mark(full_run, read, rewrite):
    rewrite(full_run / "run.json", {"status": "complete", "teacher": "cut \ud83e here"})

    assert "teacher cut ? here" in read(full_run).text


def test_cost_is_told_with_how_it_was_obtained(full_run, read, rewrite):
    cost = {
        "seconds": 431.0,
        "tokens": 52_000,
        "energy_wh": 2.0,
        "co2_g": 1.368,
        "how": "<counted>",
    }
    rewrite(full_run / "run.json", {"status": "complete", "cost": cost})
    _, told = read(full_run).text.split(" Cost ", 1)

    assert re.search(r"worked 7 min 11 s trained on 52\.0 k tokens energy 2 Wh CO₂ 1\.37 g", told)
    assert "The energy is <counted>:" in told
