"""Supernets on a text about the weather, and students of them for one limit after the other."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

import stillhouse
from stillhouse.device.table import TableDevice
from stillhouse.errors import DataError, DeviceError, RunError, SettingsError, TeacherError
from stillhouse.model.encoders import build_encoder, load_encoder
from stillhouse.recipe import autodistil, supernets
from stillhouse.run.costs import WORKER_COSTS
from stillhouse.run.settings_file import apply_overrides, read_settings
from stillhouse.space.architecture import BertArchitecture, architecture_from_dict
from stillhouse.space.published import autodistil_for
from stillhouse.supernet.subnets import Supernet

TEACHER = BertArchitecture(layers=4, hidden_size=32, heads=4, ffn_size=128)
SPACES = ("tiny", "small")
DRIVER = Path(__file__).with_name("autodistil_driver.py")
PATIENCE_S = 240


@pytest.fixture(scope="module")
def chip(tmp_path_factory):
    """A latency for every student of every space, by its depth and the size of its parts."""

    def latency_ms(one):
        return one.layers * (0.2 + one.heads / 10 + one.ffn_size / 100 + one.hidden_size / 100)

    path = tmp_path_factory.mktemp("device") / "chip.csv"
    students = {
        one.key: one for name in ("tiny", "small", "base") for one in autodistil_for(TEACHER, name)
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("architecture", "latency_ms"))
        writer.writerow(("teacher", latency_ms(TEACHER)))
        writer.writerows((key, latency_ms(one)) for key, one in students.items())
    return path


@pytest.fixture(scope="module")
def corpus(weather_text, tmp_path_factory):
    """The text in a file of its own, which a test may change."""
    path = tmp_path_factory.mktemp("text") / "weather.txt"
    shutil.copyfile(weather_text, path)
    return path


@pytest.fixture(scope="module")
def settings(weather_encoder_folder, corpus, chip):
    return {
        "teacher": {"model": str(weather_encoder_folder)},
        "corpus": {"name": str(corpus), "length": 16},
        "supernet": {"spaces": list(SPACES), "steps": 3, "batch_size": 4, "runners_up": 2},
        "device": {"kind": "table", "table": str(chip)},
        "distill": {"precision": "float32"},
    }


@pytest.fixture(scope="module")
def search(settings):
    """Searches in a run directory, with settings by path beside the common ones."""

    def run(path, limit=None, **changed):
        overrides = {name.replace("__", "."): value for name, value in changed.items()}
        return stillhouse.search(
            recipe="autodistil",
            run=path,
            limit=limit,
            settings=apply_overrides(settings, overrides),
        )

    return run


@pytest.fixture(scope="module")
def trained(search, tmp_path_factory):
    """A finished run, which stays as it is; half of the teacher's FLOPs were allowed."""
    path = tmp_path_factory.mktemp("family") / "run"
    search(path)
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it to do anything with."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def forbid(monkeypatch):
    """Lets functions fail that must not be called."""

    def work(*_, **__):
        raise AssertionError("worked again")

    def forbid(**names):
        for name, place in names.items():
            monkeypatch.setattr(place, name, work)

    return forbid


@pytest.fixture
def no_training(forbid):
    forbid(run_steps=supernets, held_out_losses=supernets)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def scores(run):
    """Loss and costs of every student of a run, best first."""
    rows = []
    for file in (run / "supernets").glob("*/subnets.csv"):
        with file.open(newline="") as opened:
            for row in csv.DictReader(opened):
                described = json.loads(row["architecture"])
                rows.append((float(row["loss"]), file.parent.name, described, row))
    return sorted(rows, key=lambda row: row[0])


def best_below(run, flops_fraction):
    return next(r for r in scores(run) if float(r[3]["flops_fraction"]) <= flops_fraction)


