import pytest

from stillhouse.report.gather import gather
from stillhouse.report.latency_limit import exact_limit, limit_basis, search_limit


@pytest.fixture
def limited(full_run, rewrite):
    """Contents of a search with limits, in which the teacher took 14 ms, or that is not known."""

    def make(limits, teacher_ms=14.0):
        volume = {"reference": {"quality": 0.0, "latency_ms": teacher_ms}, "by_trial": [0.1]}
        described = {"limits": limits, "hypervolume": {} if teacher_ms is None else volume}
        rewrite(full_run / "run.json", described)
        return gather(full_run)

    return make


@pytest.mark.parametrize(("latency_ms", "nearer_ms"), [(5.0, 5.0), (9.0, 7.0)])
def test_the_nearer_of_two_limits_stands(limited, latency_ms, nearer_ms):
    contents = limited({"speedup": 2.0, "latency_ms": latency_ms})

    assert search_limit(contents).value_ms == nearer_ms
    assert exact_limit(contents.limits).value_ms == latency_ms


def test_a_speed_up_over_a_teacher_that_the_search_did_not_record_has_no_line(limited):
    contents = limited({"speedup": 2.0}, teacher_ms=None)

    assert search_limit(contents) is None
    assert limit_basis(contents).startswith("The limit of 2× the teacher’s speed has no line: each")


def test_a_speed_up_is_told_with_what_it_rests_on(limited):
    told = limit_basis(limited({"speedup": 2.0}))

    assert "is 7 ms at the teacher’s 14 ms when the search first timed it" in told
    assert limit_basis(limited({"latency_ms": 5.0})) == ""
    assert limit_basis(limited({})) == ""
