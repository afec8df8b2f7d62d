import pytest

from stillhouse.report import write_report
from stillhouse.report.front_table import (
    against_references,
    front_lines,
    front_marks,
    hypervolume,
)
from stillhouse.report.gather import gather


def test_the_front_and_the_references_stand_by_latency(referenced_run):
    lines = front_lines(gather(referenced_run))

    assert [(line.name, line.note) for line in lines] == [
        ("trial 0", ""),
        ("trial 1", ""),
        ("MobileBERT-tiny", "hand-crafted, over a limit"),
        ("MobileBERT", "hand-crafted"),
        ("trial 7", ""),
    ]
    assert lines[3].latency_basis == "predicted, 2.70 ms to 3.30 ms"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"latency_how": "measured"}, "measured, 2.70 ms to 3.30 ms"),
        ({"latency_how": "analytic", "latency_low_ms": 3.0, "latency_high_ms": 3.0}, "analytic"),
        ({"latency_how": None}, "2.70 ms to 3.30 ms"),  # an older version did not tell
    ],
)
def test_a_reference_says_how_its_latency_is_known(
    referenced_run, rewrite, describe, changes, told
):
    [first, _] = describe["references.json"]()["points"]
    rewrite(referenced_run / "references.json", {"points": [first | changes]})

    [line] = [one for one in front_lines(gather(referenced_run)) if one.is_reference]

    assert line.latency_basis == told
    page = write_report(referenced_run).read_text(encoding="utf-8")
    assert f"3.00 ms<small>{told}</small>" in page


def test_a_search_by_quality_and_latency_alone_needs_no_table(full_run):
    contents = gather(full_run)

    assert front_lines(contents) == []
    assert against_references(contents) == front_marks(contents) == hypervolume(contents) == ""


def test_further_objectives_have_a_table_without_references(weighed_run):
    (weighed_run / "references.json").unlink()

    names = [line.name for line in front_lines(gather(weighed_run))]

    assert names == ["trial 0", "trial 1", "trial 2", "trial 7"]


def test_how_many_beat_each_reference_is_told(referenced_run):
    told = against_references(gather(referenced_run))

    assert "In quality and latency, MobileBERT is beaten by no trial; " in told
    assert "MobileBERT-tiny is beaten by 1 of the 3 trials of the front." in told


def test_a_reference_that_is_smaller_is_not_beaten_in_size(weighed_run):
    told = against_references(gather(weighed_run))

    assert "In quality, latency and size, MobileBERT is beaten by no trial; " in told
    assert "MobileBERT-tiny is beaten by no trial." in told  # trial 1 has 8 MB, it has 6


def test_without_a_trial_nothing_is_told_of_references(interrupted_run, rewrite, describe):
    rewrite(interrupted_run / "references.json", describe["references.json"]())

    contents = gather(interrupted_run)

    assert against_references(contents) == ""
    assert len(front_lines(contents)) == 2


def test_what_a_front_in_three_objectives_is_stands_under_its_plot(weighed_run):
    contents = gather(weighed_run)

    assert "no other beats in quality, latency and size together" in front_marks(contents)
    assert hypervolume(contents) == (
        "The trials dominate 25.0 % of the box from quality 0 at the teacher’s 8.00 ms and 16.0 MB "
        "to quality 1 at no cost (hypervolume)."
    )


@pytest.mark.parametrize("recipe_quality", ["task", "hidden"])
def test_hidden_states_have_no_hypervolume_between_qualities(full_run, rewrite, recipe_quality):
    (full_run / "settings.yaml").write_text(f"search:\n  quality: {recipe_quality}\n")
    told = {"reference": {"quality": 0.0, "latency_ms": 8.0}, "by_trial": [0.5]}
    rewrite(full_run / "run.json", {"hypervolume": told})

    sentence = hypervolume(gather(full_run))

    assert ("quality 1 at no time" in sentence) == (recipe_quality == "task")
