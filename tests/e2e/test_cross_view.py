"""A tagger of words from sentences with tags and text without, on the command line, and killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

import stillhouse

DRIVER = Path(__file__).with_name("cross_view_driver.py")
PATIENCE_S = 120
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def weather_conll(weather_rows, weather_words, tmp_path_factory):
    """The texts in columns: word, tag."""
    path = tmp_path_factory.mktemp("task") / "weather.conll"
    kinds = {word: f"B-{name}" for name in ("bad", "good") for word in weather_words[name]}
    sentences = [
        "\n".join(f"{word} {kinds.get(word, 'O')}" for word in text.split())
        for text, _ in weather_rows
    ]
    path.write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_tagger_is_trained_with_text_without_tags(
    run_cli, weather_conll, weather_text, weather_words, tmp_path
):
    command = (
        "cross-view", "--task", weather_conll, "--unlabelled", weather_text, "--steps", "320",
        "--labels-fraction", "0.5", "--run", tmp_path / "run", "--set", "cross_view.batch_size=8",
        "--set", "cross_view.unlabelled_batch_size=8", "--set", "cross_view.evaluate_every=40",
        "--set", "cross_view.average=0.9", "--set", "cross_view.dropout=0.2",
        # The published rate of 0.5 swings on a set of 49 sentences, as the processor rounds.
        "--set", "cross_view.learning_rate=0.15",
    )  # fmt: skip
    code, out, err = run_cli(*command)
    assert code == 0, err
    assert "entity_f1" in out
    assert "CO2" in out
    assert "stillhouse.load_word_tagger" in err
    folder = tmp_path / "run" / "model"
    told = json.loads((folder / "metrics.json").read_text())
    assert told["quality"] > 0.8
    tagged = stillhouse.load_word_tagger(folder).tag([["the", "sunny", "day"], []])
    assert tagged == [["O", "B-good", "O"], []]
    assert not (tmp_path / "run" / "work").exists()

    code, again, _ = run_cli(*command)
    assert (code, again) == (0, out)
    code, _, err = run_cli("evaluate", folder, "--task", weather_conll)
    assert code == 1
    assert "holds a BiLSTM tagger of `stillhouse cross-view`" in err
    code, _, err = run_cli(*command, "--seed", "1")
    assert code == 1
    assert "was made with other settings" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "there is no sentence of it: give a file with --unlabelled"),
        (
            ("--set", "quantise.weight_bits=4"),
            "--set quantise.weight_bits: this command does not read it; it reads task",
        ),
        (("--size", "huge"), "cross_view.size: Input should be 'small' or 'published'"),
        (("--labels-fraction", "2"), "labels_fraction must be above 0 and at most 1"),
        (("--unlabelled", "EMPTY"), "holds no word; it needs a sentence a line"),
        (("--unlabelled", "EMPTY.gone"), "EMPTY.gone"),
        (("--vectors", "EMPTY", "--labels-fraction", "0.5"), "holds no word vector"),
    ],
)
def test_what_cannot_be_is_one_clear_line(run_cli, weather_conll, tmp_path, options, message):
    (tmp_path / "EMPTY").write_text("\n\n")
    given = [tmp_path / one if str(one).startswith("EMPTY") else one for one in options]
    code, _, err = run_cli("cross-view", "--task", weather_conll, "--run", tmp_path / "r", *given)
    assert code == 1
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_and_started_again_equals_undisturbed(weather_conll, weather_text, tmp_path):
    def begin(run):
        command = [sys.executable, DRIVER, run, weather_conll, weather_text]
        return subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **ONE_THREAD},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = begin(killed)
    deadline = time.monotonic() + PATIENCE_S
    while not any(killed.glob("work/training/step-[5-9]")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came to step 5"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "model").exists()
    spent_s = json.loads((killed / "run.json").read_text())["cost"]["seconds"]
    assert spent_s > 0  # what the killed process had told at its last evaluation
    for run in (killed, whole):
        written, _ = (process := begin(run)).communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, written
    one, other = (load_file(run / "model" / "model.safetensors") for run in (whole, killed))
    assert all((one[name] == other[name]).all() for name in one)
    told = [json.loads((run / "model" / "metrics.json").read_text()) for run in (whole, killed)]
    costs = [each.pop("cost") for each in told]
    assert costs[1]["seconds"] > spent_s
    assert told[0] == told[1]
