from stillhouse.report import write_report
from stillhouse.report.gather import gather
from stillhouse.report.genes import MOST_MAPS, MOST_WRITTEN, draw_genes


def search(count):
    """Maps of three layers, the later the fitter, and one that failed."""
    maps = [
        {"genes": [0, min(place, 5), 6], "fitness": 0.5 + place / 1000, "scores": {}}
        for place in range(count)
    ]
    maps.append({"genes": [1, 1, 1], "fitness": None, "reason": "no room"})
    told = {"layers": 3, "teacher_layers": 6, "named": {"<b>": [0, 1, 6]}, "maps": maps}
    return {"depths": {"3": told}}


def genes_of(run, count, rewrite):
    rewrite(run / "layer_maps.json", search(count))
    return draw_genes(gather(run).map_searches)


def test_a_column_is_a_map_and_the_fittest_stands_first(interrupted_run, rewrite):
    [figure] = genes_of(interrupted_run, 3, rewrite).values()
    [trace] = figure["data"]

    # Layers 1 to 3 from the bottom; a layer without supervision has no colour.
    assert trace["z"] == [[None, None, None], [2, 1, None], [6, 6, 6]]
    assert trace["text"][0] == ["0", "0", "0"]
    assert (trace["zmin"], trace["zmax"]) == (1, 6)
    assert "layer 1 learns from no layer" in trace["hovertext"][0][0]
    assert "(&lt;b&gt;)" in trace["hovertext"][1][1]


def test_of_many_maps_the_fittest_are_drawn_without_numbers(interrupted_run, rewrite):
    [figure] = genes_of(interrupted_run, MOST_MAPS + 5, rewrite).values()
    [few] = genes_of(interrupted_run, MOST_WRITTEN, rewrite).values()

    assert len(figure["data"][0]["x"]) == MOST_MAPS
    assert figure["data"][0]["texttemplate"] == ""
    assert few["data"][0]["texttemplate"] == "%{text}"


def test_one_map_has_nothing_to_stand_beside(interrupted_run, rewrite):
    assert genes_of(interrupted_run, 1, rewrite) == {}


def test_the_page_shows_them(interrupted_run, rewrite):
    rewrite(interrupted_run / "layer_maps.json", search(4))
    page = write_report(interrupted_run).read_text(encoding="utf-8")

    assert "Genes of the fittest maps" in page
    assert 'id="genes-3"' in page
