"""What a shell offers on Tab, through the protocol by which it asks."""

import os
import shutil
import subprocess
import sys

import pytest
import typer

from stillhouse.cli import completion
from stillhouse.cli.app import app
from stillhouse.data.metric_names import METRICS
from stillhouse.data.task_names import GLUE_NAMES
from stillhouse.device.data_sheets import data_sheets
from stillhouse.device.kinds import MEASURED
from stillhouse.run.recipes import RECIPE_NAMES

ASK = (
    "import sys\n"
    "from stillhouse.cli import main\n"
    "sys.argv[0] = 'stillhouse'\n"
    "try:\n"
    "    main()\n"
    "finally:\n"
    "    print({'torch', 'datasets', 'numpy'} & sys.modules.keys(), file=sys.stderr)\n"
)


def asked(line, folder, *, shell="bash"):
    """What the program offers for the last word of a line, as a shell asks it."""
    words = line.split(" ")
    environment = os.environ | {
        "_STILLHOUSE_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, env=environment, cwd=folder
    )
    assert done.stderr == "set()\n"  # nothing heavy was loaded
    return done.stdout


def words_of(offered):
    return [one if isinstance(one, str) else one[0] for one in offered]


def test_bash_is_offered_commands_options_and_values(tmp_path):
    assert asked("stillhouse sea", tmp_path).split() == ["search"]
    assert asked("stillhouse search --obj", tmp_path).split() == ["--objectives"]
    assert asked("stillhouse search --strategy ", tmp_path).split() == [
        *("random", "tpe", "gp", "nsga2", "controller")
    ]
    assert asked("stillhouse search --set search.ep", tmp_path).split() == ["search.epochs="]


def test_zsh_is_told_what_a_setting_means(tmp_path):
    told = asked("stillhouse search --set limit.speed", tmp_path, shell="zsh")
    assert "limit.speedup=" in told
    assert "At least so many times as fast as the teacher." in told


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes(tmp_path):
    program = tmp_path / "stillhouse"
    program.write_text(f"#!{sys.executable}\nfrom stillhouse.cli import main\nmain()\n")
    program.chmod(0o755)
    script = (
        'eval "$(_STILLHOUSE_COMPLETE=source_bash stillhouse)"\n'
        "COMP_WORDS=(stillhouse evaluate --metric ent) COMP_CWORD=3\n"
        "_stillhouse_completion stillhouse\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout == "entity_f1 entity_precision entity_recall\n", done.stderr


def test_recipes_and_settings_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "naughty.yaml").touch()
    (tmp_path / "nagging.csv").touch()
    assert completion.recipes("na") == ["nas-bert", "naughty.yaml"]
    assert set(RECIPE_NAMES) - set(completion.recipes("")) == {"general"}


def test_devices_are_measured_ones_chips_and_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("board.csv", "kd.json", "notes.txt"):
        (tmp_path / name).touch()
    words = words_of(completion.devices(""))
    assert words == ["auto", *MEASURED, *data_sheets(), "board.csv", "kd.json"]


def test_tasks_and_metrics():
    assert words_of(completion.tasks("glue/")) == list(GLUE_NAMES)
    assert words_of(completion.tasks("squ")) == ["squad", "squad-v2"]
    assert completion.metrics("") == list(METRICS)


def test_the_last_of_a_list_with_commas_is_completed_and_none_twice():
    assert completion.measured_devices("cpu,onnx") == [
        "cpu,onnxruntime-cpu",
        "cpu,onnxruntime-cuda",
    ]
    assert completion.objectives("quality,") == [
        f"quality,{name}" for name in ("latency_ms", "size_mb", "flops_fraction", "reward")
    ]
    assert completion.limits("latency_ms=4,pa") == [
        "latency_ms=4,parameters=",
        "latency_ms=4,params_m=",
    ]
    assert completion.limits("latency_ms=4,lat") == []
    assert completion.precisions("float32,int8-") == ["float32,int8-static"]


def test_settings_and_what_they_may_be():
    assert words_of(completion.settings("final.st")) == ["final.students="]
    assert all(told for _, told in completion.settings("task."))
    assert completion.settings("distill.initialisation=") == [
        *(f"distill.initialisation={word}" for word in ("slices", "extract", "scratch"))
    ]
    assert completion.settings("search.epochs=") == []


def test_runs_and_checkpoints_are_told_apart_from_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, file in (("mine", "run.json"), ("model", "config.json"), ("more", "x")):
        (tmp_path / "runs" / folder).mkdir(parents=True)
        (tmp_path / "runs" / folder / file).touch()
    (tmp_path / "runs" / "mouse.txt").touch()
    assert completion.runs("runs/m") == [
        ("runs/mine/", "run"),
        ("runs/model/", ""),
        ("runs/more/", ""),
    ]
    assert completion.checkpoints("runs/mo") == [("runs/model/", "checkpoint"), ("runs/more/", "")]
    assert completion.folders("runs/mo") == ["runs/model/", "runs/more/"]
    assert completion.paths("runs/mo") == ["runs/model/", "runs/more/", "runs/mouse.txt"]
    assert completion.folders("") == ["runs/"]
    assert completion.paths(f"{tmp_path}/r") == [f"{tmp_path}/runs/"]
    assert completion.paths("nowhere/") == []


def test_hidden_files_are_offered_where_a_point_is_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hidden").touch()
    assert completion.paths("") == []
    assert completion.paths(".h") == [".hidden"]


FREE = {
    *("text", "label", "corpus_text", "time", "candidates", "student", "seed", "steps"),
    *("batch_size", "learning_rate", "epochs", "patience", "bits", "labels_fraction", "batch"),
    *("length", "threads", "padding", "seconds", "points", "examples", "least_similarity"),
    *("every", "by", "at"),
}
"""Values that nobody can list: numbers, names of columns, shapes."""


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_every_value_that_can_be_completed_is(command):
    params = typer.main.get_command(app).commands[command].params
    lacking = [
        param.name
        for param in params
        if not (getattr(param, "is_flag", False) or param.hidden)
        and param._custom_shell_complete is None
        and param.name not in FREE
    ]
    assert lacking == []
