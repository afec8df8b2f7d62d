"""Comparisons of hand-written runs, with answers that are known."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from stillhouse import api
from stillhouse.errors import RunError, SettingsError
from stillhouse.evaluate.kept_answers import pack_answers
from stillhouse.report.comparison import compare
from stillhouse.report.comparison_page import render_comparison, summary

HOSTILE = "<script>alert(1)</script>"
EXAMPLES = 400
LABELS = np.random.default_rng(0).integers(2, size=EXAMPLES)
SHAPE = {
    "family": "bert",
    "layers": 2,
    "hidden_size": 64,
    "heads": 2,
    "ffn_size": 128,
    "activation": "gelu",
}
COLUMNS = "number,state,quality,latency_ms,repeat_of,cost_s,parameters,size_mb,flops_fraction,"


def packed(right, dev="d" * 64):
    """Answers of which the first so many are right."""
    logits = np.zeros((EXAMPLES, 2))
    is_right = np.arange(EXAMPLES) < right
    logits[np.arange(EXAMPLES), np.where(is_right, LABELS, 1 - LABELS)] = 1.0
    return pack_answers(["accuracy"], logits, LABELS, dev_sha256=dev)


def student(right, latency_ms, *, teacher_ms=10.0, **changes):
    quality = right / EXAMPLES
    return {
        "metric": "accuracy",
        "quality": quality,
        "quality_low": quality - 0.03,
        "quality_high": quality + 0.03,
        "quality_count": EXAMPLES,
        "quality_search": quality + 0.01,
        "latency_ms": latency_ms,
        "latency_low_ms": latency_ms,
        "latency_high_ms": 1.1 * latency_ms,
        "teacher_latency_ms": teacher_ms,
        "parameters": 1_000_000,
        "size_mb": 4.0,
        "flops_fraction": 0.25,
        "device": "chip",
        "workload_label": "batch 1",
        "architecture": SHAPE,
        "_right": right,
    } | changes


def write_model(folder, metrics, *, dev="d" * 64, answers=True):
    folder.mkdir(parents=True)
    right = metrics.pop("_right")
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    if answers:
        (folder / "dev_answers.npz").write_bytes(packed(right, dev))


@pytest.fixture
def write(tmp_path):
    """Writes a run: students by rank, trials as (state, quality, latency, seconds, repeat of)."""

    def make(name, students, *, trials=(), settings=None, state=None, teacher_ms=10.0, **how):
        run = tmp_path / name
        run.mkdir()
        given = {"search": {"strategy": "tpe"}, "seed": 0} | (settings or {})
        (run / "settings.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
        facts = {"status": "complete", "task": "glue/x", "teacher": "t", "limits": {"speedup": 2.0}}
        facts |= {"wall_s": 60.0, "phases_s": {"final": 20.0}}
        facts["hypervolume"] = {"reference": {"latency_ms": teacher_ms}, "by_trial": [0.5]}
        (run / "run.json").write_text(json.dumps(facts | (state or {})), encoding="utf-8")
        teacher = student(380, teacher_ms, teacher_ms=teacher_ms, flops_fraction=1.0)
        write_model(run / "teacher", teacher, **how)
        for rank, metrics in enumerate(students, start=1):
            write_model(run / "students" / str(rank), metrics, **how)
        rows = [
            f"{number},{kind},{quality},{latency_ms},{repeat_of},{cost_s},1000000,4.0,0.25,"
            for number, (kind, quality, latency_ms, cost_s, repeat_of) in enumerate(trials)
        ]
        (run / "trials.csv").write_text("\n".join([COLUMNS, *rows]), encoding="utf-8")
        return str(run)

    return make


OTHER = {"search": {"strategy": "random"}}


@pytest.fixture
def two(write):
    """The second is worse by 8 points at half of the teacher's latency, and has none below."""
    first = write("a", [student(360, 4.0), student(340, 2.0)])
    return [first, write("b", [student(328, 4.0)], settings=OTHER)]


