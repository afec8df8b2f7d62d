import itertools
import logging

import pytest

from stillhouse.device.stopwatch import MOST_ATTEMPTS, half_width_fraction, time_in_turn


class Clock:
    """A clock by hand: passes move it on."""

    def __init__(self):
        self.now_ns = 0

    def taking(self, durations_ms, calls=None, name=""):
        durations = iter(durations_ms)

        def run():
            self.now_ns += int(next(durations) * 1e6)
            if calls is not None:
                calls.append(name)

        return run


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("time.perf_counter_ns", lambda: clock.now_ns)
    monkeypatch.setattr("time.monotonic", lambda: clock.now_ns / 1e9)
    return clock


def test_passes_run_in_turn_and_a_stable_warm_up_ends_after_two_blocks(clock):
    calls = []
    student = clock.taking(itertools.repeat(1.0), calls, "student")
    teacher = clock.taking(itertools.repeat(4.0), calls, "teacher")
    timing = time_in_turn([student, teacher], longest_s=9.0)
    assert calls == ["student", "teacher"] * (2 * 5 + 20)
    assert timing.times_ms == ((1.0,) * 20, (4.0,) * 20)
    assert (timing.noise_fraction, timing.is_noisy, timing.attempts) == (0.0, False, 1)


def test_a_warm_up_goes_on_until_the_times_are_stable(clock):
    slow_first = itertools.chain([9.0] * 5, [5.0] * 5, [2.0] * 5, itertools.repeat(1.0))
    timing = time_in_turn([clock.taking(slow_first)], longest_s=9.0)
    assert set(timing.times_ms[0]) == {1.0}


def test_a_warm_up_that_never_settles_ends(clock):
    rising = (1.2 ** (n // 5) for n in itertools.count())
    timing = time_in_turn([clock.taking(rising)], longest_s=0.0)
    assert len(timing.times_ms[0]) == 20


def test_uneven_passes_go_on_and_the_interval_narrows(clock):
    timing = time_in_turn([clock.taking(itertools.cycle([1.0, 1.0, 2.0]))], longest_s=9.0)
    assert 20 < len(timing.times_ms[0]) <= 400


def test_time_ends_an_attempt_that_does_not_settle(clock):
    passes = [clock.taking(itertools.cycle([1.0, 2.0])), clock.taking(itertools.repeat(1.0))]
    timing = time_in_turn(passes, longest_s=0.1)
    assert all(len(times) < 100 for times in timing.times_ms)


def test_a_busy_machine_is_timed_again_and_the_calm_attempt_counts(clock, caplog):
    busy = itertools.chain([1.0, 2.0] * 205, itertools.repeat(1.0))
    passes = [clock.taking(busy), clock.taking(itertools.repeat(1.0))]
    with caplog.at_level(logging.WARNING):
        timing = time_in_turn(passes, longest_s=60.0)
    assert timing.attempts == 2
    assert not timing.is_noisy
    assert set(timing.times_ms[0]) == {1.0}
    assert not caplog.records


def test_a_machine_that_stays_busy_is_said_to_be(clock, caplog):
    passes = [clock.taking(itertools.cycle([1.0, 2.0])), clock.taking(itertools.repeat(1.0))]
    with caplog.at_level(logging.WARNING):
        timing = time_in_turn(passes, longest_s=0.1)
    assert timing.attempts == MOST_ATTEMPTS
    assert timing.is_noisy
    [record] = caplog.records
    assert "too busy to time models well: after 3 attempts" in record.getMessage()


def test_a_drift_of_the_whole_machine_is_no_noise_of_the_ratio(clock):
    speeds = [1 + n / 500 for n in range(2_000)]
    student = clock.taking(iter(speeds))
    teacher = clock.taking(3 * speed for speed in speeds)
    timing = time_in_turn([student, teacher], longest_s=9.0)
    assert half_width_fraction(timing.times_ms[0]) > 0.005
    assert timing.noise_fraction == pytest.approx(0.0, abs=1e-3)
    assert timing.attempts == 1
