from types import SimpleNamespace

import pytest

from stillhouse.errors import SettingsError
from stillhouse.recipe import searching
from stillhouse.recipe.searching import Aims, hypervolume_facts, time_keeper, why_no_winner
from stillhouse.recipe.task_search import _check_students, effective_limits, final_seconds
from stillhouse.run.device_settings import LimitSettings
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

ANY = BertArchitecture(layers=1, hidden_size=32, heads=1, ffn_size=32)
FREE_HEADS = BertArchitecture(layers=1, hidden_size=32, heads=3, head_size=16, ffn_size=32)
MOBILEBERT = MobileBertArchitecture(
    layers=1, hidden_size=32, bottleneck_size=16, heads=1, ffn_size=32, ffn_count=1,
    embedding_size=16,
)  # fmt: skip


def trained(number, cost_s, **changes):
    made = {"state": TrialState.COMPLETE, "quality": 0.5, "latency_ms": 1.0, **changes}
    return Trial(number=number, architecture=ANY, cost_s=cost_s, **made)


def test_without_a_limit_twice_the_speed_is_asked_for_and_said(bench, talk):
    assert effective_limits(bench()) == LimitSettings(speedup=2.0)
    [said] = talk.said
    assert "2 times as fast as the teacher" in said
    assert "--limit" in said


def test_a_given_limit_stands_alone(bench, talk):
    assert effective_limits(bench({"limit": {"size_mb": 4.0}})) == LimitSettings(size_mb=4.0)
    assert talk.said == []


@pytest.mark.parametrize("names", ["quality,size_mb", "reward"])
def test_objectives_that_ask_for_no_limit_get_none(bench, talk, names):
    assert effective_limits(bench({"search": {"objectives": names}})) == LimitSettings()
    assert talk.said == []


@pytest.mark.parametrize("bits", [None, 4])
def test_few_bits_are_refused_where_students_cannot_have_them(bench, bits):
    """Students of a space are of one family; those of free heads are as good as others."""
    asked = bench({"quantise": {"weight_bits": bits}})
    shapes = [FREE_HEADS, ANY]
    _check_students(asked, shapes)
    if bits is None:
        _check_students(asked, [MOBILEBERT])
        return
    with pytest.raises(SettingsError, match=r"weight_bits is 4, but .* 'mobilebert' cannot be"):
        _check_students(asked, [MOBILEBERT])


def seconds_after(bench, candidate_s, maps=0):
    return final_seconds(bench, candidate_s, maps=maps)


def keeper(bench, recorded=()):
    seconds = bench.settings.search.seconds
    return time_keeper(bench.run, seconds, recorded, lambda each: seconds_after(bench, each))


@pytest.fixture
def timed_bench(bench):
    """A candidate sees 2 × 100 examples, two final students 3 × 1,000 each."""

    def make(budget_s, wall_s=0.0, final=(), compare=(), **more):
        made = bench(
            {
                "search": {"epochs": 2, "proxy_examples": 100, "seconds": budget_s},
                "final": {"students": 2, "epochs": 3, **dict(final)},
                "compare": list(compare),
                **more,
            },
            data=SimpleNamespace(transfer=range(1000)),
            run=SimpleNamespace(state=lambda: {"phases_s": {"teacher": wall_s}}),
        )
        made.__dict__["proxy"] = range(100)
        return made

    return make


def test_the_final_training_is_foreseen_from_a_candidate(timed_bench):
    # 3,000 examples are 15 times a candidate's 200; two students, 4 s a candidate.
    assert seconds_after(timed_bench(None), 4.0) == 2 * 15 * 4.0


def test_what_checks_the_proxy_is_foreseen_too(timed_bench):
    bench = timed_bench(None, final={"controls": 3, "noise_candidates": 8}, compare=["layers=1"])
    # Two students, three controls, a competitor; and eight candidates again.
    assert seconds_after(bench, 4.0) == (2 + 3 + 1) * 15 * 4.0 + 8 * 4.0


def test_a_search_for_a_layer_map_is_foreseen_too(timed_bench):
    assert seconds_after(timed_bench(None), 4.0, maps=18) == (2 * 15 + 18) * 4.0


def test_few_bits_are_foreseen_too(timed_bench):
    # Two students, 4 passes over 1,000 examples at 1.4 times the cost: 28 times a candidate's 200.
    bench = timed_bench(None, quantise={"weight_bits": 4, "epochs": 4})
    assert seconds_after(bench, 4.0) == pytest.approx(2 * (15 + 28) * 4.0)


