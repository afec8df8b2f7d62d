import json

import pytest

from stillhouse.run import health


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_fit_machine_is_told_and_ends_with_0(run_cli, tmp_path):
    code, out, _ = run_cli("doctor", "--run", str(tmp_path))
    assert code == 0
    for word in ("python", "packages", "devices", "memory", "runs", "model cache", "hub"):
        assert word in out


def test_what_must_be_put_right_ends_with_1_and_says_how(run_cli, monkeypatch):
    monkeypatch.setattr(health, "requires", lambda _: ["no-such-package>=3"])
    code, out, _ = run_cli("doctor")
    assert code == 1
    assert "wrong" in out
    assert 'pip install "no-such-package>=3"' in out


def test_scripts_get_plain_data(run_cli):
    code, out, _ = run_cli("doctor", "--json")
    assert code == 0
    document = json.loads(out)
    assert (document["command"], document["is_fit"]) == ("doctor", True)
    told = {one["name"]: one for one in document["findings"]}
    assert told["python"]["state"] == "good"
    assert set(told["hub"]) == {"name", "state", "told", "advice"}