def cells(comparison, line=0):
    return comparison.lines[line].cells


def test_a_difference_has_the_interval_of_the_differing_examples(two):
    """32 of 400 examples are right in one alone: a mean of 0.08 with the spread of a share."""
    first, second = cells(compare(two))

    assert first.verdict == "the baseline"
    assert second.difference.value == pytest.approx(-0.08)
    reach = 1.96 * np.sqrt(0.08 * 0.92 / EXAMPLES)
    ends = (second.difference.low, second.difference.high)
    assert ends == pytest.approx((-0.08 - reach, -0.08 + reach), abs=4e-3)
    assert second.difference.is_paired
    assert second.verdict == "worse"
    assert first.behind.value == pytest.approx(-20 / EXAMPLES)


def test_methods_are_named_by_what_they_are(two):
    comparison = compare(two)
    assert [method.name for method in comparison.methods] == ["tpe", "random"]
    assert comparison.differing == ("search.strategy",)
    assert comparison.remarks == ()


def test_methods_of_one_kind_are_named_by_what_differs(write):
    shares = [{"final": {"epochs": epochs}} for epochs in (1.0, 2.0)]
    runs = [
        write(name, [student(300, 4.0)], settings=one)
        for name, one in zip("ab", shares, strict=True)
    ]
    comparison = compare(runs)
    assert [m.name for m in comparison.methods] == [
        "tpe (final.epochs 1.0)",
        "tpe (final.epochs 2.0)",
    ]
    assert any("final distillation" in remark for remark in comparison.remarks)


def test_a_limit_that_one_method_misses(two):
    first, second = cells(compare(two, limits=[{"latency_ms": 2.5}]))

    assert first.found[0].name == "student 2"
    assert second.found == ()
    assert second.verdict == "no student within it"
    swapped = cells(compare(two[::-1], limits=[{"latency_ms": 2.5}]))
    assert swapped[1].verdict == "not compared: random has no student within it"


def test_a_limit_counts_with_the_far_end_of_the_interval(two):
    found = cells(compare(two, limits=[{"latency_ms": 4.3}]))[0].found
    assert [one.name for one in found] == ["student 2"]  # student 1 takes 4.0 to 4.4 ms


def test_search_validation_chooses_and_dev_does_not(write):
    lucky = student(380, 4.0, quality_search=0.5)
    runs = [
        write("a", [lucky, student(300, 4.0)]),
        write("b", [student(300, 4.0)], settings=OTHER),
    ]
    first, second = cells(compare(runs))
    assert first.found[0].name == "student 2"
    assert second.verdict == "equal on every example"


def test_latencies_are_told_on_the_clock_of_the_first_run(write):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(360, 8.0, teacher_ms=20.0)], settings=OTHER, teacher_ms=20.0),
    ]
    comparison = compare(runs, limits=[{"latency_ms": 5.0}])
    assert [cell.cost for cell in cells(comparison)] == pytest.approx([4.0, 4.0])
    assert "10.0 ms to 20.0 ms" in comparison.remarks[-1]


def test_runs_of_one_method_are_seeds(write):
    runs = [
        write(f"a{seed}", [student(right, 4.0)], settings={"seed": seed})
        for seed, right in enumerate((360, 350))
    ]
    runs += [
        write(f"b{seed}", [student(right, 4.0)], settings=OTHER | {"seed": seed})
        for seed, right in enumerate((330, 320))
    ]
    comparison = compare(runs)
    first, second = cells(comparison)

    assert first.quality == pytest.approx(355 / EXAMPLES)
    assert (first.low, first.high) == pytest.approx((350 / EXAMPLES, 360 / EXAMPLES))
    assert second.difference.value == pytest.approx(-30 / EXAMPLES)
    assert second.difference.has_seeds


