import pytest

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.recipe.limits import size_mb, violations
from stillhouse.run.settings import LimitSettings


def latency(median_ms, high_ms=None):
    return Latency(
        median_ms=median_ms,
        low_ms=median_ms,
        high_ms=median_ms if high_ms is None else high_ms,
        p10_ms=median_ms,
        p90_ms=median_ms,
        runs=20,
        how="measured",
        device="here",
        workload=Workload(length=16),
    )


# The student's median is 4 ms and its interval ends at 6 ms; the teacher takes 8 ms.
COMPARISON = Comparison(student=latency(4.0, high_ms=6.0), teacher=latency(8.0, high_ms=9.0))


@pytest.mark.parametrize(
    ("limit", "over"),
    [
        ({"latency_ms": 5.0}, 0.2),  # 6 / 5: the median alone would meet it
        ({"latency_ms": 12.0}, -0.5),
        ({"speedup": 2.0}, 0.5),  # 8 / 2 = 4 ms allowed, 6 ms used
        ({"speedup": 1.0}, -0.25),
        ({"size_mb": 5.0}, -0.2),  # 1e6 parameters of 4 bytes are 4 MB
        ({"size_mb": 3.2}, 0.25),
        ({"parameters": 8e5}, 0.25),
        ({"params_m": 0.8}, 0.25),
        ({"params_m": 4.0}, -0.75),
        ({"flops_fraction": 0.2}, 0.5),  # 0.3 used
        ({"flops_fraction": 0.4}, -0.25),
    ],
)
def test_each_limit_by_hand(limit, over):
    found = violations(LimitSettings(**limit), COMPARISON, parameters=1_000_000, flops_fraction=0.3)
    assert found == {name: pytest.approx(over) for name in limit}


def test_exactly_at_the_limit_is_met():
    limits = LimitSettings(latency_ms=6.0, speedup=8 / 6, params_m=1.0, flops_fraction=0.3)
    met = violations(limits, COMPARISON, parameters=1_000_000, flops_fraction=0.3)
    assert met == {
        "latency_ms": 0.0,
        "speedup": pytest.approx(0.0),
        "params_m": 0.0,
        "flops_fraction": 0.0,
    }


def test_several_limits_in_their_order_and_none():
    counts = {"parameters": 10, "flops_fraction": 0.5}
    limits = LimitSettings(flops_fraction=0.5, parameters=2e6, latency_ms=6.0)
    names = ["latency_ms", "parameters", "flops_fraction"]
    assert list(violations(limits, COMPARISON, **counts)) == names
    assert violations(LimitSettings(), COMPARISON, **counts) == {}


def test_counts_are_judged_without_a_latency():
    limits = LimitSettings(parameters=8e5, flops_fraction=0.5)
    over = violations(limits, None, parameters=1_000_000, flops_fraction=0.25)
    assert over == {"parameters": pytest.approx(0.25), "flops_fraction": pytest.approx(-0.5)}


def test_size_of_bert_base():
    assert size_mb(109_483_778) == pytest.approx(437.9, abs=0.05)  # its file on the hub: 438 MB
