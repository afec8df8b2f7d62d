"""What a user can do wrong: each is one clear message with the value in it, and exit code 1."""

import csv
import json
import resource
import subprocess
import sys

import pytest

NO_TIME = ("--candidates", "1", "--set", "search.candidate_seconds=0.000001")
"""Lets every candidate fail, after the teacher was prepared."""


@pytest.fixture
def write_csv(tmp_path):
    def write(rows, name="data.csv"):
        path = tmp_path / name
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
        return path

    return write


@pytest.fixture
def search(run_cli, teacher_options, tmp_path):
    """A search that would be valid but for what is given here."""

    def run(*options):
        code, out, err = run_cli("search", *teacher_options, "--run", tmp_path / "run", *options)
        assert "Traceback" not in err
        return code, out, err

    return run


@pytest.fixture
def fails(search):
    def check(*options, naming, exit_code=1):
        code, out, err = search(*options)
        assert code == exit_code
        assert out == ""
        for part in naming:
            assert part in err

    return check


def test_a_missing_file(fails):
    fails("--task", "nowhere.csv", naming=["cannot read nowhere.csv", "No such file"])


def test_a_missing_column(fails):
    fails("--text", "sentence", naming=["no column 'sentence'", "'text', 'label'"])
    fails("--label", "gold", naming=["no column 'gold'"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "is empty; it needs a header"),
        ([("text", "label")], "is empty below its header"),
        ([("text", "label"), *((f"day {i}", "good") for i in range(9))], "only class is 'good'"),
        ([("text", "label"), *((f"day {i}", "") for i in range(9))], "9 of 9 examples have no"),
        ([("text", "label"), ("a day", "good", "x")], "line 2: 3 fields where the header has 2"),
        ([("text", "label"), ("a", "good"), ("b", "bad")], "cannot hold 1 of 2 examples out"),
    ],
)
def test_unusable_tables(fails, write_csv, rows, message):
    fails("--task", write_csv(rows), naming=[message])


def test_a_label_that_training_never_saw(fails, write_csv):
    dev = write_csv([("text", "label"), ("a day", "good"), ("a night", "dreadful")], "dev.csv")
    fails("--dev", dev, naming=[str(dev), "never occur in the training set: 'dreadful'"])


def test_more_labels_than_the_teacher_has(fails, write_csv, weather_rows):
    rows = [
        ("text", "label"),
        *weather_rows,
        *((f"{text} {text}", "so so") for text, _ in weather_rows),
    ]
    options = ("--task", write_csv(rows), "--teacher-finetune", "never")
    fails(*options, naming=["no trained head of 3 outputs"])


@pytest.mark.parametrize(
    ("options", "naming"),
    [
        (["--set", "search.candidats=3"], ["search.candidats: unknown key", "candidates"]),
        (["--set", "search.candidates"], ["--set needs path=value", "'search.candidates'"]),
        (["--set", "search.epochs=-1"], ["search.epochs must be above 0, got -1"]),
        (["--set", "device.threads=0"], ["device.threads must be above 0, got 0"]),
        (["--candidates", "0"], ["search.candidates must be above 0", "got 0"]),
        (["--seed", "-1"], ["seed must be at least 0", "got -1"]),
        (["--strategy", "grid"], ["search.strategy", "'grid'", "'tpe'"]),
        (["--limit", "latency_ms=fast"], ["latency_ms must be a number", "'fast'"]),
        (["--limit", "latency=3"], ["limit.latency: unknown key", "latency_ms"]),
        (["--time", "soon"], ["45m", "'soon'"]),
        (["--metric", "bleu"], ["no metric 'bleu'", "accuracy"]),
        (["--metric", "pearson"], ["label 'bad' of example 1 is not a finite number"]),
        (["--teacher-finetune", "maybe"], ["teacher.finetune", "'maybe'"]),
        (["--task", "glue/nope"], ["no task 'glue/nope'", "glue/sst2"]),
        (["--task", "in-memory"], ["'in-memory' lies in no file"]),
        (["--teacher", "/no/such/teacher"], ["could be loaded from '/no/such/teacher'"]),
        (["--teacher", "no-such-name/on-the-hub"], ["loaded from 'no-such-name/on-the-hub'"]),
        (["--set", "device.table=/no/table.csv"], ["/no/table.csv"]),
        (["--set", "space.layers=[2, 1]"], ["layers must be strictly increasing", "(2, 1)"]),
        (["--set", "space.size_fraction=0.001"], ["size rule: none of", "0.001"]),
        (["/no/settings.yaml"], ["settings file /no/settings.yaml: No such file"]),
    ],
)
def test_impossible_settings(fails, options, naming):
    fails(*options, naming=naming)