def test_a_seed_without_a_student_is_no_part_of_a_difference(write):
    runs = [
        write("a0", [student(360, 4.0)]),
        write("b0", [student(350, 4.0)], settings=OTHER),
        write("b1", [student(350, 9.0)], settings=OTHER | {"seed": 1}),
    ]
    second = cells(compare(runs))[1]
    assert second.quality == pytest.approx(350 / EXAMPLES)
    assert second.difference is None
    assert second.verdict == "not compared: 1 of 2 runs of random have none"


def test_many_comparisons_are_corrected(write):
    """Six differing examples of 400 are resolved alone, and not among eight comparisons."""
    runs = [write("a", [student(360, 4.0)])]
    for place in range(8):
        proxy = {"search": {"proxy_examples": 100 + place}}
        runs.append(write(f"b{place}", [student(353, 4.0)], settings=proxy))
    second = cells(compare(runs))[1]
    assert second.difference.excludes_zero
    assert second.p_corrected == pytest.approx(min(1.0, 8 * second.difference.p))
    alone = cells(compare(runs[:2]))[1]
    assert alone.p_corrected == alone.difference.p
    assert alone.verdict == "worse"


def test_runs_without_answers_are_compared_unpaired(write):
    runs = [
        write("a", [student(360, 4.0)], answers=False),
        write("b", [student(328, 4.0)], settings=OTHER),
    ]
    comparison = compare(runs)
    one = cells(comparison)[1].difference
    assert not one.is_paired
    assert (one.low, one.high) == pytest.approx((-0.08 - 0.03 * 2**0.5, -0.08 + 0.03 * 2**0.5))
    assert any("No answers on dev are kept" in remark for remark in comparison.remarks)


def test_equal_scores_of_other_answers_are_equal_on_resamples_alone(write):
    """Two wrong answers of three classes: the same examples are right, others predicted."""
    runs = [
        write(name, [student(360, 4.0)], settings=one) for name, one in (("a", {}), ("b", OTHER))
    ]
    for run, wrong in zip(runs, (1, 2), strict=True):
        logits = np.zeros((EXAMPLES, 3))
        logits[:40, wrong] = logits[40:, 0] = 1.0
        content = pack_answers(
            ["accuracy"], logits, np.zeros(EXAMPLES, np.int64), dev_sha256="d" * 64
        )
        (Path(run) / "students/1/dev_answers.npz").write_bytes(content)
    assert cells(compare(runs))[1].verdict == "equal on every resample"


def test_the_same_students_at_two_limits_are_one_test(two):
    comparison = compare(two, limits=[{"latency_ms": 5.0}, {"latency_ms": 6.0}, {"speedup": 2.0}])

    assert comparison.tested == 1
    found = [cells(comparison, line)[1] for line in range(3)]
    assert [one.p_corrected for one in found] == [found[0].difference.p] * 3


def test_two_seeds_that_agree_by_chance_are_not_resolved(write):
    runs = [
        write(f"{name}{seed}", [student(right, 4.0)], settings=one | {"seed": seed})
        for name, one, rights in (("a", {}, (345, 350)), ("b", OTHER, (355, 361)))
        for seed, right in enumerate(rights)
    ]
    second = cells(compare(runs))[1]
    assert second.difference.value == pytest.approx(10.5 / EXAMPLES)
    assert not second.is_resolved


def test_an_epoch_that_dev_chose_is_told(write):
    runs = [
        write("a", [student(328, 4.0)]),
        write("b", [student(360, 4.0, is_optimistic=True)], settings=OTHER),
    ]
    comparison = compare(runs)
    assert cells(comparison)[1].verdict == "better, but dev chose the epoch of random"
    assert any(
        f"Dev chose the epoch in {runs[1]} (--stop_on dev)" in remark
        for remark in comparison.remarks
    )
    told = "random is better than tpe at speed-up ≥ 2× by +8.0"
    assert told in summary(comparison)
    assert summary(comparison).endswith("points, but dev chose the epoch of random.")
    text = Page(render_comparison(comparison)).text
    assert "dev chooses nothing" not in text
    assert "which chose the epoch of some of them" in text
    swapped = cells(compare(runs[::-1]))[1]
    assert swapped.verdict == "worse, but dev chose the epoch of random"


