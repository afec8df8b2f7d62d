import csv
import io
import json
from urllib.parse import unquote

import pytest

from stillhouse.report import write_report
from stillhouse.report.csv_tables import as_link, downloads, written
from stillhouse.report.gather import gather


def rows_of(download):
    text = unquote(download.link.removeprefix("data:text/csv;charset=utf-8,"))
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline="")))


def test_trials_are_told_with_raw_figures(full_run):
    rows = rows_of(downloads(gather(full_run))["trials"])

    assert len(rows) == 9
    assert (rows[1]["quality"], rows[1]["latency_ms"], rows[1]["cost_s"]) == ("0.8", "2.0", "12.5")
    assert rows[3]["repeat_of"] == "1"
    assert rows[5]["reason"] == "out of memory <script>alert(1)</script>"
    assert not {"memory_mb", "speedup"} & set(rows[0])  # which no trial knows


def test_each_trial_tells_the_teachers_latency_of_its_hour(full_run):
    path = full_run / "trials.csv"
    head, first, *others = path.read_text(encoding="utf-8").splitlines()
    lines = [f"{head},teacher_latency_ms,speedup", f"{first},8.5,4.25", *(f"{x},," for x in others)]
    path.write_text("\n".join(lines), encoding="utf-8")
    row = rows_of(downloads(gather(full_run))["trials"])[0]

    assert (row["teacher_latency_ms"], row["speedup"]) == ("8.5", "4.25")


def test_students_stand_beside_competitors_and_the_teacher(checked_run):
    download = downloads(gather(checked_run))["students"]
    rows = rows_of(download)

    assert [row["model"] for row in rows] == [
        "student 1",
        "student 2",
        "student 10",
        "competitor c1",
        "competitor c2",
        "teacher",
    ]
    assert (rows[0]["quality"], rows[0]["within_limit"]) == ("0.819", "yes")
    counts = (rows[0]["parameters"], rows[0]["parameters_encoder"], rows[0]["quality_count"])
    assert counts == ("1234567", "398000", "660")
    assert (rows[0]["teacher_latency_ms"], rows[0]["speedup"]) == ("8.0", "5.0")
    assert (rows[1]["within_limit"], rows[3]["name"]) == (
        "no",
        "layers=3 <script>alert(1)</script>",
    )
    assert (download.name, download.rows) == ("finished-students.csv", 6)


def test_chains_are_told_as_they_were_selected(chain_run):
    rows = rows_of(downloads(gather(chain_run))["students"])

    assert [row["model"] for row in rows] == ["selected 1", "selected 2", "teacher"]
    assert (rows[0]["mlm_loss_nats"], rows[0]["predicted_latency_ms"]) == ("6.25", "0.75")


def test_links_stand_beside_the_tables(full_run, family_run, interrupted_run):
    page = write_report(full_run).read_text(encoding="utf-8")

    assert 'download="finished-trials.csv"' in page
    assert 'download="finished-students.csv"' in page
    assert "<script>alert" not in page
    assert 'download="' not in write_report(interrupted_run).read_text(encoding="utf-8")
    assert set(downloads(gather(family_run))) == {"students"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_text_that_a_spreadsheet_would_compute_is_kept_from_it(text):
    [row] = csv.DictReader(io.StringIO(written([{"name": text, "gain": -1.5}]), newline=""))

    assert row == {"name": f"'{text}", "gain": "-1.5"}


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t"])
def test_no_text_of_a_finished_model_is_computed(checked_run, rewrite, first):
    text = f"{first}1+1"
    path = checked_run / "competitors.json"
    point = json.loads(path.read_text())["points"][0]
    rewrite(path, {"points": [point | {"name": text, "label": text, "folder": text}]})
    path = checked_run / "students/1/metrics.json"
    rewrite(path, json.loads(path.read_text()) | {"device": text, "workload_label": text})

    rows = rows_of(downloads(gather(checked_run))["students"])
    cells = [cell for row in rows for cell in row.values()]
    assert cells.count(f"'{text}") == 7  # the teacher stands on the student's device, too
    assert text not in cells


def test_commas_quotes_and_lines_survive():
    text = 'a "b", c\nd;%&#<é中'
    told = unquote(as_link(written([{"name": text}])).split(",", 1)[1]).removeprefix("\ufeff")

    [row] = csv.DictReader(io.StringIO(told, newline=""))
    assert row["name"] == text
