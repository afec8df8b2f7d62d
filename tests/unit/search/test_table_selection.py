import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.errors import SettingsError
from stillhouse.search.table_selection import BlockTable, nearest, select_lowest

GROUPS, COSTS = 3, 3
NONE = np.full(COSTS, np.inf)


class Case:
    """Tables of numbers that are exact in binary, so that sums are the same in any order."""

    def __init__(self, *, seed, blocks, rows, losses=512, groups=GROUPS):
        drawn = np.random.default_rng(seed)
        self.tables = [
            BlockTable(
                loss=drawn.integers(1, losses + 1, rows) / 64,
                costs=drawn.integers(1, 800, (rows, COSTS)) / 8,
                group=drawn.integers(0, groups, rows),
            )
            for _ in range(blocks)
        ]
        self.ways = {
            "bridges": drawn.integers(0, 200, (groups, groups, COSTS)) / 8,
            "first": drawn.integers(0, 80, (groups, COSTS)) / 8,
            "last": drawn.integers(0, 80, (groups, COSTS)) / 8,
        }

    def all(self):
        """Rows, losses and costs of every combination, in the order of the rows."""
        blocks = len(self.tables)
        shape = [len(table.loss) for table in self.tables]
        rows = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
        groups = [table.group[rows[:, i]] for i, table in enumerate(self.tables)]
        losses = sum(table.loss[rows[:, i]] for i, table in enumerate(self.tables))
        costs = sum(table.costs[rows[:, i]] for i, table in enumerate(self.tables))
        costs = costs + self.ways["first"][groups[0]] + self.ways["last"][groups[-1]]
        for i in range(blocks - 1):
            costs = costs + self.ways["bridges"][groups[i], groups[i + 1]]
        return rows, losses, costs

    def check(self, limits, count):
        rows, losses, costs = self.all()
        meeting = np.flatnonzero((costs <= limits).all(axis=1))
        wanted = sorted(meeting.tolist(), key=lambda i: (losses[i], i))[:count]
        found = select_lowest(self.tables, **self.ways, limits=limits, count=count)
        np.testing.assert_array_equal(found.rows, rows[wanted])
        np.testing.assert_array_equal(found.losses, losses[wanted])
        np.testing.assert_array_equal(found.costs, costs[wanted])
        return len(meeting)


def limits_at(costs, fractions):
    return np.array([np.quantile(costs[:, c], f) for c, f in enumerate(fractions)])


@pytest.mark.parametrize("losses", [100_000, 512, 8, 1], ids=["few ties", "ties", "many", "all"])
def test_equals_brute_force_on_100_000_combinations(losses):
    case = Case(seed=losses, blocks=4, rows=18, losses=losses)
    costs = case.all()[2]
    drawn = np.random.default_rng(1)
    met = [
        case.check(limits_at(costs, drawn.uniform(0.0, 1.0, COSTS) ** 2), count=100)
        for _ in range(6)
    ]
    assert max(met) > 100 > min(met)
    assert case.check(NONE, count=100) == 18**4


def test_limits_that_few_or_none_meet():
    case = Case(seed=3, blocks=4, rows=18)
    costs = case.all()[2]
    scale = costs.mean(axis=0)
    hardest = (costs / scale).max(axis=1)
    few = scale * np.sort(hardest)[6]
    assert 1 <= case.check(few, count=100) <= 10
    assert case.check(few, count=3) >= 1
    assert case.check(scale * hardest.min() * 0.999, count=100) == 0
    assert (scale * hardest.min() > costs.min(axis=0)).all()  # each limit alone would be met
    assert case.check(costs.min(axis=0) * 0.99, count=100) == 0


def test_a_limit_is_met_by_what_equals_it():
    case = Case(seed=4, blocks=4, rows=6)
    costs = case.all()[2]
    least = np.array([costs[:, 0].min(), np.inf, np.inf])
    assert case.check(least, count=5) == np.sum(costs[:, 0] == least[0])
    least[0] = np.nextafter(least[0], 0)
    assert case.check(least, count=5) == 0


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_fewer_blocks(blocks):
    case = Case(seed=blocks, blocks=blocks, rows=30)
    costs = case.all()[2]
    for fraction in (0.01, 0.3, 1.0):
        assert case.check(limits_at(costs, [fraction, 1.0, fraction]), count=20) >= 0
    assert case.check(NONE, count=100_000) == 30**blocks


def test_by_hand():
    tables = [
        BlockTable(
            loss=np.array([1.0, 2.0]), costs=np.array([[5.0], [1.0]]), group=np.array([0, 1])
        ),
        BlockTable(
            loss=np.array([4.0, 3.0]), costs=np.array([[1.0], [2.0]]), group=np.array([1, 0])
        ),
    ]
    ways = {
        "bridges": np.array([[[0.0], [10.0]], [[20.0], [0.0]]]),
        "first": np.array([[100.0], [200.0]]),
        "last": np.array([[1000.0], [3000.0]]),
    }
    found = select_lowest(tables, **ways, limits=np.array([np.inf]), count=9)
    assert found.rows.tolist() == [[0, 1], [0, 0], [1, 1], [1, 0]]
    assert found.losses.tolist() == [4, 5, 5, 6]
    assert found.costs[:, 0].tolist() == [1107, 3116, 1223, 3202]
    assert nearest(tables, **ways, limits=np.array([1000.0])).rows.tolist() == [[0, 1]]


