import json

from stillhouse.report.gather import gather
from stillhouse.report.scatter import draw_predictions, draw_proxy_check


def test_trained_predictions_are_drawn_and_coloured_by_episode(checked_run):
    (trace,) = draw_predictions(gather(checked_run))["data"]

    assert (trace["x"], trace["y"]) == ([0.42, 0.43, 0.51], [0.85, 0.86, 0.91])
    assert trace["marker"]["color"] == [1, 1, 2]


def test_winners_and_controls_differ_in_shape_and_colour(checked_run):
    controls, winners = draw_proxy_check(gather(checked_run))["data"]

    assert (winners["x"], winners["y"]) == ([0.83, 0.80], [0.86, 0.87])
    assert (controls["x"], controls["y"]) == ([0.75], [0.78])
    assert winners["marker"]["color"] != controls["marker"]["color"]
    assert winners["marker"].get("symbol", "circle") != controls["marker"]["symbol"]


def test_a_role_without_points_is_not_drawn(checked_run, rewrite, describe):
    check = describe["proxy_final.json"]()
    check["points"] = [point for point in check["points"] if point["role"] == "winner"]
    rewrite(checked_run / "proxy_final.json", check)

    assert [t["name"] for t in draw_proxy_check(gather(checked_run))["data"]] == ["winners"]


def test_hovers_and_titles_hold_no_markup_of_the_run(checked_run, rewrite, describe):
    hostile = describe["proxy_final.json"](metric="<i>f1</i>", set="<b>all</b>")
    rewrite(checked_run / "proxy_final.json", hostile)

    drawn = json.dumps(draw_proxy_check(gather(checked_run)))

    assert "&lt;script&gt;" in drawn
    assert not any(markup in drawn for markup in ("<script", "<i>", "<b>all"))


def test_nothing_to_show_is_no_figure(full_run):
    contents = gather(full_run)

    assert draw_predictions(contents) is draw_proxy_check(contents) is None


def test_an_untrained_controller_is_no_figure(checked_run, rewrite, describe):
    first = [describe["episode"](0, [0.1, 0.2], [0.5, 0.6])]
    rewrite(checked_run / "controller.json", describe["controller.json"](episodes=first))

    assert draw_predictions(gather(checked_run)) is None
