import json

from stillhouse.run.directory import open_run
from stillhouse.run.settings import RunSettings


def test_once_shows_a_run_and_how_to_open_dashboards(run_cli, tmp_path):
    with open_run(tmp_path, RunSettings()) as run:
        run.tensorboard.mkdir()
        (tmp_path / "progress.json").write_text(
            json.dumps(
                {"task": "Teacher", "done": 1, "total": 2, "detail": "", "since": 0, "at": 5}
            )
        )
        code, out, _ = run_cli("watch", str(tmp_path), "--once")
    assert code == 0
    assert "running" in out
    assert "Teacher" in out
    assert "50%" in out
    assert "said nothing for" in out
    assert f"tensorboard --logdir {run.tensorboard}" in out.replace("\n", "")


def test_a_run_that_ended_is_shown_without_waiting(run_cli, tmp_path):
    with open_run(tmp_path, RunSettings()) as run:
        run.update_state({"status": "complete", "wall_s": 3725.0})
    code, out, _ = run_cli("watch", str(tmp_path))
    assert code == 0
    assert "complete" in out
    assert "1:02:05" in out


def test_watching_ends_with_the_run(run_cli, tmp_path, monkeypatch):
    with open_run(tmp_path, RunSettings()) as run:
        looks = []

        def sleep(seconds):
            looks.append(seconds)
            if len(looks) == 2:
                run.update_state({"status": "complete", "wall_s": 1.0})

        monkeypatch.setattr("time.sleep", sleep)
        code, _, _ = run_cli("watch", str(tmp_path), "--every", "7")
    assert code == 0
    assert looks == [7.0, 7.0]


def test_ctrl_c_ends_the_watching_alone(run_cli, tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    with open_run(tmp_path, RunSettings()):
        code, _, _ = run_cli("watch", str(tmp_path))
    assert code == 0


def test_scripts_get_plain_data(run_cli, tmp_path):
    with open_run(tmp_path, RunSettings()):
        code, out, _ = run_cli("watch", str(tmp_path), "--json")
    assert code == 0
    told = json.loads(out)
    assert (told["status"], told["recipe"], told["trials"]) == ("running", "plain", {})


def test_what_is_no_run_is_a_clear_error(run_cli, tmp_path):
    code, _, err = run_cli("watch", str(tmp_path / "nowhere"))
    assert code == 1
    assert "is no run directory" in err
