"""The benchmark of first weights: its arithmetic, and one so small that it runs in a test."""

import math
import re

import numpy as np
import pytest

from benchmarks import common, extract
from benchmarks.extract import (
    Size,
    end,
    half_numbers,
    losses_of,
    print_losses,
    print_savings,
    saving,
    steps_until,
    told,
)

SIZE = Size(
    steps=24, batch=4, length=16, sequences=24, held_out=12, measured=8, seeds=2, most_train=20,
    epochs=1.0,
)  # fmt: skip


def record(*losses, measured_s=0.0):
    """A curve with a look every 2 steps, of a second each."""
    curve = {str(2 * look): loss for look, loss in enumerate(losses)}
    return {"curve": curve, "measured_s": measured_s, "step_s": 1.0}


SCRATCH = record(*np.linspace(9, 3, 13))


def test_a_curve_is_read_in_the_order_of_its_steps():
    steps, losses = losses_of({"curve": {"0": 4.0, "10": 1.0, "5": 2.0}})
    assert (steps.tolist(), losses.tolist()) == ([0, 5, 10], [4.0, 2.0, 1.0])
    assert end({"curve": {"0": 4.0, "10": 1.0, "5": 2.0}}) == 1.0


@pytest.mark.parametrize(
    ("losses", "wanted", "steps"),
    [
        ((8, 4, 2), 6, 1),  # half way down the first two steps
        ((8, 4, 2), 2.5, 3.5),
        ((8, 4, 2), 2, 4),
        ((8, 4, 2), 9, 0),  # from the beginning on
        ((8, 4, 2), 1, None),
        ((8, 4, 6, 2), 5, 1.5),  # the first time, though it is worse once more
    ],
)
def test_steps_to_equal_quality_are_between_two_looks_by_a_line(losses, wanted, steps):
    assert steps_until(record(*losses), wanted) == steps


def test_no_sequence_that_chooses_a_rate_is_one_that_losses_are_told_on():
    choosing, telling = half_numbers(7)
    assert sorted([*choosing, *telling]) == list(range(7))
    assert len(choosing) - len(telling) == 1


def test_what_a_beginning_saves_counts_the_measuring_of_importance():
    """It is where scratch ends after 6 of 24 steps, and measuring took as long as 3."""
    early = record(9, 7, 5, 3, *[3.0] * 9, measured_s=3.0)
    assert saving(early, SCRATCH, 24) == (6, 3, pytest.approx(100 * (1 - 9 / 24)))
    assert saving(SCRATCH, SCRATCH, 24) == (24, 0, 0)


def test_a_beginning_that_never_arrives_saves_nothing():
    steps, extra, percent = saving(record(*[4.0] * 13, measured_s=6.0), SCRATCH, 24)
    assert (steps, extra, percent) == (None, 6.0, pytest.approx(-25))


def test_savings_are_told_with_the_seeds_that_did_not_arrive(capsys):
    never, early = record(*[4.0] * 13), record(9, 7, 5, 3, *[3.0] * 9)
    print_savings({"slices": [early, never], "scratch": [SCRATCH] * 2}, SIZE)
    [line] = [one for one in capsys.readouterr().out.splitlines() if "slices" in one]
    assert "slices     15 steps" in line  # 6 and 24
    assert "not reached with 1 of 2 seeds" in line
    assert "saved, with that: +37.5 % (" in line  # of 75 and 0
    assert line.endswith("not resolved; small: not evidence")


def test_losses_are_told_at_their_steps_and_gaps_paired_by_seed(capsys):
    ours = [record(*[5.0] * 12, 2.0), record(*[5.0] * 12, 4.0)]
    theirs = [record(*[6.0] * 12, 3.0), record(*[6.0] * 12, 5.0)]
    print_losses({"importance": ours, "scratch": theirs}, SIZE)
    first, second, gap = capsys.readouterr().out.splitlines()[2:]
    assert re.findall(r"(\d+): (\d\.\d+) \(", first) == [
        ("0", "5.0000"), ("2", "5.0000"), ("6", "5.0000"), ("12", "5.0000"), ("24", "3.0000"),
    ]  # fmt: skip
    assert "24: 4.0000" in second
    assert gap == "  at the end, importance less scratch: -1.0000 (-1.0000 to -1.0000, n = 2 seeds)"


def test_a_difference_that_may_be_none_is_no_evidence():
    assert told([1.0, 1.2, 1.1]).endswith("n = 3 seeds)")
    assert told([-1.0, 1.2, 0.1]).endswith("not resolved; small: not evidence")
    assert told([1.0]).endswith("not resolved; small: not evidence")  # one seed has no interval


@pytest.fixture
def tiny(tmp_path, monkeypatch, weather_encoder_folder, weather_text, weather_rows):
    """Teacher, text and task of a toy, and a folder of records of its own."""
    glue = tmp_path / "glue"
    (glue / "SST-2").mkdir(parents=True)
    lines = [f"{text}\t{int(label == 'good')}" for text, label in weather_rows]
    for name, chosen in (("train.tsv", lines[:80]), ("dev.tsv", lines[80:])):
        (glue / "SST-2" / name).write_text("\n".join(["sentence\tlabel", *chosen, ""]))
    for module in (common, extract):
        monkeypatch.setattr(module, "WORK", tmp_path)
    for name, value in {
        "SHAPE": "layers=2,hidden_size=16,heads=4,ffn_size=48",
        "minilm_folder": lambda: str(weather_encoder_folder),
        "enwiki_folder": lambda: weather_text,
        "glue_folder": lambda: glue,
        "BEGINNINGS": {
            name: extract.BEGINNINGS[name] for name in ("importance", "leading", "scratch")
        },
    }.items():
        monkeypatch.setattr(extract, name, value)


@pytest.mark.slow
def test_a_toy_trains_each_student_once_and_tells_the_same_again(tiny, monkeypatch, capsys):
    def settled(text):
        lines = text[text.index("\nloss on held-out text") :].splitlines()
        return [line for line in lines if not line.startswith("  {")]  # of a job that was done now

    extract.run(SIZE)
    first = capsys.readouterr().out
    records = common.Records("extract")
    for name in extract.BEGINNINGS:
        curves = [
            records.find(extract.job_of(SIZE, name, seed=0, rate=rate)) for rate in extract.RATES
        ]
        assert [list(map(int, one["curve"])) for one in curves] == [list(range(0, 25, 2))] * 2
        assert all(math.isfinite(one["chosen_by"]) for one in curves)
        measured = {one["measured_s"] > 0 for one in curves}
        assert measured == {name == "importance"}
        best = min(zip(curves, extract.RATES, strict=True), key=lambda pair: pair[0]["chosen_by"])
        assert f"{name}: rate {best[1]:g} (" in first

    def nothing_more(*_, **__):
        pytest.fail("a finished job was done again")

    monkeypatch.setattr(extract, "learn_terms", nothing_more)
    monkeypatch.setattr(extract, "run_finetune_job", nothing_more)
    extract.run(SIZE)
    assert settled(capsys.readouterr().out) == settled(first)
