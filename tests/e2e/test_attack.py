"""The command on a tiny teacher and student: tables, files, Ctrl-C, a killed process."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from transformers import BertConfig, BertForSequenceClassification

from stillhouse.cli.attack import attack
from stillhouse.errors import SettingsError
from stillhouse.evaluate import attack as search

DRIVER = Path(__file__).with_name("attack_driver.py")
PATIENCE_S = 120


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command in this process; gives exit code, standard output and standard error."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    app = typer.Typer()
    app.command()(attack)

    def run_command(*arguments):
        code = app([str(one) for one in arguments], standalone_mode=False)
        written = capsys.readouterr()
        return code or 0, written.out, written.err

    return run_command


@pytest.fixture(scope="module")
def shaky(weather_tokenizer, tmp_path_factory):
    """A classifier with random weights, which a word may well bring to another answer."""
    folder = tmp_path_factory.mktemp("shaky")
    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.4,
        id2label={0: "bad", 1: "good"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def synonyms(weather_rows, tmp_path_factory):
    words = sorted({word for text, _ in weather_rows for word in text.split()})
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("synonyms") / "toy.json"
    path.write_text(json.dumps({word: draw.sample(words, 3) for word in words[::2]}))
    return path


@pytest.fixture
def options(weather_csv, synonyms, tmp_path):
    return ["--task", weather_csv, "--dev", weather_csv, "--synonyms", synonyms,
            "--run", tmp_path / "out"]  # fmt: skip


def told(text):
    return " ".join(text.split())


def test_a_teacher_and_a_student_are_attacked_and_told_in_a_table(
    run, weather_teacher_folder, shaky, options, tmp_path
):
    code, out, err = run(weather_teacher_folder, shaky, *options, "--examples", "40")
    assert code == 0
    kept = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert [one["model"] for one in kept["models"]] == [str(weather_teacher_folder), str(shaky)]
    assert "TextFooler on 40 dev texts of weather.csv" in out
    for one in kept["models"]:
        for name in ("original_accuracy", "after_attack_accuracy"):
            figure = one["scores"][name]
            assert f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})" in out
        assert f"{one['scores']['queries']['value']:.1f} (" in out
    assert kept["models"][0]["scores"]["original_accuracy"]["value"] == 1.0
    gap = kept["differences"][0]["difference"]["after_attack_accuracy"]["value"]
    assert f"{shaky} less {weather_teacher_folder}: after attack {100 * gap:+.1f} points" in out
    assert "importance: a word blanked by [UNK]" in out
    assert "attack.json and adversarial.tsv in" in told(err)
    assert (tmp_path / "out" / "adversarial.tsv").exists()


def test_figures_come_as_json_where_asked_for(run, shaky, options, tmp_path):
    code, out, _ = run(shaky, *options, "--examples", "5", "--json")
    assert code == 0
    kept = json.loads((tmp_path / "out" / "attack.json").read_text())
    assert json.loads(out) == {"command": "attack", "format": 1, **kept}


def test_adv_glue_is_told_in_a_table_of_its_own(run, weather_tokenizer, shaky, tmp_path):
    model = BertForSequenceClassification.from_pretrained(shaky)
    model.config.id2label = {0: "negative", 1: "positive"}
    model.save_pretrained(tmp_path / "model")
    weather_tokenizer.save_pretrained(tmp_path / "model")
    rows = [{"sentence": "sunny day", "original_sentence": "blue day", "label": place % 2}
            for place in range(4)]  # fmt: skip
    (tmp_path / "dev.json").write_text(json.dumps({"sst2": [*rows, {"sentence": "a", "label": 0}]}))
    code, out, err = run(
        tmp_path / "model", "--task", "glue/sst2", "--adv-glue", tmp_path / "dev.json",
        "--run", tmp_path / "out",
    )  # fmt: skip
    assert code == 0
    assert "AdvGLUE, dev set" in out
    assert out.count("50.0% (15.0% to 85.0%)") == 2
    assert "TextFooler" not in out
    assert "Done. attack.json in" in told(err)


def test_nothing_to_attack_with_is_refused(run, shaky):
    with pytest.raises(SettingsError, match="--synonyms FILE"):
        run(shaky, "--task", "glue/sst2")


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    run, shaky, options, tmp_path, monkeypatch
):
    going_on = search._Running.go_on
    steps = []

    def interrupt(self, reply):
        steps.append(None)
        if len(steps) > 400:
            raise KeyboardInterrupt
        going_on(self, reply)

    monkeypatch.setattr(search._Running, "go_on", interrupt)
    code, _, err = run(shaky, *options, "--examples", "120")
    assert code == 130
    assert "the same command again goes on there" in told(err)
    done = len((tmp_path / "out" / "outcomes.jsonl").read_text().splitlines())
    assert 0 < done < 120
    monkeypatch.undo()
    code, _, err = run(shaky, *options, "--examples", "120")
    assert code == 0
    assert f"{done} of 120 texts are attacked already" in err


@pytest.mark.slow
def test_a_killed_attack_goes_on_and_ends_with_the_same_files(
    shaky, weather_csv, synonyms, tmp_path
):
    def begin(out):
        return subprocess.Popen(
            [sys.executable, DRIVER, shaky, weather_csv, synonyms, out],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        )

    assert begin(tmp_path / "whole").wait(PATIENCE_S) == 0
    process, outcomes = begin(tmp_path / "killed"), tmp_path / "killed" / "outcomes.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while not outcomes.exists() or outcomes.read_text().count("\n") < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 5 <= outcomes.read_text().count("\n") < 60
    assert not (tmp_path / "killed" / "attack.json").exists()
    assert begin(tmp_path / "killed").wait(PATIENCE_S) == 0
    for name in ("outcomes.jsonl", "adversarial.tsv", "settings.json"):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