def test_epochs_that_dev_chose_on_both_sides_leave_the_verdict(write):
    runs = [
        write("a", [student(328, 4.0, is_optimistic=True)]),
        write("b", [student(360, 4.0, is_optimistic=True)], settings=OTHER),
    ]
    assert cells(compare(runs))[1].verdict == "better"


def test_an_interval_that_ends_at_none_stays(write):
    runs = [
        write("a", [student(4, 4.0, quality_low=0.0)]),
        write("b", [student(328, 4.0)], settings=OTHER),
    ]
    assert cells(compare(runs))[0].low == 0.0


@pytest.mark.parametrize(
    ("changes", "teacher", "why"),
    [
        ({"teacher_latency_ms": None}, {}, "not every student was timed in turn with its teacher"),
        ({}, {"architecture": None}, "the teachers are not known to be of one shape"),
        ({}, {"architecture": SHAPE | {"layers": 9}}, "not known to be of one shape"),
    ],
)
def test_latencies_without_a_common_clock_are_as_told(write, changes, teacher, why):
    runs = [
        write("a", [student(360, 4.0)]),
        write(
            "b",
            [student(360, 8.0, teacher_ms=20.0) | changes],
            settings=OTHER,
            teacher_ms=20.0,
        ),
    ]
    file = Path(runs[1]) / "teacher/metrics.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | teacher))
    comparison = compare(runs, limits=[{"latency_ms": 9.0}])

    assert [cell.cost for cell in cells(comparison)] == pytest.approx([4.0, 8.0])
    assert comparison.remarks[-1].startswith("Latencies are as each run told them, for ")
    assert why in comparison.remarks[-1]


def test_teachers_of_unknown_shape_are_not_of_one(write):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(360, 8.0, teacher_ms=20.0)], settings=OTHER, teacher_ms=20.0),
    ]
    for run in runs:
        file = Path(run) / "teacher/metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"architecture": None}))
    assert "the shape of the teachers is not known" in compare(runs).remarks[-1]


TRIALS = (
    ("complete", 0.8, 5.0, 10.0, ""),
    ("infeasible", "", 20.0, 0.0, ""),
    ("complete", 0.9, 2.0, 30.0, ""),
    ("complete", 0.9, 2.0, 0.0, 2),
    ("failed", "", 2.0, 5.0, ""),
)


def test_hypervolumes_are_areas_under_the_front(write):
    """Of the box to quality 0 at 10 ms: 0.8 times one half, then 0.9 times four fifths."""
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [student(328, 5.0)], trials=TRIALS[:2], settings=OTHER),
    ]
    volumes = compare(runs).volumes
    first, second = volumes.each

    assert first.courses[0].volumes == pytest.approx((0.4, 0.72, 0.72))
    assert first.courses[0].seconds == (10.0, 40.0, 45.0)
    assert (volumes.candidates, volumes.seconds, volumes.reference) == (1, 10.0, 10.0)
    assert first.at_end == pytest.approx((0.72,))
    assert first.at_candidates == first.at_seconds == second.at_end == pytest.approx((0.4,))
    assert first.finished == pytest.approx((0.9 * 0.6,))
    assert first.difference is None


def test_a_run_without_students_has_no_volume_of_them(write):
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [], trials=TRIALS, settings=OTHER, state={"status": "interrupted"}),
    ]
    comparison = compare(runs)
    second = comparison.volumes.each[1]
    assert second.finished == (None,)
    assert second.at_end == pytest.approx((0.72,))
    assert comparison.to_dict()["hypervolume"]["methods"][1]["finished"] == [None]


def test_equal_budgets_are_those_of_the_runs_that_searched(write):
    distilled = write("c", [student(300, 4.0)], settings={"student": "3x64"})
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [student(328, 5.0)], trials=TRIALS[:2], settings=OTHER),
        distilled,
    ]
    comparison = compare(runs)
    assert comparison.volumes.candidates == 1
    assert [len(one.at_candidates) for one in comparison.volumes.each] == [1, 1, 0]
    assert "smallest of these budgets, too" in comparison.remarks[0]


