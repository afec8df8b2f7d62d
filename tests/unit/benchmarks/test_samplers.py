import math

import numpy as np
import pytest

from benchmarks import common, samplers
from benchmarks.strategies import Ground
from stillhouse.errors import DataError
from stillhouse.recipe.kd_nas import DEFAULT_ALPHA
from stillhouse.search.recorded import RecordedRow, RecordedTable, write_recorded
from stillhouse.search.replay import replay
from stillhouse.search.samplers import FIRST_TRIALS
from stillhouse.space.mobilebert import MobileBertArchitecture


@pytest.fixture
def rows():
    """48 MobileBERTs; wider is better and slower, more of the rest only slower."""
    return [
        RecordedRow(
            architecture=MobileBertArchitecture(
                layers=2,
                hidden_size=hidden_size,
                bottleneck_size=bottleneck_size,
                heads=heads,
                ffn_size=64,
                ffn_count=ffn_count,
                embedding_size=32,
            ),
            seed=seed,
            quality=0.1 + hidden_size / 1000 + seed / 100,
            latency_ms=hidden_size / 100 + bottleneck_size / 1000 + ffn_count / 10 + heads / 100,
        )
        for hidden_size in (32, 64, 96, 128)
        for bottleneck_size in (16, 32)
        for heads in (2, 4)
        for ffn_count in (1, 2, 3)
        for seed in (0, 1)
    ]


@pytest.fixture
def table(rows):
    return RecordedTable.of(rows)


@pytest.fixture
def short(monkeypatch):
    """12 trials in the place of 40."""
    monkeypatch.setattr(samplers, "TRIALS", 12)
    monkeypatch.setattr(samplers, "STAGES", (5, 12))
    monkeypatch.setattr(samplers, "COMPARED_AT", 10)


def test_trials_to_reach_a_value():
    curve = np.array([0.2, 0.4, 0.4, 0.8])
    assert samplers.trials_to_reach(curve, 0.1) == pytest.approx(0.5)
    assert samplers.trials_to_reach(curve, 0.4) == pytest.approx(2.0)
    assert samplers.trials_to_reach(curve, 0.5) == pytest.approx(3.25)
    assert samplers.trials_to_reach(curve, 0.9) == math.inf


def test_trials_needed_for_what_random_has():
    n = np.arange(1, 41)
    by_chance = np.array([n / 40 + shift for shift in (0.0, 0.1)])
    assert samplers.needed(by_chance, by_chance) == pytest.approx((20, 20, 20))
    twice = np.array([n / 20, n / 20])  # has 0.5 to 0.6 after 10 to 12
    assert samplers.needed(twice, by_chance) == pytest.approx((11, 10, 12))
    never = np.zeros((2, 40))
    assert samplers.needed(never, by_chance) == (math.inf, math.inf, math.inf)
    assert samplers.written(math.inf) == "over 40"


def test_the_fingerprint_is_of_what_the_table_says(rows, table, tmp_path):
    assert samplers.fingerprint(RecordedTable.of(rows[::-1])) == samplers.fingerprint(table)
    assert samplers.fingerprint(RecordedTable.of(rows[:-1])) != samplers.fingerprint(table)
    for row in rows:
        write_recorded(tmp_path / "table.csv", row)
    written = samplers.open_table(str(tmp_path / "table.csv"))
    assert samplers.fingerprint(written) == samplers.fingerprint(table)


def test_a_table_that_is_neither_a_name_nor_a_file():
    with pytest.raises(DataError, match="a benchmark table is one of"):
        samplers.open_table("no-such-table")


@pytest.mark.parametrize(
    "name",
    ["random", "NSGA-II, population 20", "TPE, 3 at random", "NSGA-II, population 3", "controller"],
)
def test_every_sampler_plays(table, short, name):
    ground = Ground.of(table, DEFAULT_ALPHA)
    listed = samplers.players(ground, startups=[3], with_botorch=False)
    (make,) = (make for full, make in listed.items() if full.startswith(name))
    found = samplers.play(table, make(0), 0)
    assert len(found["shares"]) == 12
    assert found["shares"] == sorted(found["shares"])
    assert 0.2 < found["shares"][-1] <= 1
    assert len(found["proposals_s"]) >= 12


def test_names_tell_their_constants(table):
    ground = Ground.of(table, DEFAULT_ALPHA)
    assert list(samplers.players(ground, startups=[10, 3], with_botorch=False)) == [
        "random",
        "TPE, 10 at random",
        "TPE, 3 at random",
        f"GP, {FIRST_TRIALS['gp']} at random",
        *(f"GP, {count} at random" for count in (10, 3) if count != FIRST_TRIALS["gp"]),
        "NSGA-II, population 20",
        "NSGA-II, population 10",
        "NSGA-II, population 3",
        "controller of 8 x 5",
    ]


def test_finished_replays_are_not_played_again(table, short, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(common, "WORK", tmp_path)
    monkeypatch.setattr(samplers, "SEEDS", range(2))
    ground = Ground.of(table, DEFAULT_ALPHA)
    random = samplers.players(ground, startups=[], with_botorch=False)["random"]
    first = samplers.play_all(table, {"random": random})
    asked = []
    again = samplers.play_all(table, {"random": asked.append})
    assert (again, asked) == (first, [])
    other = RecordedTable.of(row for rows in table.rows.values() for row in rows[:1])
    assert samplers.play_all(other, {"random": random}) != first
    capsys.readouterr()


def test_random_is_what_the_others_are_measured_by(table, short, capsys):
    ground = Ground.of(table, DEFAULT_ALPHA)
    listed = samplers.players(ground, startups=[], with_botorch=False)
    found = {
        name: [samplers.play(table, listed[name](seed), seed) for seed in range(2)]
        for name in ("random", "NSGA-II, population 20")
    }
    samplers.report(found)
    shares, less, needed, times = (
        part.splitlines() for part in capsys.readouterr().out.split("\n\n")
    )
    assert [line.split()[0] for line in shares[2:]] == ["random", "NSGA-II,"]
    mean = np.mean([one["shares"][11] for one in found["random"]])
    assert shares[2].split("(")[-2].split()[-1] == f"{mean:.4f}"
    assert [line.split()[0] for line in less[2:]] == ["NSGA-II,"]
    assert [line.split()[0] for line in needed[1:]] == ["random", "NSGA-II,"]
    assert [line.split()[0] for line in times[1:]] == ["random", "NSGA-II,"]


def test_botorch_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install optuna-integration botorch"):
        samplers.require_botorch()
    monkeypatch.setattr(samplers, "find_spec", lambda name: object())
    samplers.require_botorch()


def test_timing_changes_nothing(table):
    ground = Ground.of(table, DEFAULT_ALPHA)
    tpe = samplers.players(ground, startups=[], with_botorch=False)["TPE, 10 at random"]
    timed = samplers.Timed(tpe(1))
    plain = replay(tpe(1), table, candidates=12, seed=1)
    assert replay(timed, table, candidates=12, seed=1) == plain
    assert len(timed.proposals_s) == len(plain)