def table(losses, costs):
    return BlockTable(
        loss=np.array(losses), costs=np.array(costs), group=np.zeros(len(losses), dtype=int)
    )


FREE = {"bridges": np.zeros((1, 1, 2)), "first": np.zeros((1, 2)), "last": np.zeros((1, 2))}


def test_of_equal_losses_the_first_rows_are_taken_though_found_late():
    nothing = [[0.0, 0.0]] * 2
    tables = [table([2.0, 1.0], nothing), table([3.0, 4.0], nothing)]
    found = select_lowest(tables, **FREE, limits=np.full(2, np.inf), count=2)
    assert found.rows.tolist() == [[1, 0], [0, 0]]  # and not [1, 1], whose loss is 5 as well


def test_of_equally_near_ones_the_lowest_loss_is_taken_though_found_late():
    tables = [
        table([5.0, 1.0], [[0.5, 0.5], [1.5, 0.5]]),
        table([1.0, 1.0], [[0.5, 1.5], [1.5, 0.5]]),
    ]
    found = nearest(tables, **FREE, limits=np.ones(2))
    assert found.rows.tolist() == [[1, 0]]  # the first block's row 0 looks nearer, but is not


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    blocks=st.integers(1, 4),
    rows=st.integers(1, 5),
    losses=st.sampled_from([1, 3, 512]),
    fractions=st.lists(st.floats(0, 1), min_size=COSTS, max_size=COSTS),
    count=st.integers(1, 40),
)
def test_small_cases(seed, blocks, rows, losses, fractions, count):
    case = Case(seed=seed, blocks=blocks, rows=rows, losses=losses)
    case.check(limits_at(case.all()[2], fractions), count)


def test_of_sums_with_rounding_the_same_ones_are_found():
    drawn = np.random.default_rng(0)
    tables = [
        BlockTable(
            loss=drawn.normal(1, 0.1, 12), costs=drawn.random((12, 2)), group=np.zeros(12, int)
        )
        for _ in range(4)
    ]
    found = select_lowest(tables, **FREE, limits=np.array([1.5, 2.0]), count=50)
    wanted = []
    for rows in itertools.product(range(12), repeat=4):
        costs = sum(table.costs[row] for table, row in zip(tables, rows, strict=True))
        if costs[0] <= 1.5 and costs[1] <= 2.0:
            losses = [table.loss[row] for table, row in zip(tables, rows, strict=True)]
            wanted.append((sum(losses), rows))
    wanted = sorted(wanted)[:50]
    assert [tuple(rows) for rows in found.rows] == [rows for _, rows in wanted]
    np.testing.assert_allclose(found.losses, [loss for loss, _ in wanted], rtol=1e-12)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_nearest_has_the_smallest_worst_excess(blocks):
    case = Case(seed=blocks, blocks=blocks, rows=10)
    rows, losses, costs = case.all()
    for limits in (np.array([2.0, 4.0, 1.0]), np.array([64.0, np.inf, 32.0])):  # exact divisions
        worst = (costs / limits - 1).max(axis=1)
        (wanted, *_) = sorted(range(len(rows)), key=lambda i: (worst[i], losses[i], i))
        found = nearest(case.tables, **case.ways, limits=limits)
        assert found.rows.tolist() == [rows[wanted].tolist()]
        np.testing.assert_array_equal(found.costs[0], costs[wanted])


def test_nearest_among_equals_takes_the_lowest_loss():
    case = Case(seed=6, blocks=3, rows=9, losses=3)
    rows, losses, _ = case.all()
    found = nearest(case.tables, **case.ways, limits=NONE)
    assert found.rows.tolist() == [rows[np.argmin(losses)].tolist()]


def test_rows_without_finite_numbers_are_never_selected():
    case = Case(seed=5, blocks=3, rows=4)
    case.tables[0].loss[1] = np.nan
    case.tables[1].costs[2, 1] = np.inf
    case.tables[2].loss[:3] = np.inf
    found = select_lowest(case.tables, **case.ways, limits=NONE, count=100)
    assert len(found.losses) == 3 * 3 * 1
    assert 1 not in found.rows[:, 0]
    assert 2 not in found.rows[:, 1]
    assert set(found.rows[:, 2]) == {3}
    case.tables[2].loss[:] = np.nan
    assert len(nearest(case.tables, **case.ways, limits=NONE).losses) == 0
    assert len(select_lowest(case.tables, **case.ways, limits=NONE, count=9).losses) == 0


def test_bad_input_is_refused():
    case = Case(seed=0, blocks=5, rows=2)
    with pytest.raises(SettingsError, match="combines 1 to 4 blocks, but there are 5"):
        select_lowest(case.tables, **case.ways, limits=NONE, count=1)
    with pytest.raises(SettingsError, match="there are 0"):
        nearest([], **case.ways, limits=NONE)
    case.tables = case.tables[:2]
    with pytest.raises(SettingsError, match=r"above 0, but they are \[1.0, 0.0, 1.0\]"):
        select_lowest(case.tables, **case.ways, limits=np.array([1.0, 0.0, 1.0]), count=1)
    with pytest.raises(SettingsError, match="1 combination or more, but 0 were"):
        select_lowest(case.tables, **case.ways, limits=NONE, count=0)
