"""A name that is misspelt is told with the nearest one that is known."""

import json

import pytest

from stillhouse.errors import did_you_mean


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("serach",), "'search'"),
        (("search", "--teachr", "t"), "did you mean '--teacher'?"),
        (("search", "--runs", "r"), "did you mean '--run'?"),
        (("search", "nasbert"), "did you mean 'nas-bert'?"),
        (("search", "--device", "onnxruntime"), "did you mean 'onnxruntime-cpu'?"),
        (("search", "--device", "tpu-v4"), "did you mean 'tpu-v4i'?"),
        (("search", "--strategy", "nsga"), "did you mean 'nsga2'?"),
        (("search", "--objectives", "quality,latency"), "did you mean 'latency_ms'?"),
        (("search", "--task", "glue/sst-2"), "did you mean 'glue/sst2'?"),
        (("search", "--metric", "acuracy"), "did you mean 'accuracy'?"),
        (("search", "--limit", "latency=5"), "did you mean 'latency_ms'?"),
        (("search", "--set", "serch.epochs=2"), "did you mean 'search'?"),
        (("search", "--set", "search.epoch=2"), "did you mean 'epochs'?"),
        (("search", "--set", "patience=2"), "did you mean finetune.patience or "),
        (("search", "--set", "task.patience=2"), "did you mean finetune.patience or "),
        (("search", "--set", "space.base=kdnas"), "did you mean 'kd-nas'?"),
        (("search", "--teacher-finetune", "allways"), "did you mean 'always'?"),
        (("distill", "--initialisation", "slice"), "did you mean 'slices'?"),
        (("distill", "--layer-map", "unifrom"), "did you mean 'uniform'?"),
        (("distill", "--student", "layerz=2"), "did you mean 'layers'?"),
        (("search", "--task", "glue:sst2"), "did you mean 'glue/sst2'?"),
        (("search", "--task", "conl:train.txt"), "did you mean 'conll:train.txt'?"),
        (("report", "--run", "x"), "give it without a name, as stillhouse report RUN"),
        (("compare", "--run", "x"), "give it without a name, as stillhouse compare RUN..."),
        (("measure", "--models", "x"), "give it without a name, as stillhouse measure MODEL"),
        (("search", "--limt", "speedup=2"), "did you mean '--limit'?"),
        (("quantise", "m", "--ranges", "eror"), "did you mean 'error'?"),
        (("cross-view", "--size", "smal"), "did you mean 'small'?"),
        (("export", "m", "--to", "onx"), "did you mean 'onnx'?"),
        (("export", "m", "--precision", "int-8"), "did you mean 'int8'?"),
        (("measure", "m", "--device", "opnvino-cpu"), "did you mean 'openvino-cpu'?"),
        (("measure", "m", "--precision", "flaot32"), "did you mean 'float32'?"),
        (
            ("profile", "--space", "kdnas", "--device", "cpu", "--out", "p.json"),
            "did you mean 'kd-nas'?",
        ),
        (
            ("profile", "--space", "kd-nas", "--device", "cpus", "--out", "p.json"),
            "did you mean 'cpu'?",
        ),
    ],
)
def test_the_nearest_name_is_told(run_cli, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli(*arguments)
    assert code in (1, 2)
    assert out == ""
    assert told.lower() in err.lower()


def test_what_resembles_nothing_is_told_without_a_guess():
    assert did_you_mean("abacus", ["cpu", "cuda"]) == ""
    assert did_you_mean("", ["cpu"]) == ""


def test_capitals_are_no_hindrance():
    assert did_you_mean("H100", ["h100", "h200"]) == ": did you mean 'h100'?"
    assert did_you_mean("mobilebert", ["MobileBERT"]) == ": did you mean 'MobileBERT'?"


def test_an_option_that_only_looks_alike_by_its_dashes_is_not_told(run_cli):
    _, _, err = run_cli("search", "--models", "m")
    assert "there is no option --models" in err
    assert "did you mean" not in err


def test_an_option_before_the_command_is_told_its_place(run_cli):
    code, out, err = run_cli("--json", "search")
    assert code == 2
    assert "it stands after the command: stillhouse COMMAND --json" in " ".join(err.split())
    assert json.loads(out)["command"] == "search"


def test_a_recipe_of_another_command_is_not_offered(run_cli):
    code, _, err = run_cli("search", "kd-nsa")
    assert code == 2
    assert "did you mean 'kd-nas'?" in " ".join(err.split())
    assert "general" not in err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            "unifrm",
            "distill.layer_map: Input should be 'uniform', 'last', 'uniform_last', 'search' or a "
            "list: did you mean 'uniform'? (value: 'unifrm')",
        ),
        ("[0,a]", "distill.layer_map.1: Input should be a valid integer, unable to parse"),
    ],
)
def test_a_setting_of_several_types_is_told_once(run_cli, given, told):
    code, _, err = run_cli(
        "distill", "--student", "layers=2", "--set", f"distill.layer_map={given}"
    )
    assert code == 1
    assert told in " ".join(err.split())
    assert err.count("distill.layer_map") == 1
    assert "literal[" not in err


def test_every_item_that_is_wrong_is_told_with_its_place(run_cli):
    _, _, err = run_cli("distill", "--student", "layers=2", "--set", "distill.layer_map=[a,0,b]")
    lines = err.strip().splitlines()
    assert [line.partition(": Input")[0] for line in lines] == [
        "error: distill.layer_map.0",
        "distill.layer_map.2",
    ]


@pytest.mark.parametrize("given", ["", "3", "[epochs]"])
def test_a_section_that_is_none_is_told_with_its_settings(run_cli, tmp_path, given):
    file = tmp_path / "s.yaml"
    file.write_text(f"search: {given}\n")
    code, _, err = run_cli("plan", file)
    assert code == 1
    assert "search: must be a section with settings of its own (strategy, " in " ".join(err.split())


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("evaluate", "finetune.epochs"),
        ("finetune", "search.epochs"),
        ("quantise", "finetune.epochs"),
        ("cross-view", "limit.speedup"),
    ],
)
def test_a_setting_that_a_command_does_not_read_is_refused(run_cli, command, path):
    words = () if command == "cross-view" else ("m",)
    code, _, err = run_cli(command, *words, "--set", f"{path}=3")
    assert code == 1
    assert f"--set {path}: this command does not read it; it reads task" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("evaluate", "m", "--task", "embedded", "--loyalty-base", "2"), "give one (--teacher)"),
        (("export", "m", "--text", "a", "--metric", "f1"), "--text, --metric: what is checked on"),
        (("export", "m", "--check", "some.txt", "--label", "x"), "--label: what is checked on"),
        (("search", "--set", "supernet.steps=3"), "--set supernet.steps: this command does not"),
        (
            ("search", "kd-nas", "--set", "pretrain={steps: 3}"),
            "--set pretrain.steps: this command",
        ),
        (
            ("distill", "--student", "layers=2", "--set", "search.candidates=5"),
            "--set search.candidates: this command does not read it",
        ),
    ],
)
def test_options_of_what_is_not_there_are_refused(run_cli, arguments, told):
    code, out, err = run_cli(*arguments)
    assert (code, out) == (1, "")
    assert told in err
