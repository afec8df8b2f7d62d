"""KD-NAS from the command line to controls, competitors and a report; and its plan."""

import csv
import json
from dataclasses import replace

import pytest
from transformers import AutoModelForSequenceClassification

from stillhouse import api
from stillhouse.run.progress import LoggingNarrator
from stillhouse.run.settings import settings_from_dict
from stillhouse.search.record import read_trials
from stillhouse.search.trial import TrialState
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.published import kd_nas_for

CANDIDATES = 10


@pytest.fixture(scope="module")
def kd_table(tmp_path_factory):
    """A latency for every architecture of the space; depth decides most of it."""
    shape = BertArchitecture(layers=2, hidden_size=32, heads=2, ffn_size=128)

    def latency_ms(one):
        return one.layers * (0.2 + one.hidden_size / 64 + 0.3 * one.ffn_size / 128)

    path = tmp_path_factory.mktemp("kd") / "chip.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "latency_ms"))
        writer.writerow(("teacher", latency_ms(shape)))
        writer.writerows((one.key, latency_ms(one)) for one in kd_nas_for(shape).enumerate())
    return path


@pytest.fixture(scope="module")
def options(weather_teacher_folder, weather_csv, kd_table):
    return [
        "kd-nas", "--teacher", weather_teacher_folder, "--task", weather_csv,
        "--candidates", CANDIDATES,
        "--set", "device.kind=table", "--set", f"device.table={kd_table}",
        "--set", "distill.precision=float32", "--set", "final.epochs=2",
        "--set", "final.students=2", "--set", "final.controls=6",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def settings(weather_teacher_folder, weather_csv, kd_table):
    return settings_from_dict(
        {
            "recipe": "kd-nas",
            "teacher": {"model": str(weather_teacher_folder)},
            "task": {"name": str(weather_csv)},
            "device": {"kind": "table", "table": str(kd_table)},
            "search": {"candidates": CANDIDATES},
            "distill": {"precision": "float32"},
            "final": {"epochs": 2.0, "students": 2, "controls": 6},
            "compare": ["layers=1,hidden_size=32", str(weather_teacher_folder)],
        }
    )


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    """A finished run; the program is called in this process."""
    path = tmp_path_factory.mktemp("kd-run") / "kd"
    api.run_search_job(settings, path, LoggingNarrator())
    return path


class Stopper(LoggingNarrator):
    """Presses Ctrl-C when a training with a certain title begins for the n-th time."""

    def __init__(self, title, times):
        super().__init__()
        self.title = title
        self.left = times

    def begin(self, task, total):
        super().begin(task, total)
        self.left -= task.startswith(self.title)
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(("title", "times"), [("Final", 5), ("Again", 3)])
def test_stopped_while_the_proxy_is_checked_and_started_again(
    settings, run, tmp_path, title, times
):
    """Before the fifth final training, at most two were winners and two competitors."""
    path = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        api.run_search_job(settings, path, Stopper(title, times))
    assert not (path / "proxy_final.json").exists()
    before = {file: file.stat().st_mtime_ns for file in path.glob("students/*/model.safetensors")}
    result = api.run_search_job(settings, path, LoggingNarrator())
    assert len(result.controls) == 6
    assert len(result.competitors) == 2
    assert read(path, "proxy_final.json") == read(run, "proxy_final.json")
    assert read(path, "controller.json") == read(run, "controller.json")
    assert before
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())


def read(run, name):
    return json.loads((run / name).read_text())


