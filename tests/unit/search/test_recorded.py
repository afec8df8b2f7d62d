import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stillhouse.errors import DataError, SpaceError
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.recorded import (
    AmongRecorded,
    RecordedRow,
    RecordedTable,
    read_recorded,
    write_recorded,
)
from stillhouse.search.replay import replay
from stillhouse.search.samplers import make_sampler
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.mobilebert import MobileBertArchitecture

TABLES = Path(__file__).parents[3] / "benchmarks" / "tables"
HEADER = "family,layers,hidden_size,heads,ffn_size,activation,seed,quality,latency_ms"
LINE = "bert,2,32,2,64,gelu,0,0.75,1.5"
MOBILE_HEADER = (
    "family,layers,hidden_size,bottleneck_size,heads,ffn_size,ffn_count,embedding_size,attention,"
    "seed,quality,latency_ms"
)
MOBILE_LINE = "mobilebert,2,64,24,4,48,2,32,shared,0,0.25,3.5"


@pytest.fixture
def rows(space):
    """Five architectures with three seeds each; the quality tells both apart."""
    return [
        RecordedRow(
            architecture=architecture,
            seed=seed,
            quality=place + seed / 10,
            latency_ms=1.0 + place,
            hidden_quality=0.5,
        )
        for place, architecture in enumerate(list(space.enumerate())[::8])
        for seed in range(3)
    ]


@pytest.fixture
def table(rows):
    return RecordedTable.of(rows)