def test_why_no_volumes_are_at_equal_budgets_is_told(write):
    """All candidates of the second were over the limit or failed: none has a volume."""
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [student(328, 5.0)], trials=TRIALS[-1:], settings=OTHER),
    ]
    comparison = compare(runs)
    assert comparison.volumes.candidates == 0
    why = "No hypervolumes are compared at equal budgets, for only one method has judged"
    assert why in comparison.remarks[0]


def test_unequal_budgets_are_told_first(write):
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [student(328, 4.0)], trials=TRIALS[:2], settings=OTHER),
    ]
    told = compare(runs).remarks[0]
    assert "tpe 3 (45.0 s); random 1 (10.0 s)" in told


def test_what_differs_is_told(write):
    other = {"search": {"strategy": "random", "proxy_examples": 9}, "final": {"epochs": 7.0}}
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write(
            "b",
            [student(360, 4.0)],
            trials=TRIALS,
            settings=other | {"provenance": {"teacher_sha256": "2", "data_sha256": "3"}},
            state={"limits": {"latency_ms": 5.0}, "status": "interrupted"},
        ),
    ]
    settings = yaml.safe_load((Path(runs[0]) / "settings.yaml").read_text())
    settings["provenance"] = {"teacher_sha256": "1", "data_sha256": "1"}
    (Path(runs[0]) / "settings.yaml").write_text(yaml.safe_dump(settings))
    told = " ".join(compare(runs).remarks)
    for words in (
        "random 7.0",
        "Candidates were judged on",
        "The limits were: tpe speed-up ≥ 2×; random latency ≤ 5 ms",
        "learnt from different examples; those for reports are the same",
        "teachers of different weights, fine-tuned anew in each run, 0.950 to 0.950 on dev",
        "is not complete (interrupted)",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("changes", "how", "message"),
    [
        ({"metric": "f1"}, {}, "differ in their metric: accuracy and f1"),
        ({"device": "other"}, {}, r"differ in their device: chip and other\. .*--by size_mb"),
        ({"workload_label": "batch 9"}, {}, "differ in their workload: batch 1 and batch 9"),
        (
            {},
            {"dev": "e" * 64},
            r"differ in their dev set \(SHA-256\): dddddddddddd and eeeeeeeeeeee",
        ),
        ({"quality_count": 7}, {"answers": False}, "number of dev examples: 400 and 7"),
    ],
)
def test_what_has_no_score_or_clock_in_common_is_refused(write, changes, how, message):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(360, 4.0, **changes)], settings=OTHER, **how),
    ]
    with pytest.raises(RunError, match=message):
        compare(runs)


def test_another_task_is_refused(write):
    runs = [
        write("a", [student(360, 4.0)], answers=False),
        write("b", [student(360, 4.0)], state={"task": "glue/y"}, settings=OTHER),
    ]
    with pytest.raises(RunError, match="differ in their task: glue/x and glue/y"):
        compare(runs)


def test_other_devices_are_compared_by_size(write):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(328, 4.0, device="other")], settings=OTHER),
    ]
    comparison = compare(runs, by="size_mb", limits=[{"size_mb": 5.0}])
    assert cells(comparison)[1].verdict == "worse"
    with pytest.raises(RunError, match="differ in their device"):
        compare(runs, by="size_mb", limits=[{"latency_ms": 5.0}])


def test_runs_on_text_are_refused_with_a_way(write, two):
    text = write("c", [student(300, 4.0)], settings={"recipe": "autodistil"})
    with pytest.raises(RunError, match=r"has no task: .*`stillhouse finetune"):
        compare([two[0], text])


