"""What a search for a layer map shows: the best, beside the rules, and how the search went."""

import json

import pytest

from stillhouse.report.gather import gather
from stillhouse.report.layer_map import draw_map_searches, read_map_searches
from stillhouse.report.page import render


def judged(number, genes, fitness, *, scores=None, reason=""):
    return {
        "number": number,
        "genes": genes,
        "state": "complete" if fitness is not None else "failed",
        "fitness": fitness,
        "reason": reason,
        "cost_s": 2.5,
        "scores": scores or {},
    }


MAPS = [
    judged(0, [2, 4, 6], 0.70, scores={"glue/sst2": 0.8, "glue/rte": 0.6}),
    judged(1, [0, 0, 6], 0.68, scores={"glue/sst2": 0.81, "glue/rte": 0.55}),
    judged(2, [0, 2, 5], 0.74, scores={"glue/sst2": 0.82, "glue/rte": 0.66}),
    judged(3, [1, 1, 1], None, reason="loss is not finite <b>at step 3</b>"),
    judged(4, [1, 2, 3], 0.74, scores={"glue/sst2": 0.82, "glue/rte": 0.66}),
]
SEARCH = {
    "architecture_label": "3 × 384",
    "layers": 3,
    "teacher_layers": 6,
    "any_order": False,
    "size": 138,
    "strategy": "genetic",
    "evaluations": 20,
    "judge": "distilling on <i>text</i>",
    "seeds": 1,
    "named": {"uniform": [2, 4, 6], "last": [0, 0, 6]},
    "constants": {"glue/sst2": 0.5, "glue/rte": 0.6},
    "best": [0, 2, 5],
    "maps": MAPS,
}


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"status": "running"}))
    return tmp_path


@pytest.fixture
def search(run):
    def write(**changes):
        depths = {"3": {**SEARCH, **changes}}
        (run / "layer_maps.json").write_text(json.dumps({"depths": depths}))
        return read_map_searches(run, [])[0]

    return write


def test_the_best_of_equals_is_the_earlier_and_failures_come_last(search):
    found = search()
    assert [one.place for one in found.ranked] == [3, 5, 1, 2, 4]
    assert found.best.genes == (0, 2, 5)
    assert (found.best.told, found.best.layers) == ("0, 2, 5", "2 from 2, 3 from 5")
    assert [one.name for one in found.ranked] == ["", "", "uniform", "last", ""]
    assert found.tasks == ["glue/sst2", "glue/rte"]


def test_how_it_compares_and_how_far_it_came(search):
    found = search()
    assert found.beside_named == (
        "Its fitness is 0.7400, beside 0.7000 of uniform (2, 4, 6) and 0.6800 of last (0, 0, 6)."
    )
    assert found.course == ("5 of 20 maps were judged so far, 1 of them failed; there are 138.")
    done = search(evaluations=5, size=None, maps=MAPS[:3])
    assert done.course == "3 of 5 maps were judged so far."
    assert search(evaluations=3, maps=MAPS[:3]).course == "3 maps were judged; there are 138."


def test_a_task_that_maps_did_not_teach_is_warned_of(search):
    assert search().warning == ""  # half of them are above 0.6 on glue/rte: its median is 0.63
    warned = search(constants={"glue/sst2": 0.5, "glue/rte": 0.63}).warning
    assert "constant answer on glue/rte (0.6300)" in warned


def test_many_maps_fold_and_those_with_names_stay(search):
    many = [judged(n, [0, 1, n], 0.9 - n / 100) for n in range(2, 7)] * 3
    found = search(maps=[*many, *MAPS])
    assert len(found.shown) == 12
    assert {one.name for one in found.shown} == {"", "uniform", "last"}


def test_the_picture_has_the_best_so_far_and_every_judged_map(search):
    [(place, figure)] = draw_map_searches([search()]).items()
    assert place == "layer-map-3"
    line, others, named, best = figure["data"]
    assert (line["x"], line["y"]) == ([1, 2, 3, 5], [0.70, 0.70, 0.74, 0.74])
    assert (others["x"], named["x"], best["x"]) == ([3, 5], [1, 2], [3])
    assert "<b>map 3: 0, 2, 5</b>" in best["hovertext"][0]


def test_the_page_tells_of_it_and_escapes(search, run):
    search()
    page = render(gather(run))
    assert "<h2>Layer map</h2>" in page
    assert "<b>0, 2, 5</b> is the best layer map found for 3 × 384" in page
    assert "&lt;i&gt;text&lt;/i&gt;" in page
    assert "failed: loss is not finite &lt;b&gt;at step 3&lt;/b&gt;" in page
    assert "<b>at step 3" not in page


def test_a_search_without_a_judged_map_has_no_picture(search, run):
    found = search(maps=[MAPS[3]])
    assert (found.best, found.beside_named, draw_map_searches([found])) == (None, "", {})
    assert "No layer map has been judged yet." in render(gather(run))


def test_a_run_without_such_a_search_has_no_section(run):
    assert read_map_searches(run, []) == ()
    assert "Layer map" not in render(gather(run))


def test_a_damaged_file_is_noted(run):
    (run / "layer_maps.json").write_text("{")
    notes = []
    assert read_map_searches(run, notes) == ()
    assert len(notes) == 1
    assert "layer_maps.json" in notes[0]
