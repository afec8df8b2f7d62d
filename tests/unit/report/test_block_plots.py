import json

from stillhouse.report.block_plots import draw_blocks, draw_shrinking
from stillhouse.report.gather import gather


def test_every_bin_is_a_line_of_steps_on_a_logarithmic_scale(chain_run):
    drawn = draw_shrinking(gather(chain_run))["shrinking-1"]
    small, large = drawn["data"]  # the bin between them never held any

    assert (small["name"], small["x"], small["y"]) == ("1", [0, 4, 6], [20, 10, 2])
    assert (large["name"], large["y"]) == ("3", [10, 3, 3])
    assert small["line"]["shape"] == "hv"
    assert small["line"]["color"] != large["line"]["color"]
    assert drawn["layout"]["yaxis"]["type"] == "log"


def test_a_block_that_never_shrank_has_no_picture(chain_run, rewrite):
    rewrite(chain_run / "supernets/block-1/shrinking.json", {"alive": [1], "records": []})

    assert list(draw_shrinking(gather(chain_run))) == ["shrinking-2"]


def test_candidates_are_drawn_by_hidden_size_and_the_selected_are_ringed(chain_run):
    small, large, chosen = draw_blocks(gather(chain_run))["blocks-2"]["data"]

    assert (small["name"], small["x"], small["y"]) == ("64", [0.2], [0.9])
    assert (large["name"], large["x"], large["y"]) == ("128", [0.8], [0.7])
    assert chosen["x"] == [0.2, 0.8]
    assert chosen["hovertext"][1].startswith("<b>selected 2</b><br>128: M M<br>loss 0.7000")


def test_a_size_has_the_same_colour_in_every_block(chain_run):
    path = chain_run / "blocks.csv"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "2,64" not in line]
    path.write_text("\n".join(lines), encoding="utf-8")

    drawn = draw_blocks(gather(chain_run))
    colours = {
        place: {trace["name"]: trace["marker"]["color"] for trace in figure["data"]}
        for place, figure in drawn.items()
    }

    assert "64" not in colours["blocks-2"]
    assert colours["blocks-1"]["128"] == colours["blocks-2"]["128"]


def test_a_block_of_several_students_names_them_all(chain_run, rewrite):
    told = json.loads((chain_run / "selected/1/selected.json").read_text(encoding="utf-8"))
    rewrite(chain_run / "selected/3/selected.json", told)

    chosen = draw_blocks(gather(chain_run))["blocks-1"]["data"][-1]

    assert [hover.split("<br>")[0] for hover in chosen["hovertext"]] == [
        "<b>selected 1 and 3</b>",
        "<b>selected 2</b>",
    ]


def test_hovers_hold_no_markup_of_the_run(chain_run):
    with (chain_run / "blocks.csv").open("a", encoding="utf-8") as file:
        file.write("\n1,64,<script>,1,1,0.2,0.3\n")

    drawn = json.dumps(draw_blocks(gather(chain_run)))

    assert "&lt;script&gt;" in drawn
    assert "<script" not in drawn


def test_another_run_has_no_pictures_of_blocks(full_run):
    assert draw_blocks(gather(full_run)) == draw_shrinking(gather(full_run)) == {}
