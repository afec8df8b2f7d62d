import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.errors import SettingsError, SpaceError
from stillhouse.search.shrinking import (
    BinRecord,
    LeftOut,
    Shrinking,
    ShrinkRule,
    bins_of,
    left_out,
    planned_epochs,
)

SMALL = ShrinkRule(bins=2, sampled=4, kept=2, warm_epochs=1)


def test_bins_by_hand():
    parameters = np.array([1000, 100, 101, 200, 1, 950, 950, 500, 1200, 300, 1200])
    latency_ms = np.array([5.0, 0.5, 0.75, 1.0, 0.6, 5.1, 4.2, 2.51, 5.0, np.nan, 6.0])
    # fifth: first bin by size, second by latency; sixth slower than the largest; eighth just above
    # its border; ninth larger than the largest; tenth could not be measured;
    # the last one larger and slower than the largest
    found = bins_of(parameters, latency_ms, largest=0, bins=10)
    assert found.tolist() == [9, 0, 1, 1, -1, -1, -1, -1, -1, -1, -1]
    assert left_out(parameters, latency_ms, largest=0, bins=10) == LeftOut(
        other_latency_bin=3, beyond_largest=4
    )


def test_sums_with_rounding_lie_on_the_border():
    sums = np.array([0.1 + 0.2, 0.3, 0.1 * 3, 1.0])
    assert sums[0] > sums[1]
    assert bins_of(np.array([3, 3, 3, 10]), sums, largest=3, bins=10).tolist() == [2, 2, 2, 9]


def test_nothing_at_all_lies_in_no_bin():
    found = bins_of(np.array([0, 10]), np.array([0.0, 1.0]), largest=1, bins=5)
    assert found.tolist() == [-1, 4]


@given(st.integers(1, 10**9), st.integers(1, 12), st.data())
def test_bins_of_whole_numbers_follow_the_definition(largest, bins, data):
    size = data.draw(st.integers(1, largest))
    found = bins_of(np.array([size, largest]), np.array([size, largest]), largest=1, bins=bins)
    place = int(found[0])
    tolerance = 1e-8 * largest * bins  # of the border
    assert place * largest - tolerance <= size * bins <= (place + 1) * largest + tolerance


def told(candidates):
    """Losses of a test: candidates whose number ends in a high digit are worse."""
    return np.asarray(candidates) % 10 + np.asarray(candidates) / 1000


def test_shrinking_by_hand():
    # bin 0: candidates 0, 1, 2; bin 1: 3, 4, 5, 7, 8, 9; 6 fits none
    shrinking = Shrinking(np.array([0, 0, 0, 1, 1, 1, -1, 1, 1, 1]), SMALL, seed=0)
    assert shrinking.alive.tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]

    assert shrinking.sample().tolist() == []  # the warm epoch
    assert shrinking.drop(np.empty(0)) == ()
    assert (shrinking.epoch, shrinking.counts_B.tolist()) == (1, [3, 6])
    assert not shrinking.is_done

    sampled = shrinking.sample().tolist()
    assert sampled[:3] == [0, 1, 2]  # all of the first bin, four of the six of the second
    others = sampled[3:]
    assert len(set(others)) == 4
    assert set(others) <= {3, 4, 5, 7, 8, 9}
    records = shrinking.drop(np.array([0.5, 0.7, 0.6, 4.0, 1.0, 3.0, 2.0]))
    assert records == (
        BinRecord(epoch=1, bin=0, sampled=3, dropped=1, alive=2, border_loss=0.6),
        BinRecord(epoch=1, bin=1, sampled=4, dropped=2, alive=4, border_loss=2.0),
    )
    gone = {1, others[0], others[2]}
    assert shrinking.alive.tolist() == sorted({0, 1, 2, 3, 4, 5, 7, 8, 9} - gone)

    sampled = shrinking.sample().tolist()  # all four that are left of the second bin
    assert sampled == shrinking.alive.tolist()[2:]
    (record,) = shrinking.drop(np.array([np.nan, 2.0, np.inf, 1.0]))
    assert record == BinRecord(epoch=2, bin=1, sampled=4, dropped=2, alive=2, border_loss=2.0)
    assert shrinking.alive.tolist() == [0, 2, sampled[1], sampled[3]]
    assert shrinking.is_done
    assert shrinking.epoch == 3
    assert shrinking.sample().tolist() == []
    assert shrinking.records == (*records, record)


def test_of_equal_losses_the_later_candidate_goes():
    shrinking = Shrinking(np.zeros(4, int), ShrinkRule(bins=1, kept=1, warm_epochs=0), seed=0)
    shrinking.drop(np.array([1.0, 1.0, 0.5, 1.0]))
    assert shrinking.alive.tolist() == [0, 2]


