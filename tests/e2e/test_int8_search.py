"""A search for the best student in 8 bits: scored, timed, weighed and written as it is served."""

import json

import pytest
from transformers import AutoModelForSequenceClassification

import stillhouse
from stillhouse.model.onnx_graph import float_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(
    weather_teacher_folder, weather_tokenizer, weather_dataset, table_settings, tmp_path_factory
):
    settings = {
        **table_settings,
        "device": {"kind": "onnxruntime-cpu", "precision": "int8", "threads": 1},
        "space": {"layers": [1, 2], "hidden_size": [16], "heads": [2], "ffn_size": [32]},
        "final": {"students": 1, "epochs": 2.0},
    }
    return stillhouse.search(
        teacher=AutoModelForSequenceClassification.from_pretrained(weather_teacher_folder),
        tokenizer=weather_tokenizer,
        task=weather_dataset,
        text=("text",),
        label="label",
        limit={"speedup": 0.01},
        candidates=2,
        settings=settings,
        run=tmp_path_factory.mktemp("runs") / "int8",
    )


def test_candidates_are_scored_in_eight_bits(found):
    trained = [trial for trial in found.trials if trial.quality is not None]
    assert trained
    for trial in trained:
        assert trial.attributes["latency"]["workload"]["precision"] == "int8"


def test_the_file_of_a_student_gives_the_score_that_is_told(found):
    [student] = found.students
    told = student.metrics
    folder = student.path / "onnx-int8"
    assert float_weights(folder / "model.onnx") == ()
    export = json.loads((folder / "export.json").read_text())
    assert told["served_precision"] == "int8"
    assert export["scores"]["pytorch float32"][told["metric"]] == pytest.approx(
        told["quality_before_8_bits"]
    )
    # Scales are those of a batch, and the check's batches are larger than a request.
    assert export["scores"]["onnx int8"][told["metric"]] == pytest.approx(
        told["quality"], abs=2 / told["quality_count"]
    )
    assert "onnxruntime" in told["device"].replace(" ", "").lower()


def test_the_report_says_that_it_is_served_in_eight_bits(found):
    page = found.report.read_text(encoding="utf-8")
    before = found.students[0].metrics["quality_before_8_bits"]
    assert "Trials and students are scored in int8, as they are served" in page
    assert f"Before that, in float32, on dev: student 1 {before:.3f}." in page
