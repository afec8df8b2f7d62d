import numpy as np
import pytest
from scipy.stats import bootstrap

from benchmarks.common import interval, print_stages, spread


def test_the_interval_is_that_of_scipy():
    values = np.random.default_rng(1).normal(0.5, 0.1, 20)
    mean, low, high = interval(values)
    theirs = bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


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