@pytest.mark.parametrize(
    ("budget_s", "wall_s", "passed_s", "starts"),
    [
        (None, 0, 10_000, True),
        # One more candidate of 4 s and the final 120 s must fit.
        (200, 0, 70, True),
        (200, 0, 77, False),
        (200, 60, 10, True),
        (200, 60, 17, False),
    ],
)
def test_time_for_the_final_training_is_kept_back(
    timed_bench, monkeypatch, budget_s, wall_s, passed_s, starts
):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(searching, "time", SimpleNamespace(monotonic=lambda: clock.now))
    may_start = keeper(timed_bench(budget_s, wall_s))
    clock.now += passed_s
    trials = [
        trained(0, 2.0),
        trained(1, 6.0),
        trained(2, 0.0, repeat_of=1),
        trained(3, 99.0, state=TrialState.FAILED, quality=None),
        trained(4, 0.1, state=TrialState.INFEASIBLE, quality=None),
    ]
    assert may_start(trials) is starts


@pytest.mark.parametrize(("passed_s", "starts"), [(77.5, True), (78.5, False)])
def test_stopped_candidates_make_the_next_one_shorter_and_no_student(
    timed_bench, monkeypatch, passed_s, starts
):
    # A candidate takes 2 s on average, one that comes through 4 s, hence the students 120 s.
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(searching, "time", SimpleNamespace(monotonic=lambda: clock.now))
    may_start = keeper(timed_bench(200))
    clock.now += passed_s
    halved = {"quality": None, "attributes": {"rung_qualities": [0.1]}}
    stopped = [trained(n, 1.0, state=TrialState.STOPPED, **halved) for n in (1, 2)]
    assert may_start([trained(0, 4.0), *stopped]) is starts


def test_one_candidate_starts_whatever_the_time(timed_bench):
    assert keeper(timed_bench(0.001))([])


def test_a_killed_search_is_billed_for_its_trials(timed_bench, monkeypatch):
    # 60 s of teacher, a candidate of 15 s and its final training of 450 s fit into 600 s; the
    # 100 s of trials that the killed search recorded do not fit beside them.
    clock = SimpleNamespace(monotonic=lambda: 0.0)
    monkeypatch.setattr(searching, "time", clock)
    recorded = [trained(0, 15.0), trained(1, 85.0, state=TrialState.FAILED, quality=None)]
    bench = timed_bench(600, 60.0)
    assert keeper(bench)(recorded)
    assert not keeper(bench, recorded)(recorded)


def test_the_hypervolume_is_told_after_every_trial_from_the_first_teachers_latency():
    known = {"teacher_latency_ms": 4.0}
    trials = [
        trained(0, 1.0, state=TrialState.FAILED, quality=None, latency_ms=None),
        trained(1, 1.0, quality=0.5, latency_ms=2.0, attributes=known),
        trained(2, 1.0, quality=0.9, latency_ms=9.0, attributes={"teacher_latency_ms": 5.0}),
        trained(3, 1.0, quality=0.75, latency_ms=3.0),
    ]
    aims = Aims(names=["quality", "latency_ms"], teacher_size_mb=10.0)
    told = hypervolume_facts(trials, aims)
    assert told["reference"] == {"latency_ms": 4.0, "quality": 0.0}
    # Half of the time at half of the quality; then a quarter of the time for a quarter more.
    assert told["by_trial"] == [0.0, 0.25, 0.25, 0.3125]
    assert hypervolume_facts(trials[:1], aims) == {}


def test_a_hypervolume_of_sizes_counts_from_the_teachers():
    known = {"teacher_latency_ms": 4.0, "size_mb": 5.0, "flops_fraction": 0.5}
    trials = [trained(0, 1.0, quality=0.5, latency_ms=2.0, attributes=known)]
    names = ["quality", "latency_ms", "size_mb", "flops_fraction"]
    aims = Aims(names=names, teacher_size_mb=10.0)
    assert hypervolume_facts(trials, aims) == {
        "reference": {"quality": 0.0, "latency_ms": 4.0, "size_mb": 10.0, "flops_fraction": 1.0},
        "by_trial": [0.0625],
    }


def test_a_reward_is_searched_alone_and_leaves_a_front_of_quality_and_latency():
    aims = Aims(names=["reward"], teacher_size_mb=10.0)
    assert [one.name for one in aims.of_strategy] == ["reward"]
    assert [one.name for one in aims.of_front] == ["quality", "latency_ms"]


def test_a_search_that_found_nothing_tells_what_became_of_its_trials():
    lost = {"quality": None, "state": TrialState.FAILED}
    over = {"quality": None, "state": TrialState.INFEASIBLE}
    trials = [trained(0, 1.0, reason="too hot", **lost), trained(1, 1.0, reason="slow", **over)]
    told = why_no_winner(trials)
    assert told == (
        "no candidate could be trained (1 failed, 1 infeasible); the last failure: too hot"
    )
    assert "none proposed" in why_no_winner([])