def contents(run):
    """What another search may add to, but not change."""
    files = [
        path
        for name in ("students", "supernets", "corpus")
        for path in (run / name).rglob("*")
        if path.is_file()
    ]
    return {path.relative_to(run): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fresh_supernet(teacher, space):
    return Supernet(load_encoder(str(teacher)).model, list(autodistil_for(TEACHER, space)))


def supernet_of(folder, teacher):
    supernet = fresh_supernet(teacher, folder.name)
    supernet.encoder.load_state_dict(load_file(folder / "weights.safetensors"))
    return supernet


SAME_MEANING = {
    "latency_ms", "latency_low_ms", "latency_high_ms", "latency_p10_ms", "latency_p90_ms",
    "latency_runs", "latency_how", "teacher_latency_ms", "speedup", "device", "workload",
    "workload_label", "parameters", "parameters_encoder", "teacher_parameters", "size_mb",
    "flops", "flops_fraction", "architecture", "architecture_label", "initialisation", "limits",
    "violations", "within_limit",
}  # fmt: skip
"""Fields that students of a task have as well."""


def test_a_family_from_the_command_line(
    run_cli, weather_encoder_folder, corpus, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    command = [
        "search", "autodistil", "--teacher", weather_encoder_folder, "--corpus", corpus,
        "--run", run, "--limit", "flops_fraction=0.15", "--seed", "2",
        "--set", "corpus.length=16", "--set", "supernet.spaces=[tiny]",
        "--set", "supernet.steps=2", "--set", "supernet.batch_size=4",
        "--set", "distill.precision=float32",
    ]  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    code, out, err = run_cli(*command)
    assert code == 0, err
    student = run / "students" / "1"
    metrics = read_json(student / "metrics.json")
    assert metrics["architecture_label"] in out
    assert f"{metrics['relation_loss']:.4f}" in out
    assert f"stillhouse finetune {student} --task" in " ".join(err.split())
    assert metrics["flops_fraction"] <= 0.15
    assert metrics["latency_how"] == "measured"
    assert (run / "report.html").exists()
    assert AutoModel.from_pretrained(student).config.num_hidden_layers in (1, 2)

    before = contents(run)
    code, again, err = run_cli(*command)
    assert (code, again) == (0, out), err
    assert contents(run) == before


def test_a_finished_run_tells_what_was_done(trained, weather_encoder_folder, corpus):
    state = read_json(trained / "run.json")
    assert state["status"] == "complete"
    assert state["task"] == f"corpus {corpus}"
    assert state["teacher"] == str(weather_encoder_folder)
    assert (state["space_size"], state["limits"]) == (32, {"flops_fraction": 0.5})
    assert state["phases_s"].keys() == {"supernets", "search"}
    assert not (trained / "work").exists()
    assert "data_sha256" in (trained / "settings.yaml").read_text()
    for name in SPACES:
        facts = read_json(trained / "supernets" / name / "supernet.json")
        assert (facts["students"], facts["steps"], facts["tokens"]) == (16, 3, 3 * 4 * 16)


def test_the_lowest_loss_within_the_limit_is_chosen(trained):
    [search] = read_json(trained / "family.json")["searches"]
    within = [row for row in scores(trained) if float(row[3]["flops_fraction"]) <= 0.5]
    told = [search["best"], *search["runners_up"]]
    assert [(one["relation_loss"], one["space"], one["architecture"]) for one in told] == [
        row[:3] for row in within[:3]
    ]
    assert (search["limits"], search["student"]) == ({"flops_fraction": 0.5}, "1")


def test_a_student_is_a_subnet_of_its_supernet(trained, weather_encoder_folder):
    folder = trained / "students" / "1"
    metrics = read_json(folder / "metrics.json")
    model = AutoModel.from_pretrained(folder)
    supernet = supernet_of(trained / "supernets" / metrics["space"], weather_encoder_folder)
    shape = architecture_from_dict(metrics["architecture"])
    assert equal(model.state_dict(), supernet.extract(shape).state_dict())
    fresh = fresh_supernet(weather_encoder_folder, metrics["space"])
    assert not equal(model.state_dict(), fresh.extract(shape).state_dict())


def test_measures_mean_what_those_of_other_students_do(trained, chip):
    folder = trained / "students" / "1"
    metrics = read_json(folder / "metrics.json")
    assert metrics.keys() >= SAME_MEANING
    model = AutoModel.from_pretrained(folder)
    layers = list(model.encoder.layer.parameters())
    parameters = sum(p.numel() for p in model.parameters())
    with chip.open(newline="") as file:
        latency_ms = {row["architecture"]: float(row["latency_ms"]) for row in csv.DictReader(file)}
    shape = architecture_from_dict(metrics["architecture"])
    expected = {
        "parameters": parameters,
        "parameters_encoder": sum(p.numel() for p in layers),
        "size_mb": parameters * 4 / 1e6,
        "architecture_label": shape.label,
        "latency_ms": latency_ms[shape.key],
        "teacher_latency_ms": latency_ms["teacher"],
        "speedup": latency_ms["teacher"] / latency_ms[shape.key],
        "latency_how": "table",
        "device": "chip",
        "limits": {"flops_fraction": 0.5},
        "within_limit": True,
        "held_out_sequences": 6,
    }
    assert {name: metrics[name] for name in expected} == expected
    assert metrics["workload"].keys() == {
        "batch", "length", "precision", "threads", "padding_fraction",
    }  # fmt: skip
    assert (metrics["workload"]["batch"], metrics["workload"]["length"]) == (1, 16)
    assert metrics["violations"]["flops_fraction"] == metrics["flops_fraction"] / 0.5 - 1
    assert metrics["initialisation"]["kind"] == "supernet"
    assert len(metrics["initialisation"]["layers"]) == shape.layers
    assert shape.label in (folder / "README.md").read_text(encoding="utf-8")


def test_another_limit_trains_nothing_and_adds_a_student(search, run, no_training):
    before, first = contents(run), read_json(run / "family.json")["searches"]
    limit = {"flops_fraction": 0.999 * first[0]["best"]["flops_fraction"]}
    result = search(run, limit)
    [student] = result.students
    assert student.path == run / "students" / "2"
    assert student.metrics["limits"] == limit
    loss, space, described, _ = best_below(run, limit["flops_fraction"])
    found = (student.metrics[name] for name in ("relation_loss", "space", "architecture"))
    assert tuple(found) == (loss, space, described)
    after = contents(run)
    assert {name: after[name] for name in before} == before
    assert {name.parts[:2] for name in after.keys() - before.keys()} == {("students", "2")}
    searches = read_json(run / "family.json")["searches"]
    assert searches[:1] == first
    assert [one["student"] for one in searches] == ["1", "2"]
    assert read_json(run / "run.json")["status"] == "complete"


@pytest.mark.parametrize("limit", [None, {"flops_fraction": 0.5}])
def test_the_same_limit_again_changes_nothing(search, run, no_training, forbid, limit):
    """Not even where latencies, which are noisy, have a say: nothing is weighed again."""
    forbid(compare=TableDevice, save_checkpoint=autodistil)
    before, family = contents(run), (run / "family.json").read_bytes()
    result = search(run, limit)
    assert [student.path for student in result.students] == [run / "students" / "1"]
    assert contents(run) == before
    assert (run / "family.json").read_bytes() == family


def test_limits_that_one_student_meets_have_one_folder(search, run, no_training):
    best = read_json(run / "family.json")["searches"][0]["best"]
    result = search(run, {"params_m": best["parameters"] / 1e6, "speedup": 0.5})
    assert [student.path for student in result.students] == [run / "students" / "1"]
    searches = read_json(run / "family.json")["searches"]
    assert [one["student"] for one in searches] == ["1", "1"]
    assert searches[1]["limits"] == {"speedup": 0.5, "params_m": best["parameters"] / 1e6}


def test_each_space_gives_a_student_where_that_is_asked_for(search, run, no_training):
    result = search(run, supernet__per_space=True, supernet__runners_up=1)
    assert [student.metrics["space"] for student in result.students] == list(SPACES)
    assert {student.path.name for student in result.students} == {"1", "2"}
    for student in result.students:
        own = [row for row in scores(run) if row[1] == student.metrics["space"]]
        within = (row for row in own if float(row[3]["flops_fraction"]) <= 0.5)
        assert student.metrics["architecture"] == next(within)[2]
    searches = read_json(run / "family.json")["searches"]
    assert [one["best"]["space"] for one in searches[1:]] == list(SPACES)
    assert [len(one["runners_up"]) for one in searches] == [2, 1, 1]
    again = search(run, supernet__per_space=True, supernet__runners_up=1)
    assert [one.path for one in again.students] == [one.path for one in result.students]
    assert read_json(run / "family.json")["searches"] == searches


def state_of(run):
    """What is told of a run but its cost, which a refused job adds to."""
    return {name: fact for name, fact in read_json(run / "run.json").items() if name != "cost"}


def test_a_limit_that_a_space_cannot_meet_leaves_no_half_of_a_search(search, run, no_training):
    before, family = contents(run), (run / "family.json").read_bytes()
    state = state_of(run)
    with pytest.raises(DeviceError, match=r"even the smallest of small \(3 × 16, 2 heads"):
        search(run, {"flops_fraction": 0.1}, supernet__per_space=True)
    assert state_of(run) == state
    with pytest.raises(DeviceError, match=r"even the smallest of tiny, small \(1 × 16, 2 heads"):
        search(run, {"latency_ms": 0.01})
    assert (contents(run), (run / "family.json").read_bytes()) == (before, family)
    assert state_of(run) == state
    search(run)
    assert read_json(run / "run.json")["status"] == "complete"


def test_a_limit_below_every_student_is_refused_before_anything_is_trained(
    search, tmp_path, no_training
):
    with pytest.raises(DeviceError, match=r"even the smallest of tiny, small \(1 × 16, 2 heads"):
        search(tmp_path / "hopeless", {"params_m": 0.0001})
    assert not (tmp_path / "hopeless" / "corpus").exists()


def test_one_supernet_over_all_spaces(search, tmp_path):
    result = search(tmp_path / "run", supernet__one_shot=True, supernet__steps=1)
    [folder] = (tmp_path / "run" / "supernets").iterdir()
    assert folder.name == result.students[0].metrics["space"] == "one-shot"
    assert len(scores(tmp_path / "run")) == 4 * 2 * 5


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("supernet.spaces", ["tiny"], r"supernet\.spaces: \['tiny', 'small'\] → \['tiny'\]"),
        ("supernet.steps", 4, r"supernet\.steps: 3 → 4"),
        ("supernet.one_shot", True, r"supernet\.one_shot: False → True"),
        ("corpus.name", "other.txt", r"corpus\.name: .* → 'other\.txt'"),
        ("corpus.length", 8, r"corpus\.length: 16 → 8"),
        ("corpus.held_out", 3, r"corpus\.held_out: 2000 → 3"),
        ("device.batch", 2, r"device\.batch: 1 → 2"),
        ("seed", 1, r"seed: 0 → 1"),
        ("teacher.model", "other", r"teacher\.model: .* → 'other'"),
    ],
)
def test_what_a_trained_run_stands_on_may_not_change(search, trained, path, value, told):
    before = contents(trained)
    with pytest.raises(RunError, match=f"made with other settings:\n.*{told}"):
        search(trained, **{path.replace(".", "__"): value})
    assert contents(trained) == before


