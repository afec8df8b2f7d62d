import pytest

from stillhouse.cli.demo import DEMO
from stillhouse.cli.settings import gather_settings
from stillhouse.errors import SettingsError


def test_set_wins_over_options_and_options_over_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("search: {candidates: 1, epochs: 1.5, strategy: gp}\nseed: 1\n")
    settings = gather_settings(
        file,
        {"search.candidates": 2, "seed": 2, "task.metric": None},
        time="1m",
        overrides=["search.candidates=3"],
    )
    assert (settings.search.candidates, settings.search.epochs) == (3, 1.5)
    assert (settings.search.strategy, settings.search.seconds) == ("gp", 60)
    assert settings.seed == 2
    assert settings.task.metric is None


def test_limits_are_numbers_by_name():
    settings = gather_settings(None, {}, limits=["latency_ms=5", "parameters=1e7", "size_mb=2.5"])
    assert settings.limit.given() == {"latency_ms": 5.0, "size_mb": 2.5, "parameters": 1e7}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("latency_ms=fast", "limit latency_ms must be a number, got 'fast'"),
        ("latency_ms=", "limit latency_ms must be a number, got None"),
        ("latency=5", r"limit\.latency: unknown key"),
        ("latency_ms=0", "limit.latency_ms must be above 0"),
        ("5", "path=value"),
    ],
)
def test_limits_that_are_none(limit, message):
    with pytest.raises(SettingsError, match=message):
        gather_settings(None, {}, limits=[limit])


def test_the_demonstration_is_valid():
    settings = gather_settings(None, DEMO)
    assert (settings.task.name, settings.teacher.model) == ("embedded", "scratch")
    assert settings.limit.given() == {"speedup": 2.0}