def test_rewards_are_recorded_for_every_trained_candidate(run):
    trials = read_trials(f"sqlite:///{run}/study.db")
    trained = [t for t in trials if t.state is TrialState.COMPLETE and t.repeat_of is None]
    assert len(trained) == CANDIDATES
    teacher_ms = 2 * (0.2 + 0.5 + 0.3)
    for trial in trained:
        expected = max(trial.quality, 0.01) * (trial.latency_ms / (0.6 * teacher_ms)) ** -0.02
        assert trial.attributes["reward"] == pytest.approx(expected)
    with (run / "trials.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["state"] == "complete"]
    assert all(float(row["reward"]) > 0 for row in rows)


def test_what_the_controller_did_is_kept(run):
    content = read(run, "controller.json")
    assert content["settings"]["name"] == "default"
    assert content["settings"]["episodes"] == 2  # 10 candidates, 5 an episode
    assert content["reward"] == {"target_ms": 1.2, "alpha": -0.02, "quality": "task"}
    assert sum(len(episode["trials"]) for episode in content["episodes"]) >= CANDIDATES
    assert content["episodes"][0]["random"] == 5
    assert content["verdict"]


def test_winners_and_controls_check_the_proxy(run):
    content = read(run, "proxy_final.json")
    roles = [point["role"] for point in content["points"]]
    assert roles.count("winner") == len(list((run / "students").iterdir())) >= 1
    assert roles.count("control") == 6
    assert content["agreement"]["count"] == len(roles)
    assert len(content["noise"]["pairs"]) == 8
    first, second = content["noise"]["seeds"]
    assert second == first + 1
    assert len(list((run / "controls").glob("*/model.safetensors"))) == 6


def test_the_trial_of_highest_reward_is_a_winner(run):
    trials = read_trials(f"sqlite:///{run}/study.db")
    best = max(
        (t for t in trials if t.repeat_of is None and t.state is TrialState.COMPLETE),
        key=lambda trial: trial.attributes["reward"],
    )
    files = (run / "students").glob("*/metrics.json")
    assert best.number in {json.loads(file.read_text())["trial"] for file in files}


def test_competitors_are_distilled_like_the_winners(run, weather_teacher_folder):
    shape, checkpoint = read(run, "competitors.json")["points"]
    assert (shape["kind"], checkpoint["kind"]) == ("shape", "checkpoint")
    assert checkpoint["name"] == str(weather_teacher_folder)
    # The teacher itself as a competitor: it starts as good as a student can get.
    assert checkpoint["quality"] >= shape["quality"]
    assert checkpoint["speedup"] == pytest.approx(1.0)
    for point in (shape, checkpoint):
        model = AutoModelForSequenceClassification.from_pretrained(run / point["folder"])
        assert sum(p.numel() for p in model.parameters()) == point["parameters"]


def test_the_report_tells_all_of_it(run):
    page = (run / "report.html").read_text()
    for words in ("The controller", "Proxy against final", "layers=1,hidden_size=32"):
        assert words in page


def test_a_plan_trains_nothing_and_writes_nothing(options, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, _ = run_cli("plan", *options, "--compare", "layers=1")
    assert code == 0
    for words in (
        "10 candidates",
        "6 controls",
        "1 competitor ×",
        "8 second judgements",
        "total",
        "MB",
    ):
        assert words in " ".join(printed.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--compare", "layers=0"], "layers must be a whole number of at least 1"),
        (["--compare", "no/such-checkpoint"], "no/such-checkpoint"),
        (["--compare", "layers=9"], "has no row"),  # the latency table does not know it
        (["--set", "search.alpha=0.1"], "search.alpha must be 0 or below"),
        (["--set", "final.controls=-1"], "final.controls must not be negative"),
        (["--limit", "latency_ms=0.01"], "no student can meet the limit"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(
    options, run_cli, tmp_path, extra, words
):
    code, _, told = run_cli("search", *options, "--run", tmp_path / "run", *extra)
    assert code == (3 if "limit" in words else 1)
    assert words in " ".join(told.split())
    assert not (tmp_path / "run" / "teacher").exists()
    assert not (tmp_path / "run" / "study.db").exists()


@pytest.mark.parametrize(
    ("words", "naming"),
    [(["kd-nas"], "one recipe"), (["nas-kd"], "neither a recipe"), (["kd-nsa"], "'kd-nas'")],
)
def test_words_that_name_nothing(options, run_cli, tmp_path, words, naming):
    code, _, told = run_cli("search", *options, "--run", tmp_path / "run", *words)
    assert code == 2
    assert naming in " ".join(told.replace("│", " ").split())


def test_quality_as_the_loss_of_the_hidden_states(settings, tmp_path):
    """Version 2 of the paper: candidates learn hidden states alone, finals the task."""
    changed = replace(
        settings,
        search=replace(settings.search, quality="hidden", candidates=4),
        final=replace(settings.final, controls=0),
        compare=(),
    )
    result = api.run_search_job(changed, tmp_path / "hidden", LoggingNarrator())
    trained = [t for t in result.trials if t.state is TrialState.COMPLETE and t.repeat_of is None]
    assert len(trained) == 4
    for trial in trained:
        assert trial.quality == pytest.approx(1 - trial.attributes["scores"]["hidden_loss"])
        factor = (trial.latency_ms / 1.2) ** -0.02
        assert trial.attributes["reward"] == pytest.approx(max(trial.quality, 0.01) * factor)
    assert read(result.path, "controller.json")["reward"]["quality"] == "hidden"
    # The head of a candidate learnt nothing; that of a finished student did.
    assert result.students[0].metrics["quality"] > 0.6
