"""The search for a layer map: on text with proxy tasks, on a task, and inside other searches."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from safetensors.numpy import load_file
from transformers import AutoModel

from stillhouse.run.directory import RunDirectory

DRIVER = Path(__file__).with_name("layer_map_driver.py")
PATIENCE_S = 140


@pytest.fixture
def text_options(weather_encoder_folder, weather_text, weather_csv):
    """A teacher of 4 layers, a corpus of 120 texts and a proxy task of 120 examples."""
    return [
        "--teacher", weather_encoder_folder, "--student", "layers=2", "--corpus", weather_text,
        "--set", "corpus.length=16", "--set", "corpus.held_out=4",
        "--set", f"layer_map.tasks=['{weather_csv}']", "--set", "layer_map.sequences=12",
        "--set", "layer_map.task_epochs=1", "--set", "layer_map.task_max_length=16",
        "--set", "distill.precision=float32", "--set", "distill.batch_size=4",
        "--set", "final.epochs=1", "--set", "device.threads=1",
        "--set", "layer_map.population=4",
    ]  # fmt: skip


@pytest.fixture
def search(run_cli, text_options, tmp_path):
    def run(*options, run="run"):
        return run_cli("search", "layer-map", *text_options, *options, "--run", tmp_path / run)

    return run


def maps_of(run):
    return json.loads((run / "layer_maps.json").read_text())["depths"]


def test_a_map_is_searched_on_text_and_the_student_is_distilled_by_the_best(
    search, weather_csv, tmp_path
):
    code, out, err = search("--set", "layer_map.evaluations=6")
    assert code == 0, err
    run = tmp_path / "run"
    found = maps_of(run)["2"]
    assert found["size"] == 1 + 2 * 4 + 10  # none, one, or two of the teacher's layers in order
    assert len(found["maps"]) == len({tuple(one["genes"]) for one in found["maps"]}) == 6
    assert [one["genes"] for one in found["maps"][:2]] == [[2, 4], [0, 4]]  # uniform, last
    best = max(found["maps"], key=lambda one: one["fitness"])
    assert found["best"] == best["genes"]

    metrics = json.loads((run / "students" / "1" / "metrics.json").read_text())
    assert metrics["layer_map"] == best["genes"]
    AutoModel.from_pretrained(run / "students" / "1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optuna.logging, "_default_handler", None)
        study = optuna.load_study(
            study_name="layer-map-2", storage=RunDirectory(path=run).storage_url
        )
    assert [trial.params["g2"] for trial in study.trials][:2] == [4, 4]
    assert study.best_value == best["fitness"]
    assert study.trials[0].user_attrs["scores"].keys() == {str(weather_csv)}

    assert "6 maps were judged; there are 19." in out
    genes = ",".join(map(str, best["genes"]))
    assert f"Use the best again with: --set distill.layer_map=[{genes}]" in out
    page = (run / "report.html").read_text()
    assert "<h2>Layer map</h2>" in page
    assert f"<b>{', '.join(map(str, best['genes']))}</b> is the best layer map" in page
    assert '"layer-map-2"' in page
    assert "Quality and latency" not in page  # there is no task


@pytest.mark.slow
def test_an_interrupted_search_ends_as_an_unbroken_one(search, text_options, tmp_path):
    options = ["--set", "layer_map.evaluations=7"]
    assert search(*options, run="whole")[0] == 0
    driver = """
import sys
from stillhouse.cli import main
from stillhouse.recipe import map_judges
judged, judge = [], map_judges.TextJudge._score

def stop(*given):
    judged.append(1)
    if len(judged) == 6:
        raise KeyboardInterrupt
    return judge(*given)