def test_another_text_in_the_same_file_is_refused(search, run, corpus):
    written, state = corpus.read_bytes(), corpus.stat()
    try:
        with corpus.open("a", encoding="utf-8") as file:
            file.write("more\n")
        with pytest.raises(DataError, match="the corpus changed since"):
            search(run)
    finally:
        corpus.write_bytes(written)
        os.utime(corpus, ns=(state.st_atime_ns, state.st_mtime_ns))
    search(run)


def test_another_teacher_in_the_same_folder_is_refused(search, run, monkeypatch):
    def load(name):
        encoder = load_encoder(name)
        with torch.no_grad():
            encoder.model.get_input_embeddings().weight[0, 0] += 1.0
        return encoder

    monkeypatch.setattr(autodistil, "load_encoder", load)
    with pytest.raises(RunError, match=r"other weights of its teacher \(SHA-256 .*--run"):
        search(run)


def test_a_teacher_without_a_pooler_is_the_same_at_every_start(
    search, weather_encoder_folder, tmp_path, no_training
):
    """What its checkpoint lacks is drawn by chance, but always alike."""
    folder = shutil.copytree(weather_encoder_folder, tmp_path / "teacher")
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
    assert len(kept) < len(weights)
    AutoModel.from_pretrained(folder).save_pretrained(folder, state_dict=kept)
    hashes = set()
    for name in ("first", "second"):
        with pytest.raises(AssertionError, match="worked again"):
            search(tmp_path / name, teacher__model=str(folder))
        settings = read_settings(tmp_path / name / "settings.yaml")
        hashes.add(settings["provenance"]["teacher_sha256"])
        torch.rand(1)
    assert len(hashes) == 1


