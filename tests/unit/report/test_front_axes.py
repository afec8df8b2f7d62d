import json

from stillhouse.report.front_axes import choose_front
from stillhouse.report.gather import gather


def series_of(run, place="front"):
    found = choose_front(gather(run))[place]
    return found, {series.look["name"]: series.points for series in found.series}


def test_every_trial_once_and_every_finished_model_has_all_that_is_known(weighed_run):
    found, series = series_of(weighed_run)

    assert (found.x, found.y) == ("latency_ms", "quality_search")
    names = [axis.name for axis in found.axes]
    assert names[:2] == ["quality_search", "quality"]
    assert {"latency_ms", "size_mb", "parameters", "flops_fraction", "cost_s"} <= set(names)
    assert not {"memory_mb", "reward", "judged"} & set(names)
    assert len(series["front in quality, latency and size"]) == 4
    assert [point.values["size_mb"] for point in series["trials"]] == [6.0]
    assert [point.text for point in series["students, distilled in full"]] == ["1", "2", "10"]
    assert series["teacher"][0].values["flops_fraction"] == 1.0
    assert series["hand-crafted, judged as the trials"][0].low["latency_ms"] == 2.7


def test_a_repeat_is_no_point(full_run):
    _, series = series_of(full_run)
    heads = [point.head for points in series.values() for point in points]

    assert any("trial 1<" in head for head in heads)
    assert not any("trial 3<" in head for head in heads)
    assert len(series["failed"]) == 2  # one of them has no latency, but a number of parameters


def test_students_have_the_ends_of_their_intervals(full_run):
    _, series = series_of(full_run)
    first = series["students, distilled in full"][0]

    assert (round(first.low["quality"], 3), round(first.high["quality"], 3)) == (0.789, 0.849)
    assert first.values["quality"] == 0.819
    assert first.values["quality_search"] == 0.829


def test_limits_stand_at_the_axes_that_they_limit(full_run, rewrite):
    summary = json.loads((full_run / "run.json").read_text())
    limits = {"latency_ms": 5.0, "speedup": 2.0, "size_mb": 6.0, "params_m": 2.5}
    rewrite(full_run / "run.json", {**summary, "limits": limits})

    found, series = series_of(full_run)
    asked = {axis.name: axis.limits for axis in found.axes}

    assert asked["latency_ms"] == (5.0,)  # what the teacher took in the search is not known
    assert asked["speedup"] == (2.0,)
    speedups = [point.values["speedup"] for point in series["students, distilled in full"]]
    assert speedups == [5.0, 1.25, 10.0]
    assert series["teacher"][0].values["speedup"] == 1.0
    assert asked["parameters"] == (2_500_000.0,)
    assert asked["size_mb"] == (6.0,)
    assert asked["quality"] == ()


def test_a_speed_up_limits_the_latency_of_trials_alone(checked_run, rewrite):
    """At half of what the teacher took in the search; finished models were timed with another."""
    (checked_run / "settings.yaml").write_text("search:\n  quality: hidden\n")
    volume = {"reference": {"quality": 0.0, "latency_ms": 9.0}, "by_trial": [0.1]}
    rewrite(checked_run / "run.json", {"limits": {"speedup": 2.0}, "hypervolume": volume})

    (trials, _), (finished, _) = series_of(checked_run), series_of(checked_run, "finished")
    latency, other = (
        next(axis for axis in found.axes if axis.name == "latency_ms")
        for found in (trials, finished)
    )
    assert (latency.limits, latency.limit_note) == ((4.5,), "limit 4.5 ms as of the search")
    assert other.limits == ()


def test_without_trials_dev_lies_upwards(distill_run):
    found, _ = series_of(distill_run)

    assert found.y == "quality"


def test_trials_judged_by_hidden_states_have_a_scale_of_their_own(checked_run):
    (checked_run / "settings.yaml").write_text("search:\n  quality: hidden\n")
    found, series = series_of(checked_run)
    _, finished = series_of(checked_run, "finished")

    assert found.y == "judged"
    assert found.up[0].label == "1 less hidden-state loss, search-validation"
    assert "students, distilled in full" not in series
    assert "students, distilled in full" in finished


def test_nothing_measured_has_no_axes(interrupted_run):
    assert choose_front(gather(interrupted_run)) == {}


def test_texts_of_the_run_are_escaped(checked_run):
    for found in choose_front(gather(checked_run)).values():
        written = json.dumps(found.data)
        assert "<script" not in written
        assert "&lt;script" in written