def test_a_run_that_has_judged_nothing_is_refused(write, two):
    with pytest.raises(RunError, match=r"holds nothing to compare yet \(running\)"):
        compare([two[0], write("c", [], state={"status": "running"})])


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (["{a}"], SettingsError, "two runs at least, got 1"),
        (["{a}", "{a}/."], RunError, "are one run: name each run once"),
        (["{a}", "{a}/nothing"], RunError, "is not a run directory"),
        (["x={a}", "x={b}"], SettingsError, "all of one method"),
        (["{a}", "=x"], SettingsError, "given as PATH or NAME=PATH"),
    ],
)
def test_runs_that_cannot_be_compared(two, given, error, message):
    named = [one.format(a=two[0], b=two[1]) for one in given]
    with pytest.raises(error, match=message):
        compare(named)


def test_two_seeds_of_one_method_are_parted_by_names(write):
    runs = [write(f"a{seed}", [student(360, 4.0)], settings={"seed": seed}) for seed in (0, 1)]
    with pytest.raises(SettingsError, match="the same settings but"):
        compare(runs)
    named = compare([f"first={runs[0]}", f"second={runs[1]}"])
    assert [method.name for method in named.methods] == ["first", "second"]


@pytest.mark.parametrize(
    ("limits", "by", "message"),
    [
        ([{"speed": 2.0}], "latency_ms", "a limit must be on latency_ms, .* got 'speed'"),
        ([{"speedup": 0.0}], "latency_ms", "the limit speedup must be a number above 0, got 0"),
        ([{"speedup": math.inf}], "latency_ms", "must be a number above 0, got inf"),
        ([{}], "latency_ms", "got none"),
        ([], "weight", "--by must be one of latency_ms, .* got 'weight'"),
    ],
)
def test_limits_and_costs_that_there_are_not(two, limits, by, message):
    with pytest.raises(SettingsError, match=message):
        compare(two, limits=limits, by=by)


def test_a_fine_tuned_model_is_compared_by_its_size(write, tmp_path):
    runs = []
    for name, right in (("a", 360), ("b", 328)):
        run = Path(write(name, [], settings={"finetune": {"model": f"m/{name}"}}))
        untimed = dict.fromkeys(
            ("latency_ms", "latency_low_ms", "latency_high_ms", "teacher_latency_ms")
        )
        write_model(run / "model", student(right, 1.0) | untimed)
        (run / "trials.csv").unlink()
        runs.append(str(run))
    with pytest.raises(RunError, match=r"tells no latency: .* --by size_mb"):
        compare(runs)
    comparison = compare(runs, by="params_m", limits=[{"params_m": 2.0}])
    assert [method.name for method in comparison.methods] == ["fine-tuned m/a", "fine-tuned m/b"]
    assert cells(comparison)[1].verdict == "worse"


def test_jobs_that_train_one_model_are_named_by_it(write):
    runs = []
    for name, given in (
        ("a", {"quantise": {"model": "m/a", "weight_bits": 8}}),
        ("b", {"cross_view": {"size": "small"}}),
        ("c", {"extract": {"examples": 9}}),
    ):
        run = Path(write(name, [], settings=given))
        write_model(run / "model", student(360, 1.0))
        (run / "trials.csv").unlink()
        runs.append(str(run))
    (Path(runs[1]) / "model/word_tagger.json").write_text("{}")

    comparison = compare(runs, by="size_mb", limits=[{"size_mb": 5.0}])
    names = [method.name for method in comparison.methods]
    assert names == ["m/a in 8 bits", "cross-view", "c"]


def test_a_damaged_file_of_answers_is_noted(two):
    (Path(two[1]) / "students/1/dev_answers.npz").write_bytes(b"PK")
    comparison = compare(two)
    assert not cells(comparison)[1].difference.is_paired
    assert any("holds no answers that can be read" in remark for remark in comparison.remarks)


