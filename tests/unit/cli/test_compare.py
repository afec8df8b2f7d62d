"""The command line of comparisons: what it asks the job for, and how it tells the answer."""

import json

import pytest
from typer.testing import CliRunner

from stillhouse import api
from stillhouse.cli.app import app
from stillhouse.evaluate.differences import Difference
from stillhouse.report.comparing import Method
from stillhouse.report.comparison import Comparison, Spent
from stillhouse.report.comparison_costs import CostScale
from stillhouse.report.comparison_table import Cell, Line


class Run:
    """A run of which only the metric is asked."""

    metric, seed, path = "accuracy", "0", "runs/a"


@pytest.fixture
def asked(monkeypatch):
    """What the job was asked for; it answers with a second method that is better by a point."""
    calls = []
    gain = Difference(value=0.01, low=0.002, high=0.018, p=0.01, is_paired=True, has_seeds=False)
    cells = (
        Cell(method="tpe", chosen=(None,)),
        Cell(
            method="[bold]gp",
            chosen=(None,),
            quality=0.84,
            low=0.82,
            high=0.86,
            cost=3.0,
            difference=gain,
            p_corrected=0.01,
            verdict="better",
        ),
    )
    names = ("tpe", "[bold]gp")
    comparison = Comparison(
        methods=tuple(Method(name=name, runs=(Run,)) for name in names),
        scale=CostScale(name="latency_ms", reference=8.0, teacher_ms=8.0, told=""),
        remarks=("The limits were: tpe none; gp latency ≤ 5 ms.",),
        lines=(Line(limit={"speedup": 2.0}, told="speed-up ≥ 2×", cells=cells),),
        volumes=None,
        spent=tuple(
            Spent(
                method=name,
                candidates=(5,),
                search_s=(60.0,),
                final_s=(None,),
                wall_s=(90.0,),
                tokens=(None,),
            )
            for name in names
        ),
        differing=(),
    )

    def job(runs, **how):
        calls.append((runs, how))
        return comparison

    monkeypatch.setattr(api, "compare_runs", job)
    return calls


def run(*words):
    return CliRunner().invoke(app, ["compare", *words])


def test_limits_are_read_and_passed_on(asked):
    result = run(
        "a", "gp=b", "--limit", "latency_ms=5", "--at", "speedup=4,size_mb=40", "--by", "size_mb"
    )

    assert result.exit_code == 0, result.output
    [(runs, how)] = asked
    assert runs == ["a", "gp=b"]
    assert how["limits"] == [{"latency_ms": 5.0}, {"speedup": 4.0, "size_mb": 40.0}]
    assert how["by"] == "size_mb"
    assert str(how["page"]) == "compare.html"


def test_the_answer_is_told_in_words(asked):
    told = run("a", "b").stdout

    assert "not equal: The limits were" in told
    assert "[bold]gp" in told  # a name is no markup
    assert "+1.0 (0.2 to 1.8)" in told
    assert "Resolved: [bold]gp is better than tpe" in told


def test_the_answer_is_one_json_document(asked):
    told = json.loads(run("a", "b", "--json").stdout)

    assert told["command"] == "compare"
    assert told["page"] == "compare.html"
    assert told["quality"][0]["methods"][1]["difference"]["value"] == 0.01
    assert told["hypervolume"] is None


def test_a_limit_without_a_value_is_refused_before_anything_is_read(asked):
    result = run("a", "b", "--limit", "latency_ms")

    assert result.exit_code == 1
    assert str(result.exception).startswith("--limit needs different limits such as latency_ms=5")
    assert asked == []
