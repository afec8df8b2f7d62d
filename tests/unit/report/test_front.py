import json

from stillhouse.report.front import draw_finished, draw_front
from stillhouse.report.gather import gather
from stillhouse.report.trials import best_trials


def traces_of(run):
    return {trace["name"]: trace for trace in draw_front(gather(run))["data"]}


def test_front_holds_what_no_trial_beats_and_no_repeat(full_run):
    assert [trial.number for trial in best_trials(gather(full_run).trials)] == [0, 1, 7]


def test_of_equal_trials_all_are_in_the_front(full_run):
    path = full_run / "trials.csv"
    path.write_text(path.read_text().replace("2,complete,0.75,3.0", "2,complete,0.8,2.0"))

    assert [trial.number for trial in best_trials(gather(full_run).trials)] == [0, 1, 2, 7]


def test_a_front_in_more_objectives_has_marks_and_no_line(weighed_run):
    traces = traces_of(weighed_run)
    front = traces["front in quality, latency and size"]

    assert front["x"] == [1.0, 2.0, 3.0, 4.0]
    assert (front["mode"], "line" in front) == ("markers", False)
    assert traces["trials"]["x"] == [3.5]
    assert "size 4.0 MB" in front["hovertext"][2]
    assert "FLOPs" not in front["hovertext"][2]


def test_a_front_without_latency_has_no_line_either(weighed_run, rewrite):
    rewrite(weighed_run / "run.json", {"objectives": ["quality", "size_mb"]})

    assert traces_of(weighed_run)["front in quality and size"]["x"] == [2.0, 3.0, 4.0]


def test_under_a_reward_the_front_is_that_of_quality_and_latency(weighed_run, rewrite):
    rewrite(weighed_run / "run.json", {"objectives": ["reward"]})

    assert traces_of(weighed_run)["front in quality and latency"]["x"] == [1.0, 2.0, 4.0]


def test_references_stand_among_the_trials_with_their_names(referenced_run):
    marks = traces_of(referenced_run)["hand-crafted, judged as the trials"]

    assert marks["text"] == ["MobileBERT", "MobileBERT-tiny"]
    assert marks["textposition"] == ["bottom center", "top center"]  # the faster one above
    assert (marks["x"], marks["y"]) == ([3.0, 2.5], [0.82, 0.78])
    assert "&lt;script&gt;" in marks["hovertext"][0]
    assert "2.7× as fast as the teacher" in marks["hovertext"][0]
    assert "<br>latency predicted<br>" in marks["hovertext"][0]


def test_a_reference_without_a_figure_is_not_drawn(referenced_run, rewrite, describe):
    first, second = describe["references.json"]()["points"]
    points = [first | {"quality": None}, second]
    rewrite(referenced_run / "references.json", {"points": points})

    marks = traces_of(referenced_run)["hand-crafted, judged as the trials"]

    assert marks["text"] == ["MobileBERT-tiny"]


def test_every_measured_trial_is_drawn_once(full_run):
    traces = traces_of(full_run)

    assert traces["front in quality and latency"]["x"] == [1.0, 2.0, 4.0]
    assert traces["trials"]["x"] == [3.0]
    assert traces["over a limit"]["x"] == [7.5]
    assert traces["failed"]["x"] == [2.5]
    assert "unfinished" not in traces


def test_stopped_trials_are_drawn_below_the_front(full_run):
    path = full_run / "trials.csv"
    path.write_text(path.read_text().replace("infeasible", "stopped"))

    assert traces_of(full_run)["stopped early"]["x"] == [7.5]


def test_students_and_teacher_stand_on_the_set_of_the_trials(full_run):
    traces = traces_of(full_run)

    assert traces["teacher"]["y"] == [0.85]
    assert traces["students, distilled in full"]["y"] == [0.829, 0.835, 0.75]


def test_without_trials_dev_is_drawn_with_its_interval(distill_run):
    student = traces_of(distill_run)["students, distilled in full"]

    assert student["y"] == [0.81]
    assert abs(student["error_y"]["array"][0] - 0.03) < 1e-9


def test_limit_is_a_line_at_its_latency(full_run):
    (line,) = draw_front(gather(full_run))["layout"]["shapes"]

    assert line["x0"] == line["x1"] == 5.0


def test_the_limit_is_told_at_the_bottom_away_from_the_teacher(full_run):
    layout = draw_front(gather(full_run))["layout"]
    [note] = layout["annotations"]

    assert (note["text"], note["yanchor"]) == ("limit 5 ms", "bottom")
    assert note["y"] == layout["yaxis"]["domain"][0]  # above the strip of untrained trials


def test_a_speed_up_is_drawn_where_the_search_knew_it(full_run, rewrite):
    """The teacher's 8 ms at the end judged no trial."""
    volume = {"reference": {"quality": 0.0, "latency_ms": 14.0}, "by_trial": [0.1]}
    rewrite(full_run / "run.json", {"limits": {"speedup": 2.0}, "hypervolume": volume})
    layout = draw_front(gather(full_run))["layout"]

    assert layout["shapes"][0]["x0"] == 7.0
    assert layout["annotations"][0]["text"] == "limit 7 ms as of the search"


def test_wide_ranges_are_drawn_on_a_log_axis_with_the_limit_in_place(full_run):
    path = full_run / "trials.csv"
    path.write_text(path.read_text().replace(",7.5,", ",750,"))

    layout = draw_front(gather(full_run))["layout"]

    assert layout["xaxis"]["type"] == "log"
    assert 10 ** layout["annotations"][0]["x"] - 5.0 < 1e-9


def test_hovers_tell_the_architecture_and_hold_no_markup_of_the_run(full_run):
    figure = draw_front(gather(full_run))
    traces = {trace["name"]: trace for trace in figure["data"]}

    assert "2 × 128" in traces["front in quality and latency"]["hovertext"][1]
    assert "&lt;script&gt;" in traces["failed"]["hovertext"][0]
    assert "<script" not in json.dumps(figure)


def test_nothing_measured_is_no_figure(interrupted_run):
    assert draw_front(gather(interrupted_run)) is None


def test_competitors_stand_on_the_set_of_the_trials_with_a_marker_of_their_own(checked_run):
    traces = traces_of(checked_run)
    competitors = traces["competitors, distilled in full"]
    symbols = [trace["marker"].get("symbol") for trace in traces.values()]

    assert (competitors["x"], competitors["y"]) == ([3.2, 2.2], [0.805, 0.805])
    assert competitors["text"] == ["c1", "c2"]
    assert symbols.count("square") == 1


def test_finished_models_are_compared_on_dev_with_intervals(checked_run):
    traces = {trace["name"]: trace for trace in draw_finished(gather(checked_run))["data"]}
    competitors = traces["competitors, distilled in full"]

    assert competitors["y"] == [0.798, 0.77]
    assert abs(competitors["error_y"]["arrayminus"][0] - 0.03) < 1e-9
    assert abs(competitors["error_y"]["array"][0] - 0.02) < 1e-9
    assert traces["students, distilled in full"]["y"] == [0.819, 0.825, 0.74]
    assert traces["teacher"]["y"] == [0.84]
    assert "trials" not in traces


def test_without_competitors_dev_is_left_to_the_table(full_run, distill_run):
    assert draw_finished(gather(full_run)) is draw_finished(gather(distill_run)) is None


def test_hovers_of_competitors_hold_no_markup(checked_run):
    assert "<script" not in json.dumps(draw_finished(gather(checked_run)))