class Page(HTMLParser):
    """Collects elements, addresses, text and the figures."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.addresses, self.texts, self.scripts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [
            value for name, value in attrs if name in ("src", "href") and value[0] != "#"
        ]

    def handle_data(self, data):
        (self.scripts if self.tags[-1:] == ["script"] else self.texts).append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def test_the_page_tells_all_and_fetches_nothing(write):
    runs = [
        write("a", [student(360, 4.0)], trials=TRIALS),
        write("b", [student(328, 4.0)], trials=TRIALS[:2], settings=OTHER),
    ]
    page = Page(render_comparison(compare([f"{HOSTILE}={runs[0]}", runs[1]])))

    assert page.addresses == []
    assert page.tags.count("script") == 3
    assert f"random is worse than {HOSTILE} at speed-up ≥ 2× by -8.0" in page.text
    assert "What is not equal" in page.text
    assert "from quality 0 at 10.0 ms, the teacher’s cost" in page.text
    assert "Each method has one run, so what another seed would have found" in page.text
    plots = json.loads(page.scripts[0])
    assert set(plots) == {"finished", "fronts", "by-candidates", "by-seconds"}
    assert HOSTILE not in json.dumps(plots)
    front = next(t for t in plots["fronts"]["data"] if t["mode"] == "lines+markers")
    assert (front["x"], front["y"]) == ([2.0], [0.9])  # which beats the other trial


def test_a_page_without_trials_has_no_front_of_them(two):
    page = Page(render_comparison(compare(two)))
    assert set(json.loads(page.scripts[0])) == {"finished"}
    assert "Fronts of the searches" not in page.text


def test_nothing_resolved_is_said(write):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(358, 4.0)], settings=OTHER),
    ]
    assert summary(compare(runs)).startswith("No difference to tpe is resolved")


def test_as_good_is_said(write):
    runs = [
        write("a", [student(360, 4.0)]),
        write("b", [student(361, 4.0)], settings=OTHER),
    ]
    comparison = compare(runs)
    assert cells(comparison)[1].verdict == "as good (within a point)"
    assert summary(comparison).startswith(
        "As good as tpe (not worse by a point): random at speed-up ≥ 2×. No method is resolved"
    )


def test_the_function_writes_the_page_and_tells_plain_data(two, tmp_path):
    comparison = api.compare_runs(two, limits=[{"speedup": 2.0}], page=tmp_path / "page.html")

    assert "random" in (tmp_path / "page.html").read_text(encoding="utf-8")
    told = json.loads(json.dumps(comparison.to_dict()))
    assert told["quality"][0]["methods"][1]["verdict"] == "worse"
    assert [one["name"] for one in told["methods"]] == ["tpe", "random"]


def test_a_page_that_cannot_be_written_says_so(two, tmp_path):
    with pytest.raises(RunError, match=r"could not be written .* --out"):
        api.compare_runs(two, page=tmp_path / "missing" / "page.html")


def test_tokens_of_a_run_that_began_before_they_were_counted_are_unknown(write):
    counted = {"seconds": 9.0, "tokens": 700}
    part = counted | {"is_partial": True}
    first = write("a", [student(300, 4.0)], state={"cost": counted})
    second = write("b", [student(300, 4.0)], state={"cost": part}, settings=OTHER)
    assert [spent.tokens for spent in compare([first, second]).spent] == [(700,), (None,)]


def test_models_of_masked_words_are_told_on_held_out_text(write):
    metric = {"metric": "masked_lm_accuracy"}
    runs = [
        write("a", [student(360, 4.0, **metric)], answers=False),
        write("b", [student(328, 4.0, **metric)], settings=OTHER, answers=False),
    ]
    page = Page(render_comparison(compare(runs)))

    assert "held-out text chooses nothing" in page.text
    assert "Dashed: the limits above." in page.text
    title = json.loads(page.scripts[0])["finished"]["layout"]["yaxis"]["title"]["text"]
    assert title == "masked_lm_accuracy, held-out text"


def test_limits_that_no_axis_shows_are_not_said_to_be_drawn(two):
    page = Page(render_comparison(compare(two, limits=[{"speedup": 2.0}], by="size_mb")))
    assert "bars are 95 % intervals." in page.text
    assert "Dashed" not in page.text
