import json

import pytest

from stillhouse.report import write_report
from stillhouse.report.flash import draw_flash
from stillhouse.report.gather import gather


@pytest.fixture
def flash_run(full_run):
    """Students 1 and 2 come from trials 1 and 2; there is no trial 10."""
    (full_run / "settings.yaml").write_text("recipe: autodistill\n", encoding="utf-8")
    return full_run


def test_arrows_lead_from_flash_scores_to_full_ones(flash_run):
    figure = draw_flash(gather(flash_run))
    flash, final = figure["data"]

    assert (flash["name"], len(flash["x"])) == ("flash score", 4)
    assert (final["x"], final["y"], final["text"]) == ([2.0, 3.0], [0.829, 0.835], ["1", "2"])
    arrows = [(one["x"], one["ay"], one["y"]) for one in figure["layout"]["annotations"]]
    assert arrows == [(2.0, 0.8, 0.829), (3.0, 0.75, 0.835)]
    assert "<script" not in json.dumps(figure)


def test_a_search_without_students_yet_has_flash_scores_alone(flash_run):
    for path in flash_run.glob("students/*/metrics.json"):
        path.unlink()
    figure = draw_flash(gather(flash_run))

    assert [trace["name"] for trace in figure["data"]] == ["flash score"]


def test_other_recipes_have_no_flash_scores(full_run, flash_run):
    assert "Flash scores" in write_report(flash_run).read_text(encoding="utf-8")
    (full_run / "settings.yaml").write_text("recipe: plain\n", encoding="utf-8")

    assert draw_flash(gather(full_run)) is None
    assert "Flash scores" not in write_report(full_run).read_text(encoding="utf-8")
