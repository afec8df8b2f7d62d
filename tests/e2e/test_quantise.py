"""A fine-tuned checkpoint in few bits, from the command line and as the end of a distillation."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from stillhouse.api import model_jobs
from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.steps import TrainReport
from stillhouse.errors import TrainingError
from stillhouse.evaluate.kept_answers import ANSWERS_FILE, read_answers
from stillhouse.model.lsq import activation_clips, load_quantised, told_bits
from stillhouse.model.packing_bits import PACKED_FILE, load_packed
from stillhouse.recipe import quantising

DRIVER = Path(__file__).with_name("quantise_driver.py")
PATIENCE_S = 200
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def quantise(run_cli, weather_teacher_folder, weather_csv, tmp_path):
    def run(*options, model=weather_teacher_folder, task=weather_csv):
        code, out, err = run_cli(
            "quantise", model, "--task", task, "--run", tmp_path / "run",
            "--set", "distill.precision=float32", *options,
        )  # fmt: skip
        assert "Traceback" not in err
        return code, out, err

    return run


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_checkpoint_in_two_bits(quantise, run_cli, weather_csv, tmp_path, monkeypatch):
    options = ("--bits", "2", "--epochs", "8", "--seed", "1", "--set", "quantise.batch_size=8")
    code, out, err = quantise(*options)
    assert code == 0, err
    folder = tmp_path / "run" / "model"
    assert f"The model lies in {folder}" in err
    told = metrics_of(folder)
    assert (told["weight_bits"], told["activation_bits"], told["ranges"]) == (2, 8, "error")
    assert told["quality_low"] <= told["quality"] <= told["quality_high"]
    assert told["quality"] >= told["post_training_quality"]
    assert told["float_quality"] == 1.0
    assert 0 <= told["loyalty"]["label"] <= 1
    assert len(told["evaluations"]) == 8
    best = max(one["quality"] for one in told["evaluations"])
    assert told["quality_search"] == best
    for name in ("quality", "post_training_quality", "float_quality"):
        assert f"{told[name]:.4f}" in out
    # Sizes are those of the disk.
    packed = folder / PACKED_FILE
    assert told["size_mb"] == packed.stat().st_size / 1e6
    floats = sum(tensor.nbytes for name, tensor in load_file(folder / "model.safetensors").items()
                 if not name.endswith("_clip"))  # fmt: skip
    assert told["float_size_mb"] == floats / 1e6
    assert told["compression"] == pytest.approx(floats / packed.stat().st_size)
    assert f"{told['compression']:.1f} times smaller" in out
    assert not (tmp_path / "run" / "work").exists()
    kept = read_answers(folder / ANSWERS_FILE)
    assert (kept.primary.score(), len(kept)) == (told["quality"], told["quality_count"])

    # Three ways to load it; transformers alone gets the rounded weights.
    model, tokenizer = load_quantised(folder), AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(["a sunny day", "rainy"], padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**tokens).logits, load_packed(folder)(**tokens).logits)
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    weight = plain.bert.encoder.layer[0].attention.self.query.weight
    assert len(weight.unique()) == 3
    assert told_bits(plain.config) == 2

    # `evaluate` scores what was trained.
    code, out, err = run_cli("evaluate", folder, "--task", weather_csv)
    assert code == 0, err
    assert re.search(r"accuracy ([\d.]+)", out).group(1) == f"{told['quality']:.4f}"

    # The same command again returns what is there, another is refused.
    def nothing(*_, **__):
        raise AssertionError("worked again")

    monkeypatch.setattr(model_jobs, "quantise_checkpoint", nothing)
    assert quantise(*options)[0] == 0
    code, _, err = quantise(*options, "--bits", "4")
    assert code == 1
    assert "quantise.weight_bits: 2 → 4" in err


@pytest.mark.slow
def test_a_stopped_training_goes_on(quantise, tmp_path, monkeypatch):
    monkeypatch.setitem(CheckpointFolder.__init__.__kwdefaults__, "every_s", 0.0)
    options = ("--bits", "3", "--epochs", "2", "--ranges", "quantile")
    assert quantise(*options)[0] == 0
    whole = tmp_path / "whole"
    shutil.move(tmp_path / "run", whole)

    train = quantising.train

    def stopping(*arguments, watch, **more):
        def stop(progress):
            if progress.step == 8:
                raise KeyboardInterrupt

        return train(*arguments, watch=replace(watch, on_step=stop), **more)

    monkeypatch.setattr(quantising, "train", stopping)
    code, _, err = quantise(*options)
    assert code == 130
    assert "the same command again goes on there" in err
    monkeypatch.setattr(quantising, "train", train)
    assert quantise(*options)[0] == 0
    assert_same_model(tmp_path / "run", whole)


def assert_same_model(run, whole):
    """All that tells no time, and the weights themselves."""
    assert metrics_of(run / "model") == metrics_of(whole / "model")
    ours, theirs = (load_file(path / "model" / PACKED_FILE) for path in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.slow
def test_a_killed_training_goes_on(weather_teacher_folder, weather_csv, tmp_path):
    """A real process is killed; its threads add up numbers in one order."""

    def begin(run):
        return subprocess.Popen(
            [sys.executable, DRIVER, run, weather_teacher_folder, weather_csv],
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finished(process):
        written, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, written

    run, whole = tmp_path / "killed", tmp_path / "whole"
    process, undisturbed = begin(run), begin(whole)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any((run / "work" / "quantising").glob("*/step-1[0-5]/complete.json")):
            assert process.poll() is None, f"it ended before: {process.communicate()[0]}"
            assert time.monotonic() < deadline, "it never came so far"
            time.sleep(0.01)
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGKILL
        assert json.loads((run / "run.json").read_text())["status"] == "running"
        assert not (run / "model").exists()
        finished(begin(run))
        finished(undisturbed)
    finally:
        process.kill()
        undisturbed.kill()
    assert_same_model(run, whole)
    assert json.loads((run / "run.json").read_text())["status"] == "complete"
    assert not (run / "work").exists()
    assert not list(run.rglob("*.tmp"))


def test_a_range_that_training_closes_is_told(quantise, monkeypatch):
    def closing(student, *_, **__):
        with torch.no_grad():
            next(iter(activation_clips(student).values())).fill_(1e-9)
        return TrainReport(steps=1, loss=1.0, wall_s=0.0, scores={1: 0.5}, best_step=1)

    monkeypatch.setattr(quantising, "train", closing)
    code, _, err = quantise("--bits", "8")
    assert code == 0
    told = " ".join(err.split())
    assert "Training took the range" in told
    assert "to 1e-09, and 0 others likewise: lower quantise.activation_clip_rate" in told


def test_the_last_stage_of_a_distillation(run_cli, teacher_options, tmp_path, weather_csv):
    options = (
        "distill", "--student", "layers=1,hidden_size=32", "--run", tmp_path / "run",
        *teacher_options, "--epochs", "1", "--set", "quantise.weight_bits=4",
        "--set", "quantise.epochs=1",
    )  # fmt: skip
    code, _, err = run_cli(*options)
    assert code == 0, err
    assert "student 1 in 4 bits: accuracy" in " ".join(err.split())
    folder = tmp_path / "run" / "students" / "1"
    told, before = metrics_of(folder / "quantised"), metrics_of(folder)
    assert told["float_quality"] == before["quality"]
    assert told["float_quality_search"] == before["quality_search"]
    assert told_bits(load_quantised(folder / "quantised").config) == 4
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["phases_s"]["quantised"] > 0
    code, out, err = run_cli("evaluate", folder / "quantised", "--task", weather_csv)
    assert code == 0, err
    assert f"accuracy {told['quality']:.4f}" in out


def small_distillation(run_cli, teacher, task, run, student):
    code, _, err = run_cli(
        "distill", "--student", student, "--run", run, "--teacher", teacher, "--task", task,
        "--epochs", "0.2", "--set", "device.length=16", "--set", "device.threads=1",
        "--set", "quantise.weight_bits=8", "--set", "quantise.epochs=0.5",
    )  # fmt: skip
    return code, " ".join(err.split())


def test_a_student_of_free_heads_is_quantised_and_exported(
    run_cli, weather_teacher_folder, weather_csv, tmp_path
):
    student = "layers=1,hidden_size=32,heads=2,head_size=8"
    run = tmp_path / "run"
    code, told = small_distillation(run_cli, weather_teacher_folder, weather_csv, run, student)
    assert code == 0, told
    assert "student 1 in 8 bits: accuracy" in told
    folder = run / "students" / "1" / "quantised"
    assert "with `trust_remote_code=True`" in (folder / "README.md").read_text()
    # The code travels along: transformers alone has the rounded weights.
    plain = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    model = load_quantised(folder)
    assert model.config.head_size == 8
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, model.get_parameter(name)), name
    assert len(plain.bert.encoder.layer[0].attention.self.query.weight.unique()) <= 255
    code, _, err = run_cli("export", folder, "--check", weather_csv)
    assert code == 0, err
    exported = json.loads((folder / "onnx-int8" / "export.json").read_text())
    assert (exported["trained_weight_bits"], exported["model_type"]) == (8, "free_head_bert")
    assert exported["median_differences_fraction"]["onnx int8"]["logits"] < 1e-3


def test_a_student_that_cannot_be_quantised_is_told_and_kept(
    run_cli, weather_teacher_folder, weather_csv, tmp_path, monkeypatch
):
    def refuse(*_):
        raise TrainingError("a range of 0")

    monkeypatch.setattr(quantising, "set_weight_clips", refuse)
    run, student = tmp_path / "run", "layers=1,hidden_size=32"
    code, told = small_distillation(run_cli, weather_teacher_folder, weather_csv, run, student)
    assert code == 0, told
    assert "has no quantised form: a range of 0" in told
    folder = run / "students" / "1"
    assert (folder / "metrics.json").exists()
    assert not (folder / "quantised").exists()


def test_a_plan_counts_few_bits(run_cli, teacher_options):
    options = ("--limit", "latency_ms=1.5", "--candidates", "1", *teacher_options)
    few_bits = ("--set", "quantise.weight_bits=4", "--set", "quantise.epochs=2")
    code, printed, err = run_cli("plan", *options, *few_bits, "--set", "final.students=2")
    assert code == 0, err
    assert "2 students × 14 steps in few bits" in " ".join(printed.split())  # 97 texts, 16 a step
    assert "in few bits" not in run_cli("plan", *options)[1]


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        ([], ["quantise.weight_bits is missing: give 2 to 8 bits"]),
        (["--bits", "1"], ["quantise.weight_bits must be 2 to 8, got 1"]),
        (["--bits", "9"], ["quantise.weight_bits must be 2 to 8, got 9"]),
        (["--bits", "8", "--epochs", "0"], ["quantise.epochs must be above 0, got 0"]),
        (["--bits", "8", "--ranges", "max"],
         ["quantise.ranges", "'error', 'quantile' or 'kl'", "'max'"]),
        (["--bits", "8", "--set", "quantise.weight_clip_rate=0"],
         ["quantise.weight_clip_rate must be above 0, got 0"]),
        (["--bits", "8", "--set", "quantise.label_weight=-1"],
         ["quantise.label_weight must not be negative, got -1"]),
        (["--bits", "8", "--set", "quantise.weight_decay=2"],
         ["quantise.weight_decay must be in 0..1, got 2"]),
        (["--bits", "8", "--set", "quantise.size=3"], ["unknown key", "weight_bits"]),
        (["--bits", "8", "--set", "distill.temperature=4"],
         ["--set distill.temperature: this command does not read it"]),
        (["--bits", "8", "--set", "final.epochs=9"],
         ["--set final.epochs: this command does not read it; it reads task, quantise"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(quantise, tmp_path, options, naming):
    code, out, err = quantise(*options)
    assert (code, out) == (1, "")
    for part in naming:
        assert part in err
    assert not (tmp_path / "run" / "model").exists()


def test_a_checkpoint_without_a_trained_head(quantise, weather_encoder_folder):
    code, _, err = quantise("--bits", "8", model=weather_encoder_folder)
    assert code == 1
    told = " ".join(err.split())
    assert "has no trained head of 2 outputs for weather.csv" in told
    assert "stillhouse finetune" in told


def test_a_checkpoint_of_another_task(quantise, weather_teacher, weather_tokenizer, tmp_path):
    weather_teacher.config.id2label = {0: "no", 1: "yes"}
    weather_teacher.config.label2id = {"no": 0, "yes": 1}
    weather_teacher.save_pretrained(tmp_path / "other")
    weather_tokenizer.save_pretrained(tmp_path / "other")
    code, _, err = quantise("--bits", "8", model=tmp_path / "other")
    assert code == 1
    assert "has the labels ['no', 'yes'], the task weather.csv has ['bad', 'good']" in " ".join(
        err.split()
    )


def test_bits_have_no_use_where_students_are_chosen_on_text(run_cli, weather_encoder_folder,
                                                            weather_text, tmp_path):  # fmt: skip
    code, _, err = run_cli(
        "search", "autodistil", "--teacher", weather_encoder_folder, "--corpus", weather_text,
        "--run", tmp_path / "run", "--set", "quantise.weight_bits=8",
    )  # fmt: skip
    assert code == 1
    assert "autodistil has no use for quantise.weight_bits = 8" in err