map_judges.TextJudge._score = stop
main()
"""
    command = ["search", "layer-map", *text_options, *options, "--run", tmp_path / "broken"]
    killed = subprocess.run(
        [sys.executable, "-c", driver, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert killed.returncode == 130, killed.stderr
    assert "the same command again goes on there" in killed.stderr
    assert len(maps_of(tmp_path / "broken")["2"]["maps"]) == 5
    code, _, err = search(*options, run="broken")
    assert code == 0, err

    def told(run):
        return [
            {key: value for key, value in one.items() if key != "cost_s"}
            for one in maps_of(tmp_path / run)["2"]["maps"]
        ]

    assert told("broken") == told("whole")


@pytest.mark.slow
def test_a_search_that_is_killed_within_a_judgement_equals_an_undisturbed_one(
    weather_encoder_folder, weather_text, weather_csv, tmp_path
):
    """Killed when the second map has one of two scores: that one is not found again."""
    other = tmp_path / "again.csv"
    shutil.copy(weather_csv, other)

    def begin(run):
        given = (run, weather_encoder_folder, weather_text, weather_csv, other)
        return subprocess.Popen(
            [sys.executable, str(DRIVER), *map(str, given)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process, deadline = begin(killed), time.monotonic() + PATIENCE_S
    while not (kept := scored_of_second(killed)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it never came to the second map"
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "students").exists()
    logs = killed / "tensorboard" / "layer-map" / "2" / kept.stem
    first, before = logs / "0-3", json.loads((killed / "run.json").read_text())["cost"]
    written = sorted(first.iterdir())
    for run in (killed, whole):
        out, _ = (process := begin(run)).communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, out
    assert sorted(first.iterdir()) == written  # nobody trained there again
    assert not kept.exists()
    one, again = (
        [{**judged, "cost_s": 0} for judged in maps_of(run)["2"]["maps"]] for run in (whole, killed)
    )
    assert one == again
    mine, theirs = (load_file(run / "students/1/model.safetensors") for run in (whole, killed))
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    after = json.loads((killed / "run.json").read_text())["cost"]
    assert after["seconds"] > before["seconds"]
    assert after["tokens"] > before["tokens"]


def scored_of_second(run):
    """The kept scores of the map that is being judged, once another one is recorded."""
    if not (run / "layer_maps.json").exists():
        return None
    return next((run / "work" / "layer-map" / "2").glob("*.json"), None)


def test_a_task_judges_maps_of_its_own_student(run_cli, teacher_options, tmp_path):
    code, out, err = run_cli(
        "search", "layer-map", *teacher_options, "--student", "layers=1,hidden_size=16",
        "--set", "search.epochs=1", "--set", "final.epochs=1", "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    found = maps_of(tmp_path / "run")["1"]
    assert [one["genes"] for one in found["maps"]] == [[2], *([gene] for gene in order(found))]
    assert "3 maps were judged; there are 3." in out
    metrics = json.loads((tmp_path / "run" / "students" / "1" / "metrics.json").read_text())
    assert metrics["layer_map"] == found["best"]
    assert "layer map" in json.loads((tmp_path / "run" / "run.json").read_text())["phases_s"]
    assert "Layer map" in (tmp_path / "run" / "report.html").read_text()


def order(found):
    """The genes after the uniform map, whichever came first."""
    rest = [one["genes"][0] for one in found["maps"][1:]]
    assert sorted(rest) == [0, 1]
    return rest


def test_a_search_finds_a_map_for_each_depth_of_its_winners(run_cli, teacher_options, tmp_path):
    code, _, err = run_cli(
        "search", *teacher_options, "--candidates", "2", "--run", tmp_path / "run",
        "--set", "space.layers=[1]", "--set", "distill.hidden_weight=1",
        "--set", "distill.layer_map=search", "--set", "layer_map.evaluations=2",
        "--set", "search.epochs=0.5", "--set", "final.epochs=0.5", "--set", "final.students=2",
    )  # fmt: skip
    assert code == 0, err
    depths = maps_of(tmp_path / "run")
    assert depths.keys() == {"1"}  # once for all students of a depth
    assert len(depths["1"]["maps"]) == 2
    for file in (tmp_path / "run" / "students").glob("*/metrics.json"):
        assert json.loads(file.read_text())["layer_map"] == depths["1"]["best"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "layer_map.tasks=[glue/none]"], "there is no task 'glue/none'"),
        (
            ["--set", "layer_map.tasks=[squad]"],
            r"proxy task 'squad' \(layer_map.tasks\) has tags of words or questions",
        ),
        (
            ["--set", "layer_map.tasks=[glue/rte]", "--set", "layer_map.directory=/no/such"],
            r"proxy task 'glue/rte' .* /no/such has no folder 'RTE'.*layer_map.directory names",
        ),
        (["--set", "layer_map.evaluations=0"], "layer_map.evaluations must be above 0, got 0"),
        (["--set", "layer_map.elite_fraction=1"], "an elite of 1 leaves a population of 4"),
        (["--set", "layer_map.population=1"], "a population needs 2 maps"),
        (["--set", "distill.layer_map=last"], "layer-map searches the map: leave"),
        (["--set", "search.candidates=3"], "layer-map has no use for search.candidates = 3"),
        (
            ["--set", "final.students=2", "--set", "final.controls=3"],
            "layer-map has no use for final.students = 2, final.controls = 3: it distils the one",
        ),
        (["--objectives", "quality,size_mb"], "no use for search.objectives = quality, size_mb"),
        (
            ["--set", "search.quality=hidden"],
            "layer-map has no use for search.quality = hidden: it distils the one student",
        ),
        (["--task", "glue/rte"], "--task and --corpus exclude each other"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(
    search, tmp_path, options, message, monkeypatch
):
    monkeypatch.setenv("STILLHOUSE_DATA", str(tmp_path))
    code, _, err = search(*options)
    assert code == 1
    assert re.search(message, " ".join(err.split())), err
    assert not (tmp_path / "run" / "work").exists()


@pytest.mark.parametrize(
    "idle",
    [
        "layer_map.sequences = 5",
        "final.students = 2",
        "final.controls = 2",
        "search.quality = hidden",
        "search.objectives = quality, size_mb",
    ],
)
def test_what_no_map_of_a_task_is_judged_by_is_refused(run_cli, teacher_options, tmp_path, idle):
    given = idle.replace(" = ", "=").replace(", ", ",")
    code, _, err = run_cli(
        "search", "layer-map", *teacher_options, "--student", "layers=1",
        "--set", given, "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert f"layer-map has no use for {idle}: its maps are judged on" in " ".join(err.split())


@pytest.mark.parametrize(
    ("command", "job"),
    [(("search",), "plain"), (("distill", "--student", "layers=1"), "distill")],
)
def test_settings_of_proxy_tasks_are_refused_where_a_task_judges_maps(
    run_cli, teacher_options, tmp_path, command, job
):
    code, _, err = run_cli(
        *command, *teacher_options, "--run", tmp_path / "run",
        "--set", "distill.hidden_weight=1", "--set", "distill.layer_map=search",
        "--set", "layer_map.tasks=[glue/rte]", "--set", "layer_map.sequences=9",
        "--set", "layer_map.judge=task",
    )  # fmt: skip
    assert code == 1
    assert (
        f"{job} has no use for layer_map.judge = task, layer_map.sequences = 9, layer_map.tasks = "
        "glue/rte: on a task, layer maps are judged on the task itself"
    ) in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_a_plan_counts_no_more_maps_than_there_are(run_cli, teacher_options):
    """From two layers to two: one that links none, 2 x 2 that link one, 3 that link both."""
    code, out, err = run_cli(
        "plan", *teacher_options, "--candidates", "2", "--set", "space.layers=[1,2]",
        "--set", "distill.hidden_weight=1", "--set", "distill.layer_map=search",
    )  # fmt: skip
    assert code == 0, err
    told = " ".join(out.split())
    assert "up to 8 maps for each depth among the students, each as long as 1 candidate." in told


def test_embeddings_are_refused_where_no_hidden_state_is_compared(
    run_cli, teacher_options, tmp_path
):
    idle = ("--set", "distill.embeddings=true", "--run", tmp_path / "run")
    code, _, err = run_cli("distill", *teacher_options, "--student", "layers=1", *idle)
    assert code == 1
    assert "distill has no use for distill.embeddings = True: embeddings are compared among" in (
        " ".join(err.split())
    )
    code, _, err = run_cli("search", *teacher_options, *idle)
    assert (code, "plain has no use for distill.embeddings = True" in " ".join(err.split())) == (
        1,
        True,
    )


def test_a_student_is_asked_for_and_refused_where_it_is_looked_for(
    run_cli, teacher_options, tmp_path
):
    run = ("--run", tmp_path / "run")
    code, _, err = run_cli("search", "layer-map", *teacher_options, *run)
    assert (code, "student is missing" in err) == (1, True)
    code, _, err = run_cli("search", *teacher_options, "--student", "layers=1", *run)
    assert (code, "--student is for layer-map" in err) == (1, True)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ("[0,2]", "layer map [0, 2] has 2 genes, but the student 1 layers"),
        ("[3]", "3 is no layer of the teacher, which has 2"),
    ],
)
def test_genes_that_do_not_fit_a_student_are_refused_before_its_teacher_is_made(
    run_cli, teacher_options, tmp_path, genes, message
):
    code, _, err = run_cli(
        "distill", *teacher_options, "--student", "layers=1", "--run", tmp_path / "run",
        "--set", "distill.hidden_weight=1", "--set", f"distill.layer_map={genes}",
    )  # fmt: skip
    assert code == 1
    assert message in err
    assert not (tmp_path / "run" / "teacher").exists()


def test_genes_are_refused_in_a_search_over_several_depths(run_cli, teacher_options, tmp_path):
    code, _, err = run_cli(
        "search", *teacher_options, "--run", tmp_path / "run", "--set", "space.layers=[1,2]",
        "--set", "distill.hidden_weight=1", "--set", "distill.layer_map=[2]",
    )  # fmt: skip
    assert code == 1
    assert "is for students of 1 layers, but there are students of 2 as well" in err
    assert not (tmp_path / "run" / "teacher").exists()


@pytest.mark.parametrize("recipe", ["autodistil", "autodistill", "nas-bert"])
def test_recipes_that_link_no_layers_refuse_what_is_said_of_links(
    run_cli, weather_encoder_folder, weather_text, tmp_path, recipe
):
    code, _, err = run_cli(
        "search", recipe, "--teacher", weather_encoder_folder, "--corpus", weather_text,
        "--set", "distill.layer_map=last", "--set", "distill.hidden_weight=0.5",
        "--set", "distill.attention_weight=2", "--set", "distill.embeddings=true",
        "--run", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    told = " ".join(err.split())
    assert f"{recipe} has no use for distill.hidden_weight = 0.5, distill.attention_w" in told
    assert "distill.embeddings = True, distill.layer_map = last:" in told
    code, _, err = run_cli("search", recipe, "--set", "layer_map.seeds=2", "--corpus", weather_text)
    assert (code, "the section layer_map is for" in " ".join(err.split())) == (1, True)


def test_candidates_judged_by_hidden_states_need_a_link(run_cli, teacher_options, tmp_path):
    code, _, err = run_cli(
        "search", *teacher_options, "--run", tmp_path / "run", "--set", "space.layers=[1]",
        "--set", "distill.hidden_weight=1", "--set", "distill.layer_map=[0]",
        "--set", "search.quality=hidden",
    )  # fmt: skip
    assert code == 1
    assert "search.quality hidden judges by hidden states, but distill.layer_map [0] links" in (
        " ".join(err.split())
    )
    assert not (tmp_path / "run" / "teacher").exists()