def read_text(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return read_recorded(path)


def test_what_is_written_is_read(tmp_path, rows, table):
    path = tmp_path / "table.csv"
    for row in rows:
        write_recorded(path, row)
    assert read_recorded(path) == table
    with path.open() as file:
        assert next(csv.reader(file)) == [*HEADER.split(","), "hidden_quality"]


def test_recording_goes_on_after_an_interruption(tmp_path, rows, table):
    path = tmp_path / "table.csv"
    for row in rows[:4]:
        write_recorded(path, row)
    with path.open("a") as file:
        file.write("bert,2,32")
    for row in rows[4:]:
        write_recorded(path, row)
    assert read_recorded(path) == table


def test_an_interrupted_header_is_written_again(tmp_path, rows):
    path = tmp_path / "table.csv"
    path.write_text("family,lay")
    write_recorded(path, rows[0])
    assert list(read_recorded(path).rows) == [rows[0].architecture]


def test_rows_are_appended_in_the_columns_that_are_there(tmp_path, rows):
    path = tmp_path / "table.csv"
    path.write_text(f"{HEADER},note\n")
    write_recorded(path, rows[0])
    [[row]] = read_recorded(path).rows.values()
    assert (row.quality, row.hidden_quality) == (rows[0].quality, None)


def test_nothing_is_appended_to_another_kind_of_table(tmp_path, rows):
    path = tmp_path / "table.csv"
    path.write_text("number,state\n")
    with pytest.raises(DataError, match="lacks the columns family"):
        write_recorded(path, rows[0])


def test_a_line_without_the_optional_column(tmp_path):
    table = read_text(tmp_path, f"{HEADER}\n{LINE}\n")
    architecture = BertArchitecture(layers=2, hidden_size=32, heads=2, ffn_size=64)
    assert table.rows == {
        architecture: (
            RecordedRow(architecture=architecture, seed=0, quality=0.75, latency_ms=1.5),
        )
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("seed,", ""), "lacks the columns seed"),
        (HEADER, "at least one row"),
        (f"{HEADER}\n{LINE}\n{LINE}", "recorded twice with the same seed"),
        (f"{HEADER}\n{LINE.replace('0.75', 'nan')}", "line 2: quality must be a finite number"),
        (f"{HEADER}\n{LINE.replace('1.5', '0')}", "line 2: latency_ms must be above 0"),
        (f"{HEADER}\n{LINE.replace('0.75', '')}", "line 2: nothing is given for quality"),
        (f"{HEADER}\n{LINE.replace('0.75', 'good')}", "line 2: could not convert"),
        (f"{HEADER}\n{LINE}\n{LINE.replace('32,2', '32,5')}", "line 3: hidden_size must be a mul"),
        (f"{HEADER}\nbert,2,32", "line 2: nothing is given for heads"),
        (f"{HEADER},head_size\n{LINE},0", "line 2: head_size must be a whole number of at least"),
        (f"{HEADER},head_size\n{LINE},wide", "line 2: invalid literal"),
        (
            f"{HEADER}\n{LINE.replace('bert', 'chain')}",
            "line 2: family must be one of bert, mobilebert",
        ),
        (f"{HEADER}\n{LINE.replace('bert', '')}", "line 2: nothing is given for family"),
        (f"{HEADER}\n{LINE.replace('bert', 'mobilebert')}", "line 2: the columns bottleneck_size"),
        (
            f"{MOBILE_HEADER}\n{MOBILE_LINE.replace('shared', 'shred')}",
            "line 2: attention must be one of shared, bottleneck, got 'shred'",
        ),
        (
            f"{MOBILE_HEADER},activation\n{MOBILE_LINE},\nbert,2,64,,4,48,,,,0,0.5,1,gelu",
            "one family of architectures, got bert and mobilebert",
        ),
    ],
)
def test_unusable_tables(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_text(tmp_path, text)


def test_no_table(tmp_path):
    with pytest.raises(DataError, match="there is no recorded table"):
        read_recorded(tmp_path / "none.csv")


FREE = BertArchitecture(layers=2, hidden_size=16, heads=3, head_size=8, ffn_size=24)
FREE_LINE = "bert,2,16,3,24,gelu,0,0.5,1.0,,8"


def free_row(seed=0):
    return RecordedRow(architecture=FREE, seed=seed, quality=0.5, latency_ms=1.0)


def test_tables_without_free_heads_are_written_as_ever(tmp_path, rows):
    path = tmp_path / "table.csv"
    write_recorded(path, rows[0])
    assert path.read_text() == f"{HEADER},hidden_quality\nbert,1,16,2,32,gelu,0,0.0,1.0,0.5\n"


@pytest.mark.parametrize("path", sorted(TABLES.glob("*.csv")), ids=lambda path: path.stem)
def test_the_tables_of_the_repository_are_written_again_as_they_are(path, tmp_path):
    table = read_recorded(path)
    recorded = [row for rows in table.rows.values() for row in rows]
    again = tmp_path / path.name
    for row in recorded[::7]:
        write_recorded(again, row)
    header, *lines = path.read_text().splitlines()
    written_header, *written = again.read_text().splitlines()
    assert written_header == header
    assert set(written) <= set(lines)
    assert len(written) == len(recorded[::7]) > 1
    assert not any(dimension.name == "head_size" for dimension in table.space().dimensions)


@pytest.mark.parametrize("place", [0, 1, 15])
def test_free_heads_are_written_and_read_wherever_they_come(tmp_path, rows, place):
    path = tmp_path / "table.csv"
    mixed = [*rows[:place], free_row(0), *rows[place:], free_row(1)]
    for row in mixed:
        write_recorded(path, row)
    assert read_recorded(path) == RecordedTable.of(mixed)
    header, *lines = path.read_text().splitlines()
    assert header == f"{HEADER},hidden_quality,head_size"
    assert lines[place] == FREE_LINE
    assert {len(line.split(",")) for line in lines} == {11}


def test_free_heads_after_an_interruption(tmp_path, rows):
    path = tmp_path / "table.csv"
    write_recorded(path, rows[0])
    with path.open("a") as file:
        file.write("bert,2,32")
    write_recorded(path, free_row())
    assert read_recorded(path) == RecordedTable.of([rows[0], free_row()])


def test_columns_that_are_passed_over_stay_when_free_heads_come(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(f'{HEADER},note\n{LINE},"one, two"\n')
    write_recorded(path, free_row())
    assert path.read_text().splitlines() == [
        f"{HEADER},note,head_size",
        f'{LINE},"one, two",',
        "bert,2,16,3,24,gelu,0,0.5,1.0,,8",
    ]
    assert [row.seed for rows in read_recorded(path).rows.values() for row in rows] == [0, 0]


def test_a_head_size_that_shares_the_width_out_may_be_given(tmp_path):
    with_size = read_text(tmp_path, f"{HEADER},head_size\n{LINE},16\n")
    assert with_size == read_text(tmp_path, f"{HEADER}\n{LINE}\n")


def test_the_space_of_free_heads_holds_what_is_recorded(rows):
    table = RecordedTable.of([*rows, free_row()])
    space = table.space()
    names = ["layers", "hidden_size", "heads", "ffn_size", "head_size", "activation"]
    assert [dimension.name for dimension in space.dimensions] == names
    assert set(space) == set(table.rows)
    assert space.decode(space.encode(FREE)) == FREE


def test_the_space_holds_what_is_recorded(table):
    assert set(table.space().enumerate()) == set(table.rows)
    assert table.space().constraints[0].description == "one of 5 recorded architectures"


def test_the_constraint_narrows_any_space(space, table):
    narrowed = space.with_constraint(AmongRecorded(frozenset(table.rows)))
    assert set(narrowed.enumerate()) == set(table.rows)


def test_replay_tries_everything_once(table):
    strategy = OptunaStrategy(table.space(), make_sampler("random"), 0)
    trials = replay(strategy, table, candidates=99, seed=0)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    first = [trial for trial in trials if trial.repeat_of is None]
    assert {trial.architecture for trial in first} == set(table.rows)
    assert len(first) == 5
    for trial in trials:
        if trial.repeat_of is not None:
            assert trial.quality == trials[trial.repeat_of].quality


def test_replay_stops_at_the_candidates(table):
    strategy = OptunaStrategy(table.space(), make_sampler("random"), 0)
    trials = replay(strategy, table, candidates=2, seed=0)
    assert sum(trial.repeat_of is None for trial in trials) == 2


class Stubborn:
    """Proposes the same for ever."""

    def __init__(self, architecture):
        self.architecture = architecture

    def ask(self, count):
        return [self.architecture] * count

    def tell(self, trials):
        pass


def test_replay_gets_past_a_strategy_that_repeats_itself(rows, table):
    trials = replay(Stubborn(rows[0].architecture), table, candidates=5, seed=0)
    assert {trial.architecture for trial in trials} == set(table.rows)


def test_replay_refuses_what_is_not_recorded(table):
    other = BertArchitecture(layers=9, hidden_size=32, heads=2, ffn_size=64)
    with pytest.raises(ValueError, match="is not recorded"):
        replay(Stubborn(other), table, candidates=1, seed=0)


def test_noise_is_of_the_seed_and_the_architecture_alone(rows, table):
    def qualities(sampler, table, seed):
        strategy = OptunaStrategy(table.space(), make_sampler(sampler), 1)
        trials = replay(strategy, table, candidates=5, seed=seed)
        return {trial.architecture: trial.quality for trial in trials}

    reordered = RecordedTable.of(rows[::-1])
    assert qualities("random", table, 0) == qualities("tpe", table, 0)
    assert qualities("random", table, 0) == qualities("random", reordered, 0)
    assert qualities("random", table, 0) != qualities("random", table, 1)


def test_every_recorded_seed_is_drawn(rows, table):
    drawn = Counter()
    for seed in range(60):
        [trial] = replay(Stubborn(rows[3].architecture), table, candidates=1, seed=seed)
        drawn[round(trial.quality - 1, 1)] += 1
    assert set(drawn) == {0.0, 0.1, 0.2}
    assert min(drawn.values()) > 8
    assert np.sum(list(drawn.values())) == 60


def mobile(**sizes):
    usual = {"layers": 2, "hidden_size": 64, "bottleneck_size": 24, "heads": 4}
    rest = {"ffn_size": 48, "ffn_count": 2, "embedding_size": 32}
    return MobileBertArchitecture(**{**usual, **rest, **sizes})


def row_of(architecture, quality=0.25, seed=0, latency_ms=3.5):
    return RecordedRow(architecture=architecture, seed=seed, quality=quality, latency_ms=latency_ms)


@pytest.fixture
def mobile_rows():
    """Every buildable point of a grid: 5 heads divide one of the two bottlenecks."""
    return [
        row_of(mobile(bottleneck_size=bottleneck, heads=heads, ffn_count=ffns))
        for bottleneck, heads in ((24, 4), (40, 4), (40, 5))
        for ffns in (1, 2)
    ]


def test_mobileberts_are_written_and_read(tmp_path, mobile_rows):
    path = tmp_path / "table.csv"
    rows = [*mobile_rows, row_of(mobile(bottleneck_attention=True), seed=3)]
    for row in rows:
        write_recorded(path, row)
    assert read_recorded(path) == RecordedTable.of(rows)
    header, *lines = path.read_text().splitlines()
    assert header == f"{MOBILE_HEADER},hidden_quality"
    assert lines[1] == f"{MOBILE_LINE},"
    assert lines[-1] == "mobilebert,2,64,24,4,48,2,32,bottleneck,3,0.25,3.5,"


def test_a_family_is_not_appended_to_a_table_of_the_other(tmp_path, rows, mobile_rows):
    for name, first, second in (
        ("bert", rows[0], mobile_rows[0]),
        ("mobilebert", mobile_rows[0], rows[0]),
    ):
        path = tmp_path / f"{name}.csv"
        write_recorded(path, first)
        before = path.read_text()
        with pytest.raises(DataError, match=r"lacks the columns .*; write to another file"):
            write_recorded(path, second)
        assert path.read_text() == before


def test_a_table_of_both_families_is_refused(rows, mobile_rows):
    with pytest.raises(DataError, match="one family of architectures, got bert and mobilebert"):
        RecordedTable.of([rows[0], mobile_rows[0]])


def test_a_complete_grid_needs_no_rule(mobile_rows):
    table = RecordedTable.of(mobile_rows)
    space = table.space()
    assert space.constraints == ()
    assert space.grid_size == 8  # of which two cannot be built
    assert set(space) == set(table.rows)
    assert len(space) == 6
    assert {dimension.name: dimension.values for dimension in space.dimensions} == {
        "layers": (2,),
        "hidden_size": (64,),
        "bottleneck_size": (24, 40),
        "heads": (4, 5),
        "ffn_size": (48,),
        "ffn_count": (1, 2),
        "embedding_size": (32,),
    }
    for architecture in table.rows:
        assert space.decode(space.encode(architecture)) == architecture


def test_a_complete_grid_of_berts_needs_no_rule(space):
    chosen = [one for one in space if (one.hidden_size, one.ffn_size) == (32, 64)]
    table = RecordedTable.of(row_of(one) for one in chosen)
    assert table.space().constraints == ()
    assert set(table.space()) == set(chosen)
    assert len(chosen) == 6


def test_a_grid_with_a_gap_keeps_to_what_is_recorded(mobile_rows):
    table = RecordedTable.of(mobile_rows[1:])
    space = table.space()
    assert [rule.name for rule in space.constraints] == ["recorded"]
    assert set(space) == set(table.rows)


def test_no_space_has_attention_in_the_bottleneck(mobile_rows):
    table = RecordedTable.of([*mobile_rows, row_of(mobile(bottleneck_attention=True))])
    with pytest.raises(SpaceError, match=r"shared attention only, but .*; leave such rows out"):
        table.space()


def test_mobileberts_are_replayed(mobile_rows):
    table = RecordedTable.of(mobile_rows)
    strategy = OptunaStrategy(table.space(), make_sampler("nsga2"), 0)
    trials = replay(strategy, table, candidates=6, seed=0)
    assert {trial.architecture for trial in trials} == set(table.rows)


def test_figures_are_means_over_the_seeds():
    one, other = mobile(), mobile(ffn_count=3)
    table = RecordedTable.of(
        [row_of(one, 0.25, 0, 3.0), row_of(other, 0.9), row_of(one, 0.75, 1, 4.0)]
    )
    assert (table.quality(one), table.latency_ms(one)) == (0.5, 3.5)
    told = [(trial.number, trial.architecture, trial.quality) for trial in table.trials()]
    assert told == [(0, one, 0.5), (1, other, 0.9)]
    with pytest.raises(DataError, match=r"4 FFN .* is not recorded"):
        table.quality(mobile(ffn_count=4))
