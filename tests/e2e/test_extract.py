"""Students that begin as chosen neurons of their teacher, in a search and alone."""

import json

import pytest

from stillhouse.recipe import first_weights

SHAPE = "layers=1,hidden_size=16,heads=2,ffn_size=48"
EXTRACT = ("--set", "distill.initialisation=extract", "--set", "extract.examples=40")


@pytest.fixture
def counted(monkeypatch):
    """Remembers how many examples each measuring of importance read."""
    read = []
    measure = first_weights.measure_importance

    def counting(model, sample, loss, **more):
        read.append(len(sample))
        return measure(model, sample, loss, **more)

    monkeypatch.setattr(first_weights, "measure_importance", counting)
    return read


def test_a_search_measures_importance_once(run_cli, teacher_options, tmp_path, counted):
    run = tmp_path / "run"
    code, _, err = run_cli(
        "search", *teacher_options, *EXTRACT, "--run", run,
        "--set", "search.candidates=3", "--set", "search.strategy=random",
        "--set", "final.students=1", "--set", "final.epochs=1",
    )  # fmt: skip
    assert code == 0, err
    assert counted == [40]
    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    start = metrics["initialisation"]
    assert (start["kind"], start["indices"], start["loss"]) == ("extract", "importance", "states")
    assert start["layers"][-1] == 1  # the last layer meets the teacher's
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "neurons by importance" in page
    card = (run / "students" / "1" / "README.md").read_text(encoding="utf-8")
    assert "First weights: the most important neurons of the teacher." in card


def test_a_run_that_is_killed_after_measuring_reads_it_again(
    run_cli, teacher_options, tmp_path, counted, monkeypatch
):
    run, options = tmp_path / "run", ("--epochs", "1", "--student", SHAPE, *EXTRACT)
    command = ("distill", *teacher_options, *options, "--run", run)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(first_weights, "extract", killed)
        code, _, _ = run_cli(*command)
    assert code != 0
    assert counted == [40]
    code, _, err = run_cli(*command)
    assert code == 0, err
    assert counted == [40]
    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    assert metrics["initialisation"] == {
        "kind": "extract", "layers": [1], "indices": "importance", "loss": "states",
    }  # fmt: skip


def test_a_student_wider_than_its_teacher_is_refused(run_cli, teacher_options, tmp_path):
    code, _, err = run_cli(
        "distill", *teacher_options, *EXTRACT, "--student", "layers=1,hidden_size=64",
        "--run", tmp_path / "run",
    )  # fmt: skip
    assert code != 0
    told = " ".join(err.split())
    assert "hidden_size is 32, but the student's is 64: take a smaller student" in told
    assert not (tmp_path / "run" / "teacher").exists()


def test_a_space_with_students_deeper_than_the_teacher_is_refused(
    run_cli, teacher_options, tmp_path
):
    code, _, err = run_cli(
        "search", *teacher_options, *EXTRACT, "--set", "space.layers=[1,3]",
        "--set", "space.hidden_size=[16]", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    told = " ".join(err.split())
    assert "layers is 2, but the student's is 3: take a smaller student (layers; of a se" in told
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize("recipe", ["autodistil", "autodistill", "nas-bert"])
def test_recipes_whose_students_begin_otherwise_refuse_it(
    run_cli, weather_encoder_folder, weather_text, tmp_path, recipe
):
    code, _, err = run_cli(
        "search", recipe, "--teacher", weather_encoder_folder, "--corpus", weather_text,
        "--set", "distill.initialisation=extract", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert f"{recipe} has no use for distill.initialisation = extract:" in " ".join(err.split())


def test_on_plain_text_importance_is_that_of_the_corpus(
    run_cli, weather_encoder_folder, weather_text, tmp_path, counted
):
    run = tmp_path / "run"
    code, _, err = run_cli(
        "distill", "--teacher", weather_encoder_folder, "--corpus", weather_text,
        "--student", "layers=2,hidden_size=16,heads=4,ffn_size=48", "--epochs", "1",
        *EXTRACT, "--set", "corpus.length=16", "--set", "corpus.held_out=4",
        "--set", "device.threads=1", "--set", "distill.precision=float32", "--run", run,
    )  # fmt: skip
    assert code == 0, err
    assert counted == [40]
    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    assert metrics["initialisation"] == {
        "kind": "extract", "layers": [1, 3], "indices": "importance", "loss": "states",
    }  # fmt: skip
