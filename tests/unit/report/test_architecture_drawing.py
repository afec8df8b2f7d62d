import json
from itertools import pairwise

import pytest

from stillhouse.report import write_report
from stillhouse.report.architecture_drawing import WIDEST_PX, Model, draw_models
from stillhouse.report.gather import gather
from stillhouse.report.models import draw_architectures
from stillhouse.report.shapes import read_shape


def model(name, **changes):
    sizes = {"layers": 2, "hidden_size": 100, "heads": 4, "ffn_size": 400} | changes
    return Model(name=name, mark="", kind="student", label=name, note="", shape=read_shape(sizes))


def bars_of(picture, look):
    return [bar for bar in picture.bars if bar.look == look]


def test_all_models_have_one_scale():
    gallery = draw_models([model("large"), model("small", hidden_size=50, heads=2, ffn_size=100)])
    large, small = gallery.pictures

    assert {bar.width for bar in bars_of(large, "feed-forward")} == {WIDEST_PX}
    assert {bar.width for bar in bars_of(small, "feed-forward")} == {WIDEST_PX / 4}
    assert {bar.width for bar in bars_of(small, "attention")} == {WIDEST_PX / 8}
    assert gallery.scale_px == pytest.approx(gallery.scale_units * WIDEST_PX / 400, abs=0.1)
    assert gallery.scale_px <= WIDEST_PX / 3


def test_parts_are_centred_and_follow_each_other_downwards():
    [picture] = draw_models([model("one")]).pictures
    middles = {bar.x + bar.width / 2 for bar in picture.bars}

    assert middles == {picture.width / 2}
    assert [bar.look for bar in picture.bars] == [
        "embeddings",
        "attention",
        "feed-forward",
        "attention",
        "feed-forward",
    ]
    ends = [(bar.y, bar.y + bar.height) for bar in picture.bars]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert ends[-1][1] <= picture.height


def test_attention_is_cut_where_heads_meet():
    [picture] = draw_models([model("one")]).pictures
    bar = bars_of(picture, "attention")[0]

    widths = [b - a for a, b in pairwise((bar.x, *bar.cuts, bar.x + bar.width))]
    assert widths == pytest.approx([bar.width / 4] * 4, abs=0.02)


def test_heads_that_are_too_thin_to_be_seen_are_not_cut():
    [_, picture] = draw_models([model("wide", ffn_size=40_000), model("one")]).pictures

    assert bars_of(picture, "attention")[0].cuts == ()


def test_many_layers_are_drawn_thinner():
    [few] = draw_models([model("few")]).pictures
    [many] = draw_models([model("many", layers=48)]).pictures

    assert many.bars[0].height < few.bars[0].height
    assert many.height < 700


def test_nothing_is_no_gallery():
    assert draw_models([]) is None


def test_a_run_draws_teacher_students_and_references(referenced_run, describe, rewrite):
    shape = {"family": "bert", "layers": 4, "hidden_size": 128, "heads": 4, "ffn_size": 512}
    told = {"metric": "accuracy", "quality": 0.84, "latency_ms": 8.0, "architecture": shape}
    rewrite(referenced_run / "teacher/metrics.json", told)
    points = describe["references.json"]()["points"]
    rewrite(referenced_run / "references.json", {"points": [{**points[0], "architecture": shape}]})

    gallery = draw_architectures(gather(referenced_run))

    names = [picture.model.name for picture in gallery.pictures]
    assert names == ["teacher", "student 1", "student 2", "student 10", "MobileBERT"]
    page = write_report(referenced_run).read_text(encoding="utf-8")
    assert page.count('<figure class="model">') == 5
    assert 'aria-label="teacher: layers 1 to 4, hidden 128: attention 128 wide, 4 heads' in page
    assert "is not among this run’s files" not in page


def test_a_teacher_of_unknown_architecture_is_left_out_and_told(full_run):
    gallery = draw_architectures(gather(full_run))
    page = write_report(full_run).read_text(encoding="utf-8")

    assert [picture.model.mark for picture in gallery.pictures] == ["1", "2", "10"]
    assert "The teacher’s architecture is not among this run’s files." in page


def test_selected_chains_are_drawn_with_their_convolutions(chain_run):
    gallery = draw_architectures(gather(chain_run))
    first = gallery.pictures[0]

    assert [picture.model.mark for picture in gallery.pictures] == ["1", "2"]
    assert [bar.written for bar in bars_of(first, "convolution")] == ["3"]


def test_a_run_without_students_has_no_drawings(interrupted_run):
    assert draw_architectures(gather(interrupted_run)) is None
    assert "Architectures</h2>" not in write_report(interrupted_run).read_text(encoding="utf-8")


def test_a_teacher_that_only_a_student_tells_of_is_drawn_as_well(chain_run, rewrite):
    path = chain_run / "students/1/metrics.json"
    shape = {"family": "bert", "layers": 6, "hidden_size": 384, "heads": 12, "ffn_size": 1536}
    rewrite(path, json.loads(path.read_text()) | {"teacher_architecture": shape})

    first, *_ = draw_architectures(gather(chain_run)).pictures

    assert (first.model.name, len(bars_of(first, "attention"))) == ("teacher", 6)
