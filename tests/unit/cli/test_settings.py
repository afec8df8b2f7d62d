import pytest

from stillhouse.cli.demo import DEMO
from stillhouse.cli.settings import gather_settings, read_budget
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


def test_a_section_that_is_set_whole_keeps_what_it_does_not_name(tmp_path):
    file = tmp_path / "given.yaml"
    file.write_text("search: {strategy: random}")
    settings = gather_settings(
        file, {"search.candidates": 2}, overrides=["search={epochs: 0.5}", "search.ask=3"]
    )
    search = settings.search
    assert (search.strategy, search.candidates, search.epochs, search.ask) == ("random", 2, 0.5, 3)


def test_limits_are_numbers_by_name():
    settings = gather_settings(None, {}, limits=["latency_ms=5", "parameters=1e7", "size_mb=2.5"])
    assert settings.limit.given() == {"latency_ms": 5.0, "size_mb": 2.5, "parameters": 1e7}
    together = gather_settings(None, {}, limits=["latency_ms=5,parameters=1e7", "size_mb=2.5"])
    assert together == settings
    assert settings.limits == ()


def test_each_limit_of_nas_bert_is_a_budget(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: nas-bert\nlimits: [{speedup: 9}]\n")
    limits = ["params_m=10, latency_ms=4", "params_m=5"]
    budgets = [{"latency_ms": 4.0, "params_m": 10.0}, {"params_m": 5.0}]
    for given in (
        {"file": file, "options": {}},
        {"file": None, "options": {"recipe": "nas-bert"}},
        {"file": None, "options": {"recipe": None}, "overrides": ["recipe=nas-bert"]},
    ):
        settings = gather_settings(given.pop("file"), given.pop("options"), limits=limits, **given)
        assert [one.given() for one in settings.limits] == budgets
        assert settings.limit.given() == {}
    kept = gather_settings(file, {})
    assert [one.given() for one in kept.limits] == [{"speedup": 9.0}]


def test_the_recipe_that_is_given_last_says_what_limits_are(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("recipe: nas-bert\n")
    option = gather_settings(file, {"recipe": "plain"}, limits=["speedup=2"])
    assert (option.limit.given(), option.limits) == ({"speedup": 2.0}, ())
    override = gather_settings(
        None, {"recipe": "nas-bert"}, limits=["speedup=2"], overrides=["recipe=plain"]
    )
    assert (override.limit.given(), override.limits) == ({"speedup": 2.0}, ())


def test_a_budget_is_limits_with_commas_between():
    assert read_budget("latency_ms=5") == {"latency_ms": 5.0}
    assert read_budget(" params_m = 1e1 ,speedup=2.5") == {"params_m": 10.0, "speedup": 2.5}


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("latency_ms=fast", "limit latency_ms must be a number, got 'fast'"),
        ("latency_ms=", "limit latency_ms must be a number, got ''"),
        ("speedup=2,latency_ms=a", "limit latency_ms must be a number, got 'a'"),
        ("latency=5", r"limit\.latency: unknown key"),
        ("latency_ms=0", "limit.latency_ms must be above 0"),
        ("5", "--limit needs different limits such as latency_ms=5.*got '5'"),
        ("", "--limit needs .*got ''"),
        ("=5", "--limit needs .*got '=5'"),
        ("speedup=2,", "--limit needs .*got 'speedup=2,'"),
        ("speedup=2,speedup=3", "--limit needs different limits .*got 'speedup=2,speedup=3'"),
    ],
)
@pytest.mark.parametrize("recipe", ["plain", "nas-bert"])
def test_limits_that_are_none(limit, message, recipe):
    with pytest.raises(SettingsError, match=message.replace(r"limit\.lat", r"limits?\.(0\.)?lat")):
        gather_settings(None, {"recipe": recipe}, limits=[limit])


def test_the_demonstration_is_valid():
    settings = gather_settings(None, DEMO)
    assert (settings.task.name, settings.teacher.model) == ("embedded", "scratch")
    assert settings.limit.given() == {"speedup": 2.0}


@pytest.mark.parametrize(
    ("text", "kind", "given"),
    [
        ("cpu", "cpu", {}),
        ("onnxruntime-cpu", "onnxruntime-cpu", {}),
        ("auto", "auto", {}),
        ("board.csv", "table", {"table": "board.csv"}),
        ("tpu-v4i", "analytic", {"chip": "tpu-v4i"}),
        ("kd/nas.json", "predicted", {"profile": "kd/nas.json"}),
    ],
)
def test_a_device_is_a_word(tmp_path, text, kind, given):
    earlier = (
        "kind: table, table: a.csv",
        "kind: analytic, chip: h100",
        "kind: predicted, profile: a.json",
    )
    for number, before in enumerate(earlier):
        file = tmp_path / f"{number}.yaml"
        file.write_text(f"device: {{{before}, length: 40}}\n")
        device = gather_settings(file, {}, device=text).device
        assert (device.kind, device.length) == (kind, 40)
        named = {name: getattr(device, name) for name in ("table", "chip", "profile")}
        assert named == {"table": None, "chip": None, "profile": None, **given}


def test_another_device_brings_its_own_precision(tmp_path):
    """A run's own settings.yaml has that of its device written out."""
    file = tmp_path / "settings.yaml"
    file.write_text("device: {kind: cpu, precision: float32}\n")
    assert gather_settings(file, {}, device="tpu-v4i").device.precision == "bfloat16"
    given = gather_settings(file, {}, device="tpu-v4i", overrides=["device.precision=int8"])
    assert given.device.precision == "int8"


def test_threads_of_another_device_are_no_chips(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("device: {kind: cpu, threads: 2}\n")
    assert gather_settings(file, {}, device="h100").device.threads is None
    assert gather_settings(file, {}, device="server-cpu").device.threads == 2
    with pytest.raises(SettingsError, match="threads must be left out for H100"):
        gather_settings(file, {}, device="h100", overrides=["device.threads=2"])


def test_set_wins_over_the_device_of_an_option():
    settings = gather_settings(None, {}, device="tpu-v4i", overrides=["device.chip=h100"])
    assert settings.device.chip == "h100"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tpuv4i", r"one of auto, cpu, .*, tpu-v4i, .*got 'tpuv4i': did you mean 'tpu-v4i'\?"),
        ("cdua", r"did you mean 'cuda'\?"),
        ("board.txt", "a .csv file of latencies, a .json file .* got 'board.txt'$"),
    ],
)
def test_an_unknown_device_is_refused_with_the_known_ones(text, message):
    with pytest.raises(SettingsError, match=message):
        gather_settings(None, {}, device=text)