@pytest.fixture
def refused(search, tmp_path):
    """Tells why settings are refused; nothing was tokenised then, nothing trained."""

    def check(error, message, **changed):
        with pytest.raises(error, match=message):
            search(tmp_path / "run", **changed)
        written = {path.name for path in (tmp_path / "run").iterdir()}
        assert written <= {".lock", "run.json", "settings.yaml"}

    return check


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"teacher__model": "scratch"}, "needs a trained teacher.*'scratch'.*--teacher"),
        ({"teacher__model": "in-memory"}, "needs a trained teacher.*'in-memory'.*--teacher"),
        ({"supernet__relation_heads": 5}, "must divide the teacher's width 32, but 5 does not"),
        ({"supernet__relation_heads": 32}, "the student has 16 for 32 heads: .* 16 at most"),
        ({"corpus__length": 40}, r"corpus\.length 40 is above the teacher's 32 positions"),
        ({"corpus__held_out": 0}, r"corpus\.held_out must be at least 1"),
        (
            {"device__kind": "cpu", "device__table": None, "device__length": 33},
            r"timed at 33 tokens, but the teacher has 32 positions; set device\.length",
        ),
    ],
)
def test_settings_that_cannot_go_together_are_refused(refused, changed, message):
    refused(SettingsError, message, **changed)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_missed_before_the_training(refused):
    changed = {"device__kind": "cuda", "device__table": None}
    refused(SettingsError, r"device\.kind cuda: no CUDA device", **changed)