@pytest.mark.parametrize(
    ("options", "named"),
    [(["--wrong"], "--wrong"), (["--candidates", "few"], "--candidates"), (["a", "b"], "'a'")],
)
def test_wrong_flags(search, options, named):
    code, out, err = search(*options)
    assert (code, out) == (2, "")
    assert named in err


def test_an_impossible_limit_stops_before_any_training(fails, tmp_path):
    # The smallest of the table takes 0.4875 ms: 22 % over 0.4, and 4.1 times the teacher's speed.
    shape = "(1 × 16, 2 heads, FFN 16, gelu; 0.487 ms at batch 1, length 16"
    fails("--limit", "latency_ms=0.4", naming=["latency_ms=0.4 by 22%", shape], exit_code=3)
    assert not list((tmp_path / "run" / "tensorboard").glob("trial-*"))
    assert not (tmp_path / "run" / "students").exists()
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    assert state["status"] == "failed"
    assert "latency_ms=0.4 by 22%" in state["reason"]


@pytest.mark.parametrize("limit", ["speedup=8", "size_mb=0.001", "parameters=100"])
def test_other_impossible_limits_are_named(fails, limit):
    fails("--limit", limit, naming=[f"is over {limit} by "], exit_code=3)


def test_several_impossible_limits_are_all_named(fails):
    limits = ["--limit", "latency_ms=0.4", "--limit", "size_mb=1", "--limit", "parameters=100"]
    fails(*limits, naming=["latency_ms=0.4 by 22%, parameters=100 by "], exit_code=3)


def test_a_run_directory_made_with_other_settings(fails, tmp_path):
    fails("--limit", "latency_ms=1.5", *NO_TIME, naming=["no candidate could be trained"])
    # By now there is a teacher, which other settings might not have made.
    before = (tmp_path / "run" / "settings.yaml").read_text()
    changed = ["limit.latency_ms: 1.5 → 1.6", "seed: 0 → 1", str(tmp_path / "run"), "--run"]
    fails("--limit", "latency_ms=1.6", *NO_TIME, "--seed", "1", naming=changed)
    assert (tmp_path / "run" / "settings.yaml").read_text() == before


def test_an_impossible_limit_binds_nothing(fails, tmp_path):
    for limit_ms in (0.4, 0.45):
        told = ["no student can meet the limit"]
        fails("--limit", f"latency_ms={limit_ms}", naming=told, exit_code=3)
    assert not (tmp_path / "run" / "teacher").exists()


def test_data_that_changed_since_the_run_began(fails, tmp_path, write_csv, weather_rows):
    limit = ("--limit", "latency_ms=1.5", *NO_TIME)
    path = write_csv([("text", "label"), *weather_rows])
    fails("--task", path, *limit, naming=["no candidate could be trained"])
    write_csv([("text", "label"), *weather_rows[:-1]])
    fails("--task", path, *limit, naming=["made with other data", str(tmp_path / "run")])


def test_a_damaged_teacher(fails, weather_teacher_folder, tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    for file in weather_teacher_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails("--teacher", folder, naming=["no model could be loaded", str(folder)])


@pytest.mark.parametrize("command", ["evaluate", "report"])
def test_nothing_there(run_cli, weather_csv, command):
    task = ["--task", weather_csv] if command == "evaluate" else []
    code, _, err = run_cli(command, "/no/such/folder", *task)
    assert code == 1
    assert "/no/such/folder" in err
    assert "Traceback" not in err


def limited_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


def test_a_full_disk_is_a_clear_message_and_the_run_goes_on_later(
    teacher_options, run_cli, tmp_path
):
    """No file may grow beyond 60 kB, which stops the teacher's weights half-way."""
    run = tmp_path / "run"
    options = ["search", *teacher_options, "--run", run, "--limit", "latency_ms=0.6"]
    small = [*options, "--candidates", "1", "--set", "final.students=1", "--set", "final.epochs=1"]
    program = [sys.executable, "-c", "from stillhouse.cli import main; main()", *map(str, small)]
    process = subprocess.run(program, preexec_fn=limited_files, capture_output=True, text=True)
    assert process.returncode == 1
    assert "error: a file could not be read or written" in process.stderr
    assert "File too large" in process.stderr
    assert f"make room on the disk of {run} and give the same command again" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (run / "teacher").exists()

    code, _, err = run_cli(*small)
    assert code == 0, err
    assert (run / "students" / "1" / "metrics.json").exists()
