"""A search, an evaluation and an export where a passage answers a question, or does not."""

import json
import re

import pytest
from transformers import AutoModelForQuestionAnswering

LENGTHS = ("--set", "task.max_length=16", "--set", "task.stride=4")


def article(rows, words_by_kind, *, impossible):
    """Asks every text for its kind of weather; every third text for what it does not tell."""
    known, paragraphs = {*words_by_kind["bad"], *words_by_kind["good"]}, []
    for number, (text, _) in enumerate(rows):
        words = text.split()
        lacks = impossible and number % 3 == 0
        if lacks:
            words = [word for word in words if word not in known]
        if number % 4 == 0:  # longer than a window
            words = [*words, *words_by_kind["nothing"][:12]]
        context = " ".join(words)
        told = [word for word in words if word in known]
        answers = [{"text": word, "answer_start": context.index(word)} for word in told[:1]]
        question = {"id": f"q{number}", "question": "day", "answers": answers}
        if impossible:
            question["is_impossible"] = lacks
        paragraphs.append({"context": context, "qas": [question]})
    return {"version": "2", "data": [{"title": "weather", "paragraphs": paragraphs}]}


@pytest.fixture(scope="module")
def squad_of(weather_rows, weather_words, tmp_path_factory):
    """Writes questions in SQuAD's form, all with an answer or a third without one."""

    def write(*, impossible):
        path = tmp_path_factory.mktemp("task") / "weather.json"
        told = article(weather_rows, weather_words, impossible=impossible)
        path.write_text(json.dumps(told), encoding="utf-8")
        return path

    return write


def test_questions_are_searched_evaluated_and_exported(
    run_cli, weather_teacher_folder, weather_table, squad_of, tmp_path
):
    squad = squad_of(impossible=True)
    code, out, err = run_cli(
        "search", "--teacher", weather_teacher_folder, "--task", squad, *LENGTHS,
        "--limit", "latency_ms=1.5", "--candidates", "2", "--run", tmp_path / "run",
        "--set", "device.kind=table", "--set", f"device.table={weather_table}",
        "--set", "distill.precision=float32", "--set", "distill.label_weight=0.5",
        "--set", "distill.learning_rate=5e-3", "--set", "search.epochs=2",
        "--set", "search.proxy_examples=80", "--set", "final.students=1",
        "--set", "distill.batch_size=8",
        "--set", "final.epochs=20", "--set", "teacher.epochs=20", "--set", "teacher.batch_size=8",
        "--set", "teacher.learning_rates=[5e-3]",
    )  # fmt: skip
    assert code == 0, err
    assert "answer_f1" in out
    teacher = json.loads((tmp_path / "run" / "teacher" / "metrics.json").read_text())
    assert teacher["quality"] > 0.5
    student = tmp_path / "run" / "students" / "1"
    metrics = json.loads((student / "metrics.json").read_text())
    assert list(metrics["scores"]) == ["answer_f1", "exact_match"]
    assert metrics["quality_count"] == 12
    assert metrics["quality"] > 0.4
    assert metrics["loyalty"]["probability"] > 0.5

    model = AutoModelForQuestionAnswering.from_pretrained(student)
    assert isinstance(model.config.no_answer_threshold, float)
    assert "question-answering" in (student / "README.md").read_text(encoding="utf-8")

    code, out, err = run_cli("evaluate", student, "--task", squad, *LENGTHS)
    assert code == 0, err
    told = dict(re.findall(r"^(\w+) (\d\.\d{4})", out, flags=re.MULTILINE))
    assert told == {name: f"{value:.4f}" for name, value in metrics["scores"].items()}

    code, out, err = run_cli(
        "export", student, "--precision", "int8", "--check", squad, "--out", tmp_path / "onnx"
    )
    assert code == 0, err
    assert "exact_match" in out


def test_a_checkpoint_is_fine_tuned_on_questions(
    run_cli, weather_teacher_folder, squad_of, tmp_path
):
    squad = squad_of(impossible=False)
    code, out, err = run_cli(
        "finetune", weather_teacher_folder, "--task", squad, *LENGTHS, "--epochs", "20",
        "--batch-size", "8", "--learning-rate", "5e-3", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert float(re.search(r"answer_f1 (\d\.\d+)", out)[1]) > 0.5


def test_a_classifier_is_no_reader(run_cli, weather_teacher_folder, squad_of):
    squad = squad_of(impossible=False)
    code, _, err = run_cli("evaluate", weather_teacher_folder, "--task", squad)
    assert code == 1
    assert "no trained head" in err
