import json
import shutil

from stillhouse.report.gather import gather
from stillhouse.report.subnets import draw_subnets


def test_every_subnet_is_drawn_by_space_and_the_chosen_ones_are_marked(family_run):
    tiny, small, chosen = draw_subnets(gather(family_run))["data"]

    assert (tiny["name"], tiny["x"], tiny["y"]) == ("tiny", [0.03, 0.05], [6.5, 5.75])
    assert (small["name"], small["x"]) == ("small", [0.2, 0.25, 0.4])
    assert (chosen["x"], chosen["y"]) == ([0.25, 0.05], [4.05, 5.75])
    assert chosen["text"] == ["1", "2"]


def test_spaces_differ_in_colour_and_symbol(family_run):
    markers = [trace["marker"] for trace in draw_subnets(gather(family_run))["data"]]

    assert len({marker["color"] for marker in markers}) == 3
    assert markers[0]["symbol"] != markers[1]["symbol"]


def test_a_student_chosen_twice_is_marked_once(family_run, rewrite, describe):
    (first, second) = describe["family.json"]()["searches"]
    again = {**first, "limits": {"flops_fraction": 0.35}}
    rewrite(family_run / "family.json", {"searches": [first, second, again]})

    figure = draw_subnets(gather(family_run))

    assert figure["data"][-1]["text"] == ["1", "2"]
    assert [line["x0"] for line in figure["layout"]["shapes"]] == [0.3, 0.35]


def test_a_limit_on_flops_is_a_line_with_its_share(family_run):
    layout = draw_subnets(gather(family_run))["layout"]

    assert [line["x0"] for line in layout["shapes"]] == [0.3]
    assert [note["text"] for note in layout["annotations"]] == ["limit 30 %"]


def test_without_a_limit_on_flops_there_is_no_line(family_run, rewrite, describe):
    searches = describe["family.json"]()["searches"][1:]
    rewrite(family_run / "family.json", {"searches": searches})

    assert draw_subnets(gather(family_run))["layout"]["shapes"] == []


def test_a_hover_names_the_subnet_and_its_costs(family_run):
    tiny, _, chosen = draw_subnets(gather(family_run))["data"]

    assert tiny["hovertext"][1] == (
        "space tiny<br>2 × 128, 2 heads of 32, FFN 512, gelu<br>relation loss 5.7500<br>"
        "5.0 % of the teacher’s FLOPs<br>2.00 M parameters"
    )
    assert chosen["hovertext"][1].startswith("<b>student 2</b>, space tiny<br>2 × 128")


def test_hovers_and_names_hold_no_markup_of_the_run(family_run, rewrite, describe):
    family = describe["family.json"]()
    family["searches"][0]["best"]["space"] = "<i>small</i>"
    family["searches"][0]["best"]["architecture"] = {"family": "<script>"}
    rewrite(family_run / "family.json", family)
    (family_run / "supernets/tiny").rename(family_run / "supernets/<b>tiny")

    drawn = json.dumps(draw_subnets(gather(family_run)))

    assert "&lt;script&gt;" in drawn
    assert not any(markup in drawn for markup in ("<script", "<i>", "<b>tiny"))


def test_nothing_to_show_is_no_figure(family_run, full_run):
    shutil.rmtree(family_run / "supernets")

    assert draw_subnets(gather(family_run)) is draw_subnets(gather(full_run)) is None
