"""A search for the best MobileBERT in 8 bits: its masked words are told as it is served."""

import json

import pytest
import torch
from transformers import BertConfig, BertModel

import stillhouse
from stillhouse.recipe import served
from stillhouse.search.trial import TrialState

pytestmark = pytest.mark.slow
REASON = "the exporter lacks an operator"


@pytest.fixture(scope="module")
def teacher_folder(weather_tokenizer, tmp_path_factory):
    """A bare encoder of one layer, so that students are as shallow: each is written twice."""
    folder = tmp_path_factory.mktemp("shallow")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(weather_tokenizer),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=32,
            initializer_range=0.2,
        )
        BertModel(config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def found(teacher_folder, weather_text, tmp_path_factory):
    """Of two candidates the one that is scored first cannot be written in 8 bits."""
    asked = []

    def refuse_first(source, target):
        asked.append(target)
        if len(asked) == 1:
            raise served.ExportError(REASON)
        return quantise(source, target)

    quantise = served.quantise_graph
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(served, "quantise_graph", refuse_first)
        return stillhouse.search(
            recipe="autodistill",
            run=tmp_path_factory.mktemp("words") / "run",
            settings={
                "teacher": {"model": str(teacher_folder)},
                "corpus": {"name": str(weather_text), "length": 16, "held_out": 12},
                "device": {"kind": "onnxruntime-cpu", "precision": "int8", "threads": 1},
                "distill": {"precision": "float32"},
                "mlm": {"head_steps": 8},
                "search": {"candidates": 2, "strategy": "random"},
                "transfer": {"steps": 8, "flash_fraction": 0.25, "batch_size": 4},
                "pretrain": {"steps": 8, "batch_size": 4},
                "final": {"students": 1},
            },
        )


def test_a_candidate_that_cannot_be_written_fails_with_its_reason(found):
    first, second = [trial for trial in found.trials if trial.repeat_of is None]
    assert (first.state, first.reason) == (TrialState.FAILED, REASON)
    assert second.state is TrialState.COMPLETE
    assert second.attributes["quality_precision"] == "int8"
    assert second.attributes["latency"]["workload"]["precision"] == "int8"
    assert 0 <= second.quality <= 1


def test_students_are_told_in_8_bits_beside_what_they_were(found):
    [student] = found.students
    told = student.metrics
    assert told["quality_precision"] == told["served_precision"] == "int8"
    assert told["quality_low"] <= told["quality"] <= told["quality_high"]
    assert 0 <= told["quality_before_8_bits"] <= 1
    card = (student.path / "README.md").read_text(encoding="utf-8")
    assert f"| masked words told right, student in int8 | {told['quality']:.3f} |" in card


def test_the_teacher_and_the_hand_crafted_say_theirs(found):
    teacher = json.loads((found.path / "teacher/metrics.json").read_text(encoding="utf-8"))
    assert teacher["quality_precision"] == "float32"
    assert "served_precision" not in teacher
    references = json.loads((found.path / "references.json").read_text(encoding="utf-8"))
    assert {one["quality_precision"] for one in references["points"]} == {"int8"}


def test_the_report_says_what_was_told_in_8_bits(found):
    page = found.report.read_text(encoding="utf-8")
    before = found.students[0].metrics["quality_before_8_bits"]
    assert "scored in int8, as they are served; neither the teacher nor the head" in page
    assert f"in float32, on held-out text: student 1 {before:.3f}." in page
