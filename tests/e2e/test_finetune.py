"""A checkpoint of another task, fine-tuned from the command line and from Python."""

import json
import re

import pytest
from transformers import AutoModelForSequenceClassification, pipeline

import stillhouse
from stillhouse.api import model_jobs


@pytest.fixture
def foreign_folder(weather_teacher, weather_tokenizer, tmp_path):
    """The teacher as if it were one of another task."""
    weather_teacher.config.id2label = {0: "no", 1: "yes"}
    weather_teacher.config.label2id = {"no": 0, "yes": 1}
    folder = tmp_path / "foreign"
    weather_teacher.save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tune(run_cli, foreign_folder, weather_csv, tmp_path):
    def run(*options, model=foreign_folder):
        code, out, err = run_cli(
            "finetune", model, "--task", weather_csv, "--run", tmp_path / "run",
            "--set", "distill.precision=float32", *options,
        )  # fmt: skip
        assert "Traceback" not in err
        return code, out, err

    return run


def test_a_checkpoint_of_another_task_learns_this_one(
    tune, run_cli, weather_rows, weather_csv, tmp_path, monkeypatch
):
    options = (
        "--epochs", "4", "--learning-rate", "1e-6", "--learning-rate", "5e-4",
        "--batch-size", "16", "--patience", "2", "--seed", "2",
    )  # fmt: skip
    code, out, err = tune(*options)
    assert code == 0, err
    folder = tmp_path / "run" / "model"
    assert f"The model lies in {folder}" in err
    assert "names ['no', 'yes'], the task weather.csv ['bad', 'good']" in " ".join(err.split())
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["learning_rate"] == 5e-4
    assert metrics["quality"] == 1.0
    assert f"accuracy {metrics['quality']:.4f}  (95 % interval " in out
    assert "learning rate 0.0005" in out
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["status"] == "complete"
    assert not (tmp_path / "run" / "work").exists()
    texts, labels = zip(*weather_rows, strict=True)
    answers = pipeline("text-classification", model=str(folder))(list(texts))
    right = [answer["label"] == label for answer, label in zip(answers, labels, strict=True)]
    assert sum(right) > 0.9 * len(right)

    # `evaluate` gives the same figure.
    code, out, err = run_cli("evaluate", folder, "--task", weather_csv)
    assert code == 0, err
    assert re.search(r"accuracy ([\d.]+)", out).group(1) == f"{metrics['quality']:.4f}"

    # The same command again returns what is there, another is refused.
    def nothing(*_, **__):
        raise AssertionError("worked again")

    monkeypatch.setattr(model_jobs, "finetune_checkpoint", nothing)
    assert tune(*options)[0] == 0
    code, out, err = tune(*options, "--epochs", "5")
    assert (code, out) == (1, "")
    assert "finetune.epochs: 4.0 → 5.0" in err


def test_the_same_from_python(foreign_folder, weather_dataset, tmp_path):
    result = stillhouse.finetune(
        foreign_folder,
        task=weather_dataset,
        text=("text",),
        label="label",
        learning_rates=[5e-4],
        epochs=2,
        run=tmp_path / "run",
        settings={"finetune": {"stop_on": "dev"}, "distill": {"precision": "float32"}},
    )
    assert result.path == tmp_path / "run" / "model"
    assert result.metrics == json.loads((result.path / "metrics.json").read_text())
    assert result.metrics["is_optimistic"]
    assert AutoModelForSequenceClassification.from_pretrained(result.path).config.num_labels == 2


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (["--task", "glue/nope"], ["no task 'glue/nope'", "glue/sst2"]),
        (["--task", "nowhere.csv"], ["cannot read nowhere.csv"]),
        (["--label", "gold"], ["no column 'gold'"]),
        (["--learning-rate", "0"], ["finetune.learning_rates must be", "above 0", "0.0"]),
        (["--epochs", "0"], ["finetune.epochs must be above 0, got 0"]),
        (["--patience", "0"], ["finetune.patience must be above 0 or absent, got 0"]),
        (["--set", "finetune.stop_on=test"], ["'validation' or 'dev'", "'test'"]),
        (["--metric", "pearson"], ["label 'bad' of example 1 is not a finite number"]),
    ],
)
def test_what_cannot_be_is_refused(tune, tmp_path, options, naming):
    code, out, err = tune(*options)
    assert (code, out) == (1, "")
    for part in naming:
        assert part in err
    assert not (tmp_path / "run" / "model").exists()


def test_a_checkpoint_that_is_not_there(tune):
    code, _, err = tune(model="/no/such/folder")
    assert code == 1
    assert "no model could be loaded from '/no/such/folder'" in err
