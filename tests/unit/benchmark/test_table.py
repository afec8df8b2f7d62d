import re
import tomllib
from datetime import date
from fnmatch import fnmatch
from pathlib import Path

import pytest

import stillhouse
from stillhouse.benchmark import About, load, names
from stillhouse.benchmark.table import TABLES
from stillhouse.errors import DataError
from stillhouse.search.optuna_strategy import OptunaStrategy
from stillhouse.search.pareto import pareto_front
from stillhouse.search.samplers import make_sampler
from stillhouse.space.architecture import BertArchitecture

REPOSITORY = Path(__file__).resolve().parents[3]
SHIPPED = sorted({path.stem for path in TABLES.iterdir() if path.suffix in (".csv", ".yaml")})


def bert(hidden_size):
    return BertArchitecture(layers=1, hidden_size=hidden_size, heads=2, ffn_size=16)


def test_a_table_by_name(tables, recorded):
    assert names() == ["made-up", "sst2-minilm"]
    table = load("made-up")
    assert table.rows == recorded.rows
    assert (table.name, table.about.recorded) == ("made-up", date(2026, 1, 31))
    assert (table.quality(bert(24)), table.latency_ms(bert(24))) == (pytest.approx(0.6), 2.0)
    assert [trial.architecture.hidden_size for trial in pareto_front(table.trials())] == [8, 24, 32]
    assert "RecordedRow" not in repr(table)


def test_an_unknown_name_is_answered_with_the_nearest(tables):
    with pytest.raises(DataError, match="one of made-up, sst2-minilm, got 'sst-minilm': did you"):
        load("sst-minilm")
    with pytest.raises(DataError, match=r"made-up, sst2-minilm, got '/etc/passwd'$"):
        load("/etc/passwd")


def test_a_strategy_is_replayed_on_it(tables):
    table = load("made-up")
    strategy = OptunaStrategy(table.space(), make_sampler("random"), 0)
    trials = table.replay(strategy, candidates=4, seed=0)
    assert {trial.architecture for trial in trials} == set(table.rows)
    shares = table.front_shares(trials)
    assert len(shares) == 4
    assert shares[-1] == pytest.approx(1.0)


def test_the_room_is_public(tables):
    assert stillhouse.benchmark.load("made-up") == load("made-up")


def test_the_example_of_the_documents_runs(tables, capsys):
    page = (REPOSITORY / "docs" / "benchmark_tables.md").read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    scope = {}
    for example in examples:
        exec(example, scope)
    assert len(examples) == 2
    printed = capsys.readouterr().out
    assert "1 × 24, 2 heads" in printed
    assert printed.splitlines()[-2:] == ["1.000", "1.000"]


def test_shipped_tables_were_found():
    assert {"sst2-minilm", "flash-minilm"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_table_is_what_its_story_says(name):
    table = load(name)
    students = table.about.students
    twice = sum(len(rows) > 1 for rows in table.rows.values())
    assert int(re.match(r"\d+", students).group()) == len(table.rows)
    assert int(re.search(r"(\d+) of them", students).group(1)) == twice
    for dimension in table.space().dimensions:
        if len(dimension.values) > 1:
            assert f"{dimension.name} {', '.join(map(str, dimension.values))}" in students
    for text in (getattr(table.about, field) for field in About.__dataclass_fields__):
        assert str(text).strip()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_table_is_a_complete_grid_with_a_front(name):
    table = load(name)
    assert table.space().constraints == ()
    assert len(table.space()) == len(table.rows)
    assert 3 <= len(pareto_front(table.trials())) < len(table.rows)
    assert all(0 <= table.quality(architecture) <= 1 for architecture in table.rows)


def test_the_package_holds_every_file_of_the_tables():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["stillhouse"]
    for path in TABLES.iterdir():
        inside = path.relative_to(REPOSITORY / "stillhouse").as_posix()
        assert any(fnmatch(inside, pattern) for pattern in patterns), inside
