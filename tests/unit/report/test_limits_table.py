"""What a student of 2.5 M parameters and 4 ms (3.8 to 4.2) says of each limit, in words."""

import json

import pytest

from stillhouse.report import write_report
from stillhouse.report.gather import gather
from stillhouse.report.limits_table import limit_lines, lines_of

METRICS = {
    "latency_ms": 4.0,
    "latency_low_ms": 3.8,
    "latency_high_ms": 4.2,
    "teacher_latency_ms": 8.4,
    "speedup": 2.1,
    "parameters": 2_500_000,
    "size_mb": 10.0,
    "memory_mb": 61.25,
    "flops_fraction": 0.125,
    "latency_how": "predicted",
}


def told(line):
    return line.asked, line.value, line.interval, line.how, line.is_met, line.margin


@pytest.mark.parametrize(
    ("name", "asked", "over", "line"),
    [
        (
            "latency_ms",
            5.0,
            -0.16,
            (
                *("latency ≤ 5 ms", "4.00 ms", "3.80 ms to 4.20 ms", "predicted"),
                *(True, "met by 16.0 %"),
            ),
        ),
        (
            "speedup",
            2.5,
            0.25,
            (
                *("speed-up ≥ 2.5×", "2.10×", "2.00× to 2.21×", "predicted"),
                *(False, "missed by 25.0 %"),
            ),
        ),
        (
            "size_mb",
            8.0,
            0.25,
            ("size ≤ 8 MB", "10.0 MB", "", "counted", False, "missed by 25.0 %"),
        ),
        (
            "memory_mb",
            122.5,
            -0.5,
            ("memory ≤ 122.5 MB", "61.2 MB", "", "measured", True, "met by 50.0 %"),
        ),
        (
            "parameters",
            2_500_000,
            0.0,
            ("parameters ≤ 2,500,000", "2,500,000", "", "counted", True, "met exactly"),
        ),
        (
            "params_m",
            2.4999,
            0.00004,
            ("parameters ≤ 2.4999 M", "2.5 M", "", "counted", False, "missed by less than 0.1 %"),
        ),
        (
            "flops_fraction",
            0.5,
            -0.75,
            ("FLOPs ≤ 50 % of the teacher’s", "12.5 %", "", "counted", True, "met by 75.0 %"),
        ),
    ],
)
def test_a_line_for_each_limit(name, asked, over, line):
    [found] = lines_of("1", METRICS | {"limits": {name: asked}, "violations": {name: over}})
    assert told(found) == line


def test_without_a_limit_there_is_no_line():
    assert lines_of("1", METRICS) == lines_of("1", METRICS | {"limits": {}}) == []


def test_what_is_not_known_is_neither_met_nor_missed():
    limits = {"limits": {"memory_mb": 60.0}, "violations": {}}
    [line] = lines_of("1", {key: METRICS[key] for key in ("latency_ms", "parameters")} | limits)
    assert told(line) == ("memory ≤ 60 MB", "not known", "", "", None, "")


@pytest.mark.parametrize("how", ["measured", "analytic", "table", "sum of operations"])
def test_a_latency_says_in_its_own_word_how_it_is_known(how):
    limits = {"limits": {"latency_ms": 5.0, "speedup": 2.0, "parameters": 3e6}, "violations": {}}
    lines = lines_of("1", METRICS | limits | {"latency_how": how})
    assert [line.how for line in lines] == [how, how, "counted"]


def test_the_size_of_a_file_is_measured():
    limits = {"limits": {"size_mb": 12.0}, "violations": {}}
    for file_mb, how in ((10.0, "measured"), (10.4, "counted")):
        [line] = lines_of("1", METRICS | limits | {"file_mb": file_mb})
        assert line.how == how


def test_a_latency_that_was_not_timed_has_no_interval():
    figures = METRICS | {"latency_low_ms": 4.0, "latency_high_ms": 4.0}
    limits = {"limits": {"latency_ms": 5.0, "speedup": 2.0}, "violations": {}}
    assert [line.interval for line in lines_of("1", figures | limits)] == ["", ""]


