"""The benchmark of few bits: which answers it keeps, how it tells them, and its untrained rival."""

import re

import numpy as np
import pytest

from benchmarks.kdlsq import SEEDS, kept, print_ways, spread, static_answers
from stillhouse.model.predict import predict
from stillhouse.recipe.quantise_bench import open_quantise_bench
from stillhouse.run.directory import open_run
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict


def told(text):
    return [float(number) for number in re.findall(r"[+-]?\d\.\d{4}", text)]


def test_answers_are_computed_once_for_a_teacher(tmp_path):
    computed = []

    def compute():
        computed.append(len(computed))
        return {"trained": np.full((2, 2), float(len(computed)))}

    def ask(teacher):
        return kept(tmp_path / "answers.npz", teacher, compute)["trained"][0, 0]

    assert [ask("a"), ask("a"), ask("b"), ask("b"), ask("a")] == [1, 1, 2, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.npz", "answers.teacher"]


def test_answers_without_a_fingerprint_are_of_the_present_teacher(tmp_path):
    np.savez(tmp_path / "answers.npz", trained=np.ones((2, 2)))

    def ask(teacher):
        return kept(tmp_path / "answers.npz", teacher, lambda: {"trained": np.zeros((2, 2))})

    assert ask("a")["trained"].all()
    assert not ask("b")["trained"].any()


def test_a_model_without_seeds_has_the_interval_of_its_sentences():
    right = np.array([1.0] * 300 + [0.0] * 100)
    mean, low, high = told(spread(np.tile(right, (SEEDS, 1))))
    error = np.sqrt(0.75 * 0.25 / 400)  # of a share
    assert mean == 0.75
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * error, rtol=0.02)


def test_every_way_is_told_with_what_training_adds(capsys):
    draw = np.random.default_rng(0).random((3, 500))
    right = {
        "untrained": list((draw < 0.5).astype(float)),
        "trained": list((draw < 0.9).astype(float)),
        "int8-static of 16 sentences": list((draw < 0.9).astype(float)),
    }
    print_ways(right, right, np.ones((3, 500)))
    lines = dict(line.strip().split(": ", 1) for line in capsys.readouterr().out.splitlines()[:-1])
    assert list(lines) == [
        "untrained", "trained", "int8-static of 16 sentences", "trained less untrained",
        "trained less int8-static of 16 sentences", "trained less float32",
    ]  # fmt: skip
    by_hand = [np.mean(right["trained"]) - np.mean(right["untrained"]), -np.mean(draw >= 0.9)]
    found = [told(lines[f"trained less {way}"])[0] for way in ("untrained", "float32")]
    np.testing.assert_allclose(found, by_hand, atol=1e-4)
    assert lines["trained less int8-static of 16 sentences"].startswith("+0.0000")


@pytest.mark.slow
def test_the_rival_is_the_model_itself_in_8_bits(weather_teacher_folder, weather_csv, tmp_path):
    settings = settings_from_dict(
        {
            "quantise": {"model": str(weather_teacher_folder), "weight_bits": 8},
            "task": {"name": str(weather_csv)},
            "distill": {"precision": "float32"},
        }
    )
    with open_run(tmp_path / "run", settings) as run:
        bench = open_quantise_bench(settings, run, LoggingNarrator())
        dev = bench.data.dev
        few, many = (static_answers(bench, dev, count) for count in (16, 64))
    exact = predict(bench.model, dev)
    for found in (few, many):
        gap = np.abs(found - exact).max() / np.abs(exact).max()
        assert 1e-6 < gap < 0.1
        assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.95
    assert not np.array_equal(few, many)  # of other scales