def test_no_bin_is_left_with_less_than_it_keeps():
    rule = ShrinkRule(bins=2, sampled=100, kept=10, warm_epochs=0)
    shrinking = Shrinking(np.repeat([0, 1], [12, 9]), rule, seed=0)
    (record,) = shrinking.drop(np.arange(12.0))
    assert (record.sampled, record.dropped, record.alive) == (12, 2, 10)
    assert shrinking.alive.tolist() == [*range(10), *range(12, 21)]
    assert shrinking.is_done


def test_half_of_diverged_candidates_is_dropped_all_the_same():
    rule = ShrinkRule(bins=1, kept=1, warm_epochs=0)
    shrinking = Shrinking(np.zeros(4, int), rule, seed=0)
    (record,) = shrinking.drop(np.array([np.nan, np.nan, np.nan, 3.0]))
    assert shrinking.alive.tolist() == [0, 3]
    assert record.border_loss == np.inf


def test_published_pace():
    rule = ShrinkRule()
    # 5,000 → 4,000 → 3,000 → 2,000 → 1,000 → 500 → 250 → 125 → 63 → 32 → 16 → 10
    assert planned_epochs(np.array([5000, 10, 0]), rule) == 3 + 11
    assert planned_epochs(np.array([10, 3]), rule) == 3
    assert planned_epochs(np.array([11]), rule) == 4


def run(shrinking, *, until=10**9):
    while not shrinking.is_done and shrinking.epoch < until:
        shrinking.drop(told(shrinking.sample()))
    return shrinking


@given(
    counts=st.lists(st.integers(0, 60), min_size=3, max_size=3).filter(any),
    sampled=st.integers(2, 20),
    kept=st.integers(1, 6),
    warm=st.integers(0, 3),
)
def test_planned_epochs_are_those_of_the_run(counts, sampled, kept, warm):
    rule = ShrinkRule(bins=3, sampled=sampled, kept=kept, warm_epochs=warm)
    shrinking = Shrinking(np.repeat([0, 1, 2], counts), rule, seed=1)
    assert shrinking.counts_B.tolist() == counts
    planned = planned_epochs(shrinking.counts_B, rule)
    run(shrinking)
    assert shrinking.epoch == planned
    assert shrinking.counts_B.tolist() == [min(count, kept) for count in counts]


@pytest.mark.parametrize("stop", [0, 1, 2, 4])
def test_resumed_is_as_unbroken(stop):
    bins = np.random.default_rng(0).integers(-1, 2, 120)
    rule = ShrinkRule(bins=2, sampled=16, kept=3, warm_epochs=1)
    whole = run(Shrinking(bins, rule, seed=7))
    file = io.BytesIO()
    np.savez(file, **run(Shrinking(bins, rule, seed=7), until=stop).to_arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        restored = Shrinking.from_arrays(arrays)
    assert restored.epoch == stop
    run(restored)
    assert restored.alive.tolist() == whole.alive.tolist()
    assert restored.records == whole.records
    assert [restored.draw(step) for step in range(50)] == [whole.draw(step) for step in range(50)]


def test_saved_arrays_do_not_change_afterwards():
    shrinking = Shrinking(np.zeros(8, int), ShrinkRule(bins=1, kept=1, warm_epochs=0), seed=0)
    saved = shrinking.to_arrays()
    shrinking.drop(np.arange(8.0))
    assert Shrinking.from_arrays(saved).alive.tolist() == list(range(8))


def test_the_seed_decides_what_is_sampled():
    rule = ShrinkRule(bins=1, sampled=10, warm_epochs=0)
    samples = [Shrinking(np.zeros(100, int), rule, seed=s).sample().tolist() for s in (0, 0, 1)]
    assert samples[0] == samples[1] != samples[2]
    assert samples[0] == sorted(samples[0])


def test_draws_are_uniform_over_what_is_left():
    shrinking = Shrinking(np.array([0, -1, 0, 1, 1, 0]), SMALL, seed=3)
    drawn = [shrinking.draw(step) for step in range(4000)]
    assert drawn[:100] == [shrinking.draw(step) for step in range(100)]
    shares = np.bincount(drawn, minlength=6) / len(drawn)
    assert shares[1] == 0
    np.testing.assert_allclose(shares[[0, 2, 3, 4, 5]], 0.2, atol=0.03)


def test_bad_input_is_refused():
    with pytest.raises(SpaceError, match="none of 3 does"):
        Shrinking(np.full(3, -1), ShrinkRule(), seed=0)
    with pytest.raises(SettingsError, match="sampled of at least 2, but it is 1"):
        ShrinkRule(sampled=1)
    with pytest.raises(SettingsError, match="kept of at least 1, but it is 0"):
        ShrinkRule(kept=0)
