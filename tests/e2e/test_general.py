"""A student that learns on a text about the weather, without a task, and then a task."""

import json
import re

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from stillhouse.distill import checkpoint
from stillhouse.recipe import general

SHAPE = "layers=2,hidden_size=16,heads=4"


@pytest.fixture(scope="module")
def text_options(weather_encoder_folder, weather_text):
    """Latencies are computed, so that nothing is timed."""
    return [
        "--teacher", weather_encoder_folder, "--corpus", weather_text, "--device", "tpu-v4i",
        "--set", "corpus.length=16", "--set", "corpus.held_out=6",
        "--set", "distill.precision=float32", "--set", "distill.learning_rate=3e-3",
        "--set", "distill.batch_size=4",
    ]  # fmt: skip


@pytest.fixture
def distil(run_cli, text_options, tmp_path):
    def run(*options, student=SHAPE, name="run"):
        return run_cli(
            "distill", *text_options, "--student", student, "--run", tmp_path / name, *options
        )

    return run


def metrics_of(run):
    return json.loads((run / "students" / "1" / "metrics.json").read_text())


def words(text):
    return " ".join(text.split())


def test_text_then_task(distil, run_cli, weather_csv, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "run" / "students" / "1"
    code, out, err = distil("--epochs", "4", "--layer-map", "0,4", "--limit", "params_m=0.01")
    assert code == 0, err
    assert f"Fine-tune it with: stillhouse finetune {folder} --task" in words(err)
    assert "is over params_m=0.01 by" not in err
    metrics = metrics_of(run)
    assert metrics["layer_map"] == [0, 4]
    assert metrics["initialisation"] == {"kind": "slices", "layers": [0, 3]}
    assert metrics["architecture"]["heads"] == 4
    assert metrics["attention_rule"] == "each_head"
    assert metrics["within_limit"] is True
    before, after = metrics["held_out_losses_before"], metrics["held_out_losses"]
    assert before.keys() == after.keys() == {"hidden", "attention"}
    assert all(after[name] < before[name] for name in after)
    assert f"{before['hidden']:.4f} to {after['hidden']:.4f}" in words(out)
    sequences = metrics["tokens"] / (4 * 16)
    assert sequences == int(sequences) > 20
    assert metrics["steps"] == 4 * -(-sequences // 4)

    student = AutoModel.from_pretrained(folder)
    assert sum(p.numel() for p in student.parameters()) == metrics["parameters"]
    assert (student.config.num_hidden_layers, student.config.hidden_size) == (2, 16)
    card = (folder / "README.md").read_text()
    assert "begun from slices of the teacher, distilled on" in words(card)
    assert "Teacher layers by student layer, counted from 1 (0 is none): 0, 4." in card
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert not (run / "work").exists()

    page = words((run / "report.html").read_text())
    label = metrics["architecture_label"]
    assert f"Student 1 ({label}) has learnt from plain text, {metrics['tokens']:,} tokens" in page
    assert f"hidden {before['hidden']:.4f} to {after['hidden']:.4f}" in page
    assert "student layer, counted from 1 (0 is none): 0, 4" in page
    assert "stillhouse finetune students/1 --task TASK" in page
    assert "Quality and latency" not in page  # it has no quality yet

    code, out, err = run_cli(
        "finetune", folder, "--task", weather_csv, "--run", tmp_path / "tuned",
        "--epochs", "1", "--learning-rate", "1e-3",
        "--set", "task.max_length=16", "--set", "distill.precision=float32",
    )  # fmt: skip
    assert code == 0, err
    tuned = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned" / "model")
    assert tuned.config.hidden_size == 16
    assert tuned.config.id2label == {0: "bad", 1: "good"}


def test_stopped_and_begun_again_equals_unbroken(distil, run_cli, tmp_path, monkeypatch):
    assert distil("--epochs", "2", name="unbroken")[0] == 0
    real, seen = general.train, []

    def stopping(*given, watch, **named):
        def on_step(progress):
            seen.append(progress.step)
            watch.on_step(progress)
            if progress.step == 7 and len(seen) == 7:
                raise KeyboardInterrupt

        return real(*given, watch=checkpoint_often(watch, on_step), **named)

    def checkpoint_often(watch, on_step):
        kept = checkpoint.CheckpointFolder(
            path=watch.checkpoint.path, fingerprint=watch.checkpoint.fingerprint, every_s=0.0
        )
        return type(watch)(on_step=on_step, checkpoint=kept)

    monkeypatch.setattr(general, "train", stopping)
    code, _, err = distil("--epochs", "2")
    assert code == 130
    assert "the same command again goes on there" in words(err)
    code, _, err = run_cli("report", tmp_path / "run")
    assert code == 0, err
    page = words((tmp_path / "run" / "report.html").read_text())
    assert "No student has been distilled in full yet. Run the same command again" in page
    spent = tmp_path / "run" / "work" / "final.json"
    assert 0 < json.loads(spent.read_text())["cost_s"] < 1000
    spent.write_text('{"cost_s": 1000.0}')
    code, _, err = distil("--epochs", "2")
    assert code == 0, err
    assert seen[7] == 7  # the step that was told, and not kept
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (tmp_path / run / "students" / "1" / name for run in ("run", "unbroken"))
        assert ours.read_bytes() == theirs.read_bytes()
    told, unbroken = (metrics_of(tmp_path / run) for run in ("run", "unbroken"))
    assert told.pop("cost_s") > 1000
    assert unbroken.pop("cost_s")
    assert told == unbroken


def test_the_same_command_again_returns_the_finished_student(distil, tmp_path, monkeypatch):
    assert distil("--epochs", "0.5")[0] == 0
    monkeypatch.setattr(general, "train", None)
    code, out, _ = distil("--epochs", "0.5")
    assert code == 0
    assert metrics_of(tmp_path / "run")["architecture_label"] in out


def test_other_heads_and_a_limit_that_is_not_met_are_said(distil, tmp_path):
    code, _, err = distil(
        "--epochs", "0.5", "--limit", "params_m=0.001", "--initialisation", "scratch",
        student="layers=1,hidden_size=16,heads=2",
    )  # fmt: skip
    assert code == 3, err
    assert "is over params_m=0.001 by" in words(err)
    assert "It has 2 heads and the teacher 4, so attention is compared as a mean" in words(err)
    metrics = metrics_of(tmp_path / "run")
    assert metrics["attention_rule"] == "mean_over_heads"
    assert metrics["within_limit"] is False
    assert metrics["initialisation"] == {"kind": "scratch", "layers": []}
    card = (tmp_path / "run" / "students" / "1" / "README.md").read_text()
    assert "begun from scratch" in card


def test_only_states_may_be_learnt(distil, tmp_path):
    code, _, err = distil("--epochs", "0.5", "--set", "distill.attention_weight=0")
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    assert list(metrics["held_out_losses"]) == ["hidden"]
    assert "attention_rule" not in metrics


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--task", "embedded"), "--task and --corpus exclude each other"),
        (("--student", "some/checkpoint"), "a student on plain text is a shape"),
        (("--student", "layers=0"), "layers must be a whole number of at least 1"),
        (("--layer-map", "2,x"), "--layer-map needs a teacher layer for each student layer"),
        (("--layer-map", "2,5"), "5 is no layer of the teacher, which has 4"),
        (("--layer-map", "2"), "has 1 genes, but the student 2 layers"),
        (("--layer-map", "2,-1"), "-1 is no layer of the teacher"),
        (
            ("--student", "layers=5", "--initialisation", "extract"),
            "layers is 4, but the student's is 5: take a smaller student",
        ),
        (
            ("--layer-map", "0,0", "--set", "distill.embeddings=false"),
            "layer map [0, 0] links no layer, and so leaves nothing to learn",
        ),
        (("--layer-map", "middle"), "distill.layer_map"),
        (("--initialisation", "teacher"), "distill.initialisation"),
        (("--label", "y", "--text", "x"), "--text, --label and --corpus exclude each other"),
        (("--teacher-finetune", "never"), "--teacher-finetune and --corpus exclude each other"),
        (("--set", "task.metric=f1"), "general has no use for task.metric = f1"),
        (("--set", "compare=[layers=1]"), "general has no use for compare = layers=1"),
        (("--set", "device.length=64"), "timed at 64 tokens, but the teacher has 32 positions"),
        (("--set", "corpus.held_out=0"), "corpus.held_out must be at least 1"),
        (("--set", "distill.logit_weight=1"), "distill.logit_weight must be 0 on plain text"),
        (("--corpus-text", ""), "corpus.text names no column"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(distil, tmp_path, options, message):
    code, _, err = distil(*options)
    assert code == 1
    assert message in words(err)
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "corpus").exists()
    assert not (tmp_path / "run" / "work").exists()


def test_a_layer_map_on_a_task_needs_a_loss_that_follows_it(
    run_cli, weather_encoder_folder, weather_csv, tmp_path
):
    code, _, err = run_cli(
        "distill", "--teacher", weather_encoder_folder, "--task", weather_csv,
        "--student", "layers=1", "--layer-map", "last", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "--layer-map has no effect while distill.hidden_weight and" in words(err)
    assert not (tmp_path / "run").exists()


def test_it_is_no_search(run_cli, text_options, tmp_path):
    code, _, err = run_cli("search", "general", *text_options, "--run", tmp_path / "run")
    assert code == 1
    assert "stillhouse distill --corpus TEXT" in words(err)


def test_other_text_in_the_same_run_is_refused(distil, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("the sunny day and the rainy night\n" * 40)
    assert distil("--epochs", "0.5")[0] == 0
    code, _, err = distil("--epochs", "0.5", "--corpus", other)
    assert code == 1
    assert re.search(r"made with other settings:.*corpus\.name: .*other\.txt", words(err))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["roberta", "distilbert", "factored electra"])
def test_other_families(distil, family, tiny_config, weather_tokenizer, tmp_path):
    config = tiny_config(
        family, vocab_size=len(weather_tokenizer), max_position_embeddings=34, dropout=0.1
    )
    folder = tmp_path / "teacher"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    code, _, err = distil("--teacher", folder, "--epochs", "2", student="layers=1,hidden_size=8")
    assert code == 0, err
    metrics = metrics_of(tmp_path / "run")
    assert metrics["held_out_losses"]["hidden"] < metrics["held_out_losses_before"]["hidden"]
    student = AutoModel.from_pretrained(tmp_path / "run" / "students" / "1")
    assert type(student.config) is type(config)
    assert metrics["parameters"] == sum(p.numel() for p in student.parameters())
    teacher = AutoModel.from_pretrained(folder)
    assert metrics["teacher_parameters"] == sum(p.numel() for p in teacher.parameters())
    assert metrics["teacher_architecture"]["layers"] == teacher.config.num_hidden_layers