def add(path, **more):
    metrics = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(metrics | more), encoding="utf-8")


def page_of(run):
    return write_report(run).read_text(encoding="utf-8")


def test_students_and_competitors_of_a_task_stand_in_one_table(checked_run):
    for rank, over in ((1, -0.5), (2, 0.1)):
        add(
            checked_run / f"students/{rank}/metrics.json",
            limits={"latency_ms": 5.0},
            violations={"latency_ms": over},
        )
    rivals = json.loads((checked_run / "competitors.json").read_text(encoding="utf-8"))["points"]
    more = {"limits": {"size_mb": 50.0}, "violations": {"size_mb": 0.322}, "memory_mb": 70.0}
    (checked_run / "competitors.json").write_text(json.dumps({"points": [rivals[0] | more]}))
    lines = limit_lines(gather(checked_run))
    assert [(line.student, line.is_competitor, line.margin) for line in lines] == [
        ("1", False, "met by 50.0 %"),
        ("2", False, "missed by 10.0 %"),
        ("c1", True, "missed by 32.2 %"),
    ]
    page = page_of(checked_run)
    assert page.count("<h2>Limits</h2>") == 1
    assert '<span class="rank competitor">c1</span></span></td>\n      <td class="text"' in page
    assert ">Peak memory<" in page
    assert "70.0 MB" in page


def test_a_run_of_an_older_version_is_told_as_before(full_run):
    assert limit_lines(gather(full_run)) == []
    page = page_of(full_run)
    assert "<h2>Limits</h2>" not in page
    assert "Peak memory" not in page


def test_each_search_of_a_family_is_told_by_its_own_measures(family_run):
    path = family_run / "family.json"
    searches = json.loads(path.read_text(encoding="utf-8"))["searches"]
    searches[1]["costs"] = METRICS | {
        "limits": searches[1]["limits"],
        "violations": {"latency_ms": 0.4, "params_m": 0.0},
    }
    path.write_text(json.dumps({"searches": searches}), encoding="utf-8")
    add(family_run / "students/1/metrics.json", violations={"flops_fraction": -1 / 6})
    lines = limit_lines(gather(family_run))
    assert [(line.student, line.asked, line.margin) for line in lines] == [
        ("1", "FLOPs ≤ 30 % of the teacher’s", "met by 16.7 %"),
        ("2", "parameters ≤ 2.5 M", "met exactly"),
        ("2", "latency ≤ 3 ms", "missed by 40.0 %"),
    ]
    assert "<h2>Limits</h2>" in page_of(family_run)


def test_a_student_that_tells_another_searchs_limits_is_not_believed(family_run):
    """Its file is that of its last search."""
    add(
        family_run / "students/1/metrics.json",
        limits={"size_mb": 9.0},
        violations={"size_mb": -0.5},
    )
    assert "1" not in {line.student for line in limit_lines(gather(family_run))}


def test_selected_chains_are_told_by_number_and_older_ones_without_an_outcome(chain_run):
    add(chain_run / "selected/2/selected.json", violations={"speedup": -0.6}, memory_mb=20.0)
    add(chain_run / "selected/2/selected.json", file_mb=9.1)
    lines = limit_lines(gather(chain_run))
    assert [(line.student, line.asked, line.is_met) for line in lines] == [
        ("1", "parameters ≤ 2.5 M", None),
        ("1", "latency ≤ 1 ms", None),
        ("2", "speed-up ≥ 3×", True),
    ]
    assert [line.value for line in lines] == ["2.05 M", "0.80 ms", "10.00×"]
    assert [line.how for line in lines] == ["counted", "measured", "measured"]
    page = page_of(chain_run)
    assert '<th scope="col">How known</th>' in page
    assert '<td data-label="How known"><span>counted</span></td>' in page
    assert "8.2 MB, file 9.1 MB, peak memory 20.0 MB" in page
    assert "<h2>Limits</h2>" in page
