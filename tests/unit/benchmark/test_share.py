import pytest

from stillhouse.benchmark import front_shares
from stillhouse.errors import DataError
from stillhouse.search.recorded import RecordedRow, RecordedTable
from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.architecture import BertArchitecture


def trial(hidden_size, number, repeat_of=None):
    """A trial whose figures are far too good: only its architecture counts."""
    return Trial(
        number=number,
        architecture=BertArchitecture(layers=1, hidden_size=hidden_size, heads=2, ffn_size=16),
        state=TrialState.COMPLETE,
        quality=1.0,
        latency_ms=0.1,
        repeat_of=repeat_of,
    )


def test_shares_worked_by_hand(recorded):
    """Against 4 ms and 0.1: the front of 8, 24 and 32 has 3 · 0.1 + 2 · 0.4 + 1 · 0.2 = 1.3."""
    trials = [trial(16, 0), trial(24, 1), trial(24, 2, repeat_of=1), trial(8, 3), trial(32, 4)]
    # The slowest and worst adds nothing; 24 alone has 2 · 0.5, with 8 it is 3 · 0.1 + 2 · 0.4.
    assert front_shares(recorded, trials) == pytest.approx([0.0, 1.0 / 1.3, 1.1 / 1.3, 1.0])


def test_shares_do_not_depend_on_the_order_of_the_table(rows, recorded):
    trials = [trial(24, 0), trial(8, 1)]
    assert front_shares(RecordedTable.of(rows[::-1]), trials) == front_shares(recorded, trials)


def test_a_trial_of_another_table_is_refused(recorded):
    with pytest.raises(DataError, match=r"1 × 40, .* is not recorded; give trials of this table"):
        front_shares(recorded, [trial(40, 0)])


@pytest.mark.parametrize("name", ["quality", "latency_ms"])
def test_a_table_without_a_choice_has_no_shares(rows, name):
    figures = {"quality": [0.1, 0.2, 0.3, 0.4, 0.5], "latency_ms": [1, 2, 3, 3, 4]}
    figures[name] = [0.5] * 5
    same = [
        RecordedRow(
            architecture=row.architecture, seed=row.seed, quality=quality, latency_ms=latency_ms
        )
        for row, quality, latency_ms in zip(rows, *figures.values(), strict=True)
    ]
    with pytest.raises(DataError, match=f"{name} is the same everywhere"):
        front_shares(RecordedTable.of(same), [])
