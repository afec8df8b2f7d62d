import pytest

from stillhouse.report.course import choose_course
from stillhouse.report.gather import gather

VOLUMES = {"reference": {"quality": 0.0, "latency_ms": 8.0}, "by_trial": [0.2, 0.4, 0.4, 0.6]}


@pytest.fixture
def course_run(full_run, rewrite):
    """Four trials of 12.5 s, the second of them over a limit."""
    rows = [
        "number,state,quality,latency_ms,cost_s,reason,hidden_size",
        "0,complete,0.70,1.0,12.5,,64",
        "1,infeasible,,9.0,12.5,,64",
        "2,complete,0.60,0.5,12.5,,64",
        "3,complete,0.80,2.0,12.5,,64",
    ]
    (full_run / "trials.csv").write_text("\n".join(rows), encoding="utf-8")
    rewrite(full_run / "run.json", {"hypervolume": VOLUMES})
    return full_run


def series_of(run, place):
    found = choose_course(gather(run))[place]
    return {series.look["name"]: series.points for series in found.series}


def columns(points, *names):
    return [[point.values.get(name) for point in points] for name in names]


def test_the_best_so_far_never_falls(course_run):
    series = series_of(course_run, "course")

    assert columns(series["trials"], "trial", "quality") == [[0, 2, 3], [0.7, 0.6, 0.8]]
    assert columns(series["best so far"], "trial", "quality") == [[0, 3], [0.7, 0.8]]


def test_a_line_has_its_steps_and_its_end(course_run):
    path = course_run / "trials.csv"
    more = [f"{number},complete,0.5,1.0,12.5,,64" for number in range(4, 9)]
    path.write_text("\n".join([path.read_text(), *more]))
    best = series_of(course_run, "course")["best so far"]

    assert columns(best, "trial", "quality") == [[0, 3, 8], [0.7, 0.8, 0.8]]


def test_time_counts_what_every_trial_cost(course_run):
    series = series_of(course_run, "course")

    assert columns(series["trials"], "spent_s") == [[12.5, 37.5, 50.0]]


def test_the_hypervolume_stands_at_its_trials(course_run):
    [points] = series_of(course_run, "hypervolume").values()

    assert columns(points, "trial", "hypervolume", "spent_s") == [
        [0, 1, 3],
        [0.2, 0.4, 0.6],
        [12.5, 25.0, 50.0],
    ]


def test_without_costs_there_is_no_time(course_run):
    path = course_run / "trials.csv"
    path.write_text(path.read_text().replace(",12.5,", ",,"))
    found = choose_course(gather(course_run))["course"]

    assert [axis.name for axis in found.across] == ["trial"]
    assert not found.has_choice


def test_a_reward_lies_upwards_first(course_run):
    path = course_run / "trials.csv"
    lines = path.read_text().splitlines()
    rewards = ["reward", "0.5", "", "0.4", "0.9"]
    path.write_text("\n".join(f"{line},{one}" for line, one in zip(lines, rewards, strict=True)))
    found = choose_course(gather(course_run))["course"]
    best = [series.points for series in found.series if series.look["name"] == "best so far"]

    assert (found.x, found.y) == ("trial", "reward")
    assert columns(best[1], "reward") == [[0.5, 0.9]]


def test_episodes_of_a_controller_are_shaded_in_turn(course_run, rewrite, describe):
    episodes = [describe["episode"](number, [], []) for number in range(2)]  # two trials each
    rewrite(course_run / "controller.json", describe["controller.json"](episodes=episodes))

    found = choose_course(gather(course_run))["course"]
    trials, time = found.across

    assert trials.bands == ((0.0, 1.0, "episode 0"),)
    assert time.bands == ((0.0, 25.0, "episode 0"),)


def test_one_trial_has_no_course(distill_run):
    assert choose_course(gather(distill_run)) == {}
