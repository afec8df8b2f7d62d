"""Two searches of different strategies, and their comparison."""

import json

import pytest

import stillhouse
from stillhouse import api
from stillhouse.evaluate.kept_answers import read_answers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(weather_teacher_folder, weather_csv, table_settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("tpe", "random"):
        settings = {**table_settings, "final": {"students": 1, "epochs": 1.0}}
        settings["search"] = {"strategy": strategy, "epochs": 0.5}
        stillhouse.search(
            teacher=str(weather_teacher_folder),
            task=str(weather_csv),
            limit={"latency_ms": 1.0},
            candidates=2,
            settings=settings,
            run=folder / strategy,
        )
    return [folder / strategy for strategy in ("tpe", "random")]


def test_answers_are_kept_beside_the_measures_that_follow_from_them(runs):
    for run in runs:
        prints = set()
        for folder in (run / "teacher", run / "students" / "1"):
            kept = read_answers(folder / "dev_answers.npz")
            metrics = json.loads((folder / "metrics.json").read_text())
            assert kept.metric == metrics["metric"]
            assert kept.primary.score() == metrics["quality"]
            assert len(kept) == metrics["quality_count"]
            prints.add(kept.dev_sha256)
        assert len(prints) == 1


def test_the_runs_are_compared_by_pairs_at_their_own_limit(runs, tmp_path):
    comparison = api.compare_runs(runs, page=tmp_path / "page.html")

    [line] = comparison.lines
    assert dict(line.limit) == {"latency_ms": 1.0}
    qualities = [
        json.loads((run / "students/1/metrics.json").read_text())["quality"] for run in runs
    ]
    assert [cell.quality for cell in line.cells] == qualities
    assert line.cells[1].difference.is_paired
    assert line.cells[1].difference.value == pytest.approx(qualities[1] - qualities[0])
    assert comparison.volumes.candidates == 2
    written = [json.loads((run / "run.json").read_text())["hypervolume"] for run in runs]
    for told, one in zip(written, comparison.volumes.each, strict=True):
        assert one.at_end[0] == pytest.approx(told["by_trial"][-1], abs=1e-4)
    assert "tpe" in (tmp_path / "page.html").read_text(encoding="utf-8")
