"""What a report tells of a student that learnt on plain text."""

import json

import pytest

from stillhouse.report.gather import gather
from stillhouse.report.on_text import read_on_text
from stillhouse.report.outcome import outcome
from stillhouse.report.page import render

METRICS = {
    "held_out_losses_before": {"hidden": 0.5, "attention": 6.25},
    "held_out_losses": {"hidden": 0.25, "attention": 2.5},
    "layer_map": [0, 4],
    "tokens": 235_648,
    "parameters": 7_330_944,
    "flops_fraction": 0.128,
    "latency_ms": 17.0,
    "teacher_latency_ms": 93.5,
    "speedup": 5.5,
    "architecture_label": "2 × 16",
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "settings.yaml").write_text("recipe: general\n")
    return tmp_path


@pytest.fixture
def finish(folder):
    def write(**changed):
        student = folder / "students" / "1"
        student.mkdir(parents=True)
        (student / "metrics.json").write_text(json.dumps({**METRICS, **changed}))
        return gather(folder)

    return write


def test_the_outcome_tells_losses_costs_and_the_map(finish):
    told = outcome(finish())
    assert told == (
        "Student 1 has learnt from plain text, 235,648 tokens: 7.33 M parameters, 12.8 % of the "
        "teacher’s FLOPs, answers in 17.0 ms, 5.5× as fast as the teacher. Losses on held-out "
        "text, before and after: hidden 0.5000 to 0.2500 and attention 6.2500 to 2.5000. Teacher "
        "layers by student layer, counted from 1 (0 is none): 0, 4. Only fine-tuning shows what "
        "it is worth on a task."
    )


def test_what_is_missing_is_left_out(finish):
    contents = finish(
        held_out_losses_before={}, tokens=None, speedup=None, layer_map="uniform_last"
    )
    told = outcome(contents)
    assert "has learnt from plain text: 7.33 M" in told
    assert "before and after: hidden – to 0.2500" in told
    assert "(0 is none): uniform_last." in told
    assert "as fast as" not in told


def test_a_student_without_losses_is_told_by_its_costs(finish):
    told = outcome(finish(held_out_losses={}))
    assert told.startswith("Student 1 is distilled: 7.33 M parameters, answers in 17.0 ms")


def test_the_page_has_no_place_for_a_quality(finish):
    page = render(finish(layer_map=["<script>alert(1)</script>"]))
    assert "Quality and latency" not in page
    assert "Of the teacher</th>" not in page
    assert "stillhouse finetune students/1 --task TASK" in page
    assert "<script>alert(1)" not in page


def test_a_run_that_has_not_come_so_far(folder):
    contents = gather(folder)
    assert outcome(contents).startswith("No student has been distilled in full yet.")
    assert not contents.has_task
    assert "No student has been distilled" in render(contents)


def test_losses_make_a_run_one_on_text_whatever_its_recipe(finish, folder):
    (folder / "settings.yaml").write_text("recipe: layer-map\n")
    assert finish().is_general


def test_a_student_of_a_task_tells_nothing_of_text():
    assert read_on_text({"quality": 0.9, "layer_map": [1]}) is None
