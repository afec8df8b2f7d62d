from dataclasses import replace

from stillhouse.report.gather import gather
from stillhouse.report.trial_table import trial_table


def test_cells_are_in_the_order_of_their_columns(weighed_run):
    table = trial_table(gather(weighed_run))
    row = dict(zip([column.head for column in table.columns], table.first[1], strict=True))

    assert row["Trial"] == "1"
    assert row["accuracy, search-validation"] == "0.800"
    assert row["Latency"] == "2.00 ms"
    assert row["Cost"] == "12.5 s"
    assert any("8.0 MB" in cell for cell in table.first[1])
    assert table.first[3][-1] == "repeats trial 1"
    assert table.later == []


def test_rewards_have_a_column_where_there_are_some(full_run):
    contents = gather(full_run)
    rewarded = replace(contents.trials[0], reward=0.25)
    table = trial_table(replace(contents, trials=(rewarded, *contents.trials[1:])))
    place = [column.head for column in table.columns].index("Reward")

    assert "Reward" not in [column.head for column in trial_table(contents).columns]
    assert table.first[0][place] == "0.250"
    assert table.first[1][place] == "–"


def test_what_is_beyond_the_first_hundred_comes_later(full_run):
    contents = gather(full_run)
    many = tuple(replace(contents.trials[0], number=number) for number in range(250))
    table = trial_table(replace(contents, trials=many))

    assert [len(table.first), len(table.later)] == [100, 150]
    assert table.later[0][0] == "100"
    assert {len(row) for row in table.later} == {len(table.columns)}
