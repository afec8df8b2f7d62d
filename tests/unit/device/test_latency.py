import json
import random

import pytest

from stillhouse.device.latency import Comparison, Workload, summarise
from stillhouse.errors import DeviceError, SettingsError

WORKLOAD = Workload(length=64)


def shuffled(values):
    return random.Random(0).sample(list(values), len(values))


def summary(times_ms):
    return summarise(times_ms, device="chip", workload=WORKLOAD)


@pytest.mark.parametrize(
    ("runs", "low", "high"),
    [
        # The median lies below rank r with the chance that fewer than r of n coins fall heads.
        (20, 6, 15),  # P(X ≤ 5) = 0.0207 ≤ 0.025, P(X ≤ 6) = 0.0577
        (10, 2, 9),  # P(X ≤ 1) = 0.0107 ≤ 0.025, P(X ≤ 2) = 0.0547
        (8, 1, 8),  # P(X ≤ 0) = 0.0039 ≤ 0.025, P(X ≤ 1) = 0.0352
        (6, 1, 6),  # P(X ≤ 0) = 0.0156 ≤ 0.025
    ],
)
def test_the_interval_is_made_of_order_statistics(runs, low, high):
    latency = summary(shuffled(range(1, runs + 1)))
    assert (latency.low_ms, latency.high_ms) == (low, high)


def test_percentiles_of_a_ladder():
    """Times 0 to 100: each percentile is its own number."""
    latency = summary(shuffled(range(101)))
    assert (latency.p10_ms, latency.median_ms, latency.p90_ms) == (10, 50, 90)
    assert summary([1.0, 2.0, 3.0, 4.0, 5.0, 60.0]).median_ms == 3.5


def test_the_figure_carries_where_it_comes_from():
    latency = summary([1.5] * 8)
    assert (latency.runs, latency.how, latency.device) == (8, "measured", "chip")
    assert latency.workload is WORKLOAD
    assert latency.low_ms == latency.median_ms == latency.high_ms == 1.5


@pytest.mark.parametrize("runs", [0, 1, 5])
def test_too_few_runs_have_no_interval(runs):
    with pytest.raises(DeviceError, match=f"{runs} timed runs: a median needs at least 6"):
        summary([1.0] * runs)


def test_a_figure_becomes_plain_data():
    data = json.loads(json.dumps(summary([2.0] * 6).to_dict()))
    assert data["median_ms"] == 2.0
    assert data["how"] == "measured"
    assert data["workload"] == {
        "length": 64,
        "batch": 1,
        "precision": "float32",
        "threads": 0,
        "padding_fraction": 0.0,
    }


def test_the_speedup_is_teacher_over_student():
    student, teacher = summary([2.0] * 6), summary([5.0] * 6)
    assert Comparison(student=student, teacher=teacher).speedup == 2.5


@pytest.mark.parametrize(
    ("workload", "label"),
    [
        (Workload(length=64), "batch 1, length 64, float32"),
        (
            Workload(length=32, batch=8, precision="bfloat16", threads=2),
            "batch 8, length 32, bfloat16, 2 threads",
        ),
    ],
)
def test_a_workload_reads_as_one_line(workload, label):
    assert workload.label == label


@pytest.mark.parametrize("sizes", [{"length": 0}, {"batch": 0}, {"threads": -1}])
def test_an_impossible_workload_is_refused(sizes):
    with pytest.raises(SettingsError, match="batch and length must be at least 1"):
        Workload(**{"length": 8, **sizes})
