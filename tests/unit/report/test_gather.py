import json

import pytest

from stillhouse.errors import RunError
from stillhouse.report.gather import gather


def test_a_finished_run_is_read_whole(full_run):
    contents = gather(full_run)

    assert (contents.name, contents.status, contents.metric) == ("finished", "complete", "accuracy")
    assert contents.limits == {"latency_ms": 5.0}
    assert [trial.number for trial in contents.trials] == list(range(9))
    assert contents.trials[3].repeat_of == 1
    assert contents.trials[6].latency_ms is None
    assert contents.phases_s == {"teacher": 100.0, "search": 250.0, "final": 81.0}


def test_free_heads_are_read_where_the_table_has_their_size(full_run):
    (full_run / "trials.csv").write_text(
        "number,state,family,layers,hidden_size,heads,head_size,ffn_size,activation\n"
        "0,running,bert,2,160,10,64,560,gelu\n"
        "1,running,bert,2,160,10,,560,gelu\n",
        encoding="utf-8",
    )

    assert [trial.architecture for trial in gather(full_run).trials] == [
        "2 × 160, 10 heads of 64, FFN 560, gelu",
        "2 × 160, 10 heads, FFN 560, gelu",
    ]


def test_students_are_ordered_by_rank_as_a_number(full_run):
    assert [student.rank for student in gather(full_run).students] == [1, 2, 10]


def test_teacher_figures_come_from_students_where_its_own_lack_them(full_run):
    teacher = gather(full_run).teacher

    assert teacher.latency_128_ms == 20.0
    assert teacher.parameters == 4_400_000
    assert teacher.workload == "batch 1, length 64, precision float32, threads 2"


def test_settings_and_provenance_are_told_apart(full_run):
    contents = gather(full_run)

    assert dict(contents.settings)["task.text"] == "a, b"
    assert contents.provenance == (("versions.torch", "2.13.0"),)


def test_a_teacher_that_was_timed_again_is_known_beside_each_model(full_run, describe, rewrite):
    assert not gather(full_run).timed_apart  # 8 ms throughout

    path = full_run / "students/2/metrics.json"
    rewrite(path, json.loads(path.read_text()) | {"teacher_latency_ms": 9.5})
    contents = gather(full_run)

    assert contents.timed_apart
    assert [one.teacher_latency_ms for one in contents.students] == [8.0, 9.5, 8.0]


def test_the_first_weights_are_told(full_run):
    assert (
        gather(full_run).students[0].initialisation == "slices of teacher layers 2, 4"
    )  # 1 and 3 from 0


@pytest.mark.parametrize(("indices", "told"), [("importance", "importance"), ("random", "chance")])
def test_the_neurons_of_an_extract_are_told(full_run, indices, told):
    path = full_run / "students/1/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["initialisation"] = {"kind": "extract", "layers": [1, 3], "indices": indices}
    path.write_text(json.dumps(metrics), encoding="utf-8")
    start = gather(full_run).students[0].initialisation
    assert start == f"extract of teacher layers 2, 4, neurons by {told}"


def test_an_interrupted_run_is_read_without_complaint(interrupted_run):
    contents = gather(interrupted_run)

    assert contents.students == contents.trials == contents.notes == ()
    assert contents.teacher.quality is None


def test_a_damaged_file_is_noted_and_the_rest_is_read(full_run):
    (full_run / "students/2/metrics.json").write_text('{"quality": 0.8', encoding="utf-8")
    (full_run / "settings.yaml").write_text("a: [1", encoding="utf-8")

    contents = gather(full_run)

    assert [student.rank for student in contents.students] == [1, 10]
    assert len(contents.notes) == 2


def test_figures_that_are_no_finite_numbers_are_missing(full_run):
    path = full_run / "students/1/metrics.json"
    path.write_text('{"quality": NaN, "latency_ms": "fast", "speedup": true}', encoding="utf-8")

    student = gather(full_run).students[0]

    assert student.figures.quality is None
    assert student.figures.latency_ms is None
    assert student.speedup is None


def test_an_architecture_of_another_version_is_shown_as_it_stands(full_run):
    path = full_run / "students/1/metrics.json"
    path.write_text('{"architecture": {"family": "chain", "blocks": 7}}', encoding="utf-8")

    assert gather(full_run).students[0].figures.architecture == "family=chain, blocks=7"


def test_a_run_that_names_no_objectives_has_quality_and_latency(full_run):
    contents = gather(full_run)

    assert contents.objectives == contents.compared_by == ("quality", "latency_ms")
    assert contents.further == ()
    assert contents.hypervolume is None


def test_objectives_and_their_corner_are_read(weighed_run):
    contents = gather(weighed_run)

    assert contents.further == ("size_mb",)
    assert contents.hypervolume.costs == {"latency_ms": 8.0, "size_mb": 16.0}
    assert contents.hypervolume.value == 0.25


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"reference": {"quality": 0.0}, "by_trial": [0.1]},
        {"reference": {"latency_ms": 8.0}, "by_trial": []},
        {"reference": {"latency_ms": 8.0}, "by_trial": [None, "?"]},
        {"reference": 8.0, "by_trial": 0.1},
        [0.1],
    ],
)
def test_a_hypervolume_that_cannot_be_read_is_none(full_run, rewrite, told):
    rewrite(full_run / "run.json", {"hypervolume": told})

    assert gather(full_run).hypervolume is None


def test_references_are_read_with_what_was_left_out(referenced_run):
    references = gather(referenced_run).references

    assert [one.name for one in references.points] == ["MobileBERT", "MobileBERT-tiny"]
    assert references.points[1].within_limit is False
    assert references.left_out[0].reason == "the table has no such row"


@pytest.mark.parametrize("make", [True, False])
def test_another_directory_is_refused(tmp_path, make):
    place = tmp_path / "elsewhere"
    if make:
        place.mkdir()

    with pytest.raises(RunError, match="elsewhere is not a run directory"):
        gather(place)