def test_a_teacher_that_is_not_there(refused, tmp_path):
    refused(TeacherError, "no encoder can be loaded", teacher__model=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("distilbert", r"a student of distilbert cannot have \d heads of 8 at a width of 16"),
        ("electra", r"a student of electra cannot have \d heads of 8 at a width of 16"),
        ("factored electra", r"factored embeddings \(12 wide, its layers 32\)"),
    ],
    indirect=["family"],
)
def test_a_family_without_free_heads_is_refused_before_any_work(
    refused, family, message, tiny_config, weather_tokenizer, tmp_path
):
    config = tiny_config(
        family,
        vocab_size=len(weather_tokenizer),
        num_hidden_layers=4,
        hidden_size=32,
        intermediate_size=128,
        max_position_embeddings=32,
    )
    folder = tmp_path / "teacher"
    build_encoder(config, seed=0).save_pretrained(folder)
    weather_tokenizer.save_pretrained(folder)
    refused(TeacherError, message, teacher__model=str(folder))


def test_a_corpus_too_small_to_hold_anything_out(search, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("the sunny day\n")
    with pytest.raises(DataError, match=r"short\.txt is too small: its 3 tokens"):
        search(tmp_path / "run", corpus__name=str(text))
    assert not (tmp_path / "run" / "corpus").exists()
    assert not (tmp_path / "run" / "supernets").exists()


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--time", "2h", "search.seconds = 7200.0"),
        ("--candidates", 5, "search.candidates = 5"),
        ("--strategy", "random", "search.strategy = random"),
    ],
)
def test_options_of_a_search_by_trials_are_refused(
    run_cli, weather_encoder_folder, corpus, tmp_path, option, value, told
):
    given = ("--teacher", weather_encoder_folder, "--corpus", corpus, "--run", tmp_path / "run")
    code, _, err = run_cli("search", "autodistil", *given, option, value)
    assert code == 1
    words = " ".join(err.split())
    assert f"autodistil has no use for {told}:" in words
    assert "supernet.steps" in words
    assert "--limit" in words
    assert not (tmp_path / "run").exists()


def test_the_command_line_asks_for_a_teacher(run_cli, corpus, tmp_path):
    code, out, err = run_cli("search", "autodistil", "--corpus", corpus, "--run", tmp_path / "run")
    assert (code, out) == (1, "")
    assert "autodistil needs a trained teacher" in err
    assert "--teacher" in err
    assert "Traceback" not in err


