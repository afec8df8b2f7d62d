"""A name that is misspelt is told with the nearest one that is known."""

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
