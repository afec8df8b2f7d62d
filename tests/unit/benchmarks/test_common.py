from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks.__main__ import PAGE
from benchmarks.common import interval, interval_over_both, print_stages, spread


def test_every_benchmark_is_listed():
    """Those are programs that have a size."""
    folder = Path(__file__).parents[3] / "benchmarks"
    programs = [file.stem for file in folder.glob("*.py") if "__main__" in file.read_text("utf-8")]
    listed = [line.split()[0] for line in PAGE.splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(set(programs) - {"__main__"})


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(1).normal(0.5, 0.1, 5)
    mean, low, high = interval(values)
    theirs = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high))


def test_one_seed_has_no_interval():
    mean, low, high = interval([0.5])
    assert mean == 0.5
    assert np.isnan([low, high]).all()


def test_the_interval_over_seeds_and_sentences_covers_what_it_says():
    """Draws where both vary: 95 % of the intervals should hold the true mean, 0."""
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        values_SN = draw.normal(0, 0.03, (3, 1)) + draw.normal(0, 0.3, (1, 400))
        _, low, high = interval_over_both(values_SN + draw.normal(0, 0.2, (3, 400)))
        held += low < 0 < high
    assert 0.88 < held / 300 < 0.99


def test_without_seeds_that_differ_the_interval_is_that_of_the_sentences():
    marks = np.array([1.0] * 300 + [0.0] * 100)
    mean, low, high = interval_over_both(np.stack([marks] * 3))
    theirs = ttest_1samp(marks, 0.0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((0.75, theirs.low, theirs.high), abs=1e-4)


def test_a_spread_is_written_with_its_interval():
    assert spread([0.25, 0.25, 0.25]) == "0.2500 (0.2500 to 0.2500)"
    assert spread([-1.0, -1.0], "+.1f") == "-1.0 (-1.0 to -1.0)"


def test_gaps_to_random_are_paired(capsys):
    found = {"random": np.array([[0.1], [0.9]]), "better": np.array([[0.2], [1.0]])}
    print_stages("shares found", found, (5,))
    first, second = capsys.readouterr().out.split("\n\n")
    assert first.startswith("shares found, mean")
    assert [line.split()[0] for line in first.splitlines()[2:]] == ["random", "better"]
    [only] = second.splitlines()[2:]
    assert only.split(maxsplit=1)[1].strip() == "+0.1000 (+0.1000 to +0.1000)"
