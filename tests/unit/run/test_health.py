from importlib.metadata import PackageNotFoundError

import pytest
from huggingface_hub import constants

from stillhouse.run import health
from stillhouse.run.health import examine


@pytest.fixture
def findings(tmp_path, monkeypatch):
    """Looks again, by name, after whatever a test has changed."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def look(folder=tmp_path):
        return {one.name: one for one in examine(folder)}

    return look


def test_a_machine_that_runs_the_tests_is_fit(findings):
    found = findings()
    assert not [one for one in found.values() if one.state == "bad"]
    assert "torch" in found["packages"].told
    assert "cpu" in found["devices"].told
    assert "GB free" in found["memory"].told


def test_a_package_that_is_missing_or_too_old_is_named_with_what_to_do(findings, monkeypatch):
    real = health.version

    def version(name):
        if name == "moocore":
            raise PackageNotFoundError(name)
        return "0.1" if name == "accelerate" else real(name)

    monkeypatch.setattr(health, "version", version)
    found = findings()
    assert (found["moocore"].state, found["moocore"].told) == ("bad", "not installed")
    assert found["accelerate"].told.startswith("0.1, but >=")
    assert found["accelerate"].advice.startswith('pip install "accelerate>=')
    assert "optuna" not in found


def test_an_extra_that_lacks_something_is_a_note(findings, monkeypatch):
    lines = ["numpy", 'openvino>=2025 ; extra == "openvino"', 'onnx ; extra == "openvino"']
    monkeypatch.setattr(health, "requires", lambda _: lines)
    known = {"numpy": "2.0", "onnx": "1.20", "torch": "2.13"}

    def version(name):
        if name not in known:
            raise PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(health, "version", version)
    found = findings()
    assert (found["extra openvino"].state, found["extra openvino"].told) == (
        "note",
        "without openvino",
    )
    assert "stillhouse[openvino]" in found["extra openvino"].advice
    assert "extra onnx" not in found


@pytest.mark.parametrize(
    ("threads", "state", "told"),
    [(4, "note", "OMP_NUM_THREADS=2"), (2, "good", ""), (1, "note", "")],
)
def test_threads_that_fight_or_are_few_are_told(findings, monkeypatch, threads, state, told):
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 4 if logical else 2)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    found = findings()["threads"]
    assert found.state == state
    assert told in found.advice


def test_a_full_disk_is_told_and_a_folder_that_is_not_there_has_its_parents(
    findings, monkeypatch, tmp_path
):
    folder = tmp_path / "not" / "yet"
    assert findings(folder)["runs"].state == "good"
    assert not folder.exists()
    monkeypatch.setattr(health, "ENOUGH_DISK_GB", 1e9)
    assert findings(folder)["runs"].advice == "give another --run"
    monkeypatch.setattr(health.os, "access", lambda *_: False)
    assert findings(folder)["runs"].state == "bad"


def test_little_memory_is_told(findings, monkeypatch):
    monkeypatch.setattr(health, "ENOUGH_MEMORY_GB", 1e9)
    assert "batch_size" in findings()["memory"].advice


def test_the_hub_is_off_silent_or_answers(findings, monkeypatch):
    assert findings()["hub"].told == "off: HF_HUB_OFFLINE is set"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refuse(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    silent = findings()["hub"]
    assert silent.state == "note"
    assert "no route" in silent.told
    assert "HF_HUB_OFFLINE=1" in silent.advice

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Answer())
    assert findings()["hub"].told.endswith("answers")