def test_a_student_with_free_heads_is_fine_tuned(trained, weather_csv, tmp_path):
    student = trained / "students" / "1"
    shape = architecture_from_dict(read_json(student / "metrics.json")["architecture"])
    assert shape.has_free_heads
    result = stillhouse.finetune(
        student,
        task=str(weather_csv),
        epochs=1,
        learning_rates=[1e-3],
        run=tmp_path / "tuned",
        settings={
            "task": {"max_length": 16},
            "distill": {"precision": "float32"},
        },
    )
    model = AutoModelForSequenceClassification.from_pretrained(result.path)
    assert model.config.num_hidden_layers == shape.layers
    assert model.config.head_size == shape.head_size
    assert result.metrics["architecture"] == shape.to_dict()
    own, theirs = AutoModel.from_pretrained(student).state_dict(), model.base_model.state_dict()
    assert own.keys() == theirs.keys()
    assert not equal(own, theirs)


@pytest.fixture(scope="module")
def start(settings, tmp_path_factory):
    """Starts the search as a program of its own, on one thread and on the processor."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    overrides = {
        "supernet.spaces": ["tiny"],
        "supernet.steps": 8,
        "supernet.dropout": 0.0,
        "supernet.learning_rate": 1e-4,
    }
    given = json.dumps(apply_overrides(settings, overrides))

    def begin(run, *launcher):
        return subprocess.Popen(
            [sys.executable, *launcher, str(DRIVER), str(run), given],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return begin


def end(process):
    """Waits for a program that has to succeed."""
    written, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, written


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """The run of a single worker that nobody disturbs."""
    run = tmp_path_factory.mktemp("processes") / "whole"
    end(start(run))
    return run


def trained_weights(run):
    return load_file(run / "supernets" / "tiny" / "weights.safetensors")


def files(run):
    """Names of all files; curves are named after their process."""
    names = [path.relative_to(run) for path in run.rglob("*") if path.is_file()]
    return sorted(str(n.with_name("curves") if n.parts[0] == "tensorboard" else n) for n in names)


@pytest.mark.slow
def test_killed_and_started_again_equals_undisturbed(whole, start, tmp_path):
    run = tmp_path / "killed"
    checkpoints = run / "work" / "supernets" / "tiny"
    process = start(run)
    deadline = time.monotonic() + PATIENCE_S
    while not any(checkpoints.glob("step-[3-6]/complete.json")):
        assert process.poll() is None, f"it ended before: {process.communicate()[0]}"
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGKILL
    assert read_json(run / "run.json")["status"] == "running"
    assert not (run / "supernets").exists()
    # As if it had been killed while it wrote: one folder aside, one without the mark of its end.
    newest = max(checkpoints.glob("step-*/complete.json")).parent
    for name in (".step-7.tmp", "step-7"):
        (checkpoints / name).mkdir(exist_ok=True)
        (checkpoints / name / "weights.safetensors").write_bytes(b"half")
    assert newest.name != "step-7"

    end(start(run))

    assert equal(trained_weights(run), trained_weights(whole))
    losses = Path("supernets", "tiny", "subnets.csv")
    assert (run / losses).read_bytes() == (whole / losses).read_bytes()
    student = Path("students", "1", "model.safetensors")
    assert (run / student).read_bytes() == (whole / student).read_bytes()
    assert read_json(run / "run.json")["status"] == "complete"
    assert set(files(run)) == set(files(whole))


@pytest.mark.slow
def test_two_workers_train_what_one_does(whole, start, weather_encoder_folder, tmp_path):
    run = tmp_path / "two"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    end(start(run, *launcher))
    ours, theirs = trained_weights(run), trained_weights(whole)
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-5
    fresh = fresh_supernet(weather_encoder_folder, "tiny").encoder.state_dict()
    assert max((ours[name] - fresh[name]).abs().max().item() for name in ours) > 2e-4
    worker = f"{WORKER_COSTS}/1.json"
    # One file of curves: the other worker wrote none.
    assert files(run) == sorted([*files(whole), worker])
    cost, alone, own = (
        read_json(run / "run.json")["cost"],
        read_json(whole / "run.json")["cost"],
        read_json(run / worker),
    )
    assert cost["tokens"] == alone["tokens"] > 0  # each worker reads its half of them
    assert cost["seconds"] > own["seconds"] > 0
    assert read_json(run / "run.json")["status"] == "complete"
