import time
from types import SimpleNamespace

import pytest

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.steps import Progress
from stillhouse.recipe.logbook import watched, watched_by_main


class Bar:
    def __init__(self):
        self.events = []

    def begin(self, task, total):
        self.events.append(("begin", task, total))

    def advance(self, done, detail=""):
        self.events.append(("advance", done, detail))

    def end(self):
        self.events.append("end")


def test_steps_go_to_the_bar_and_losses_to_the_curves(tmp_path):
    bar = Bar()
    deadline = time.monotonic() + 9
    with watched(bar, tmp_path / "logs", "Training", deadline=deadline) as watch:
        watch.on_step(Progress(step=1, steps=4, losses=(0.5, 0.25)))
        watch.on_step(Progress(step=2, steps=4))
        assert (watch.deadline, watch.checkpoint) == (deadline, None)
    assert bar.events == [
        ("begin", "Training", 1.0),
        ("advance", 0.25, "loss 0.7500"),
        ("advance", 0.5, ""),
        "end",
    ]
    [curves] = (tmp_path / "logs").iterdir()
    content = curves.read_bytes()
    assert b"loss/term_0" in content
    assert b"loss/term_1" in content


@pytest.mark.parametrize("is_main", [True, False])
def test_of_all_workers_the_main_one_tells(tmp_path, is_main):
    bar, checkpoint = Bar(), CheckpointFolder(path=tmp_path / "checkpoint", fingerprint="text")
    worker, logs = SimpleNamespace(is_main_process=is_main), tmp_path / "logs"
    with watched_by_main(
        worker, bar, logs, "Training", checkpoint=checkpoint, tokens_a_step=9
    ) as watch:
        assert watch.checkpoint is checkpoint
    assert bar.events == ([("begin", "Training", 1.0), "end"] if is_main else [])
    assert logs.exists() == is_main


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def test_the_rate_counts_from_the_first_step_that_was_told(tmp_path, monkeypatch):
    """A resumed training reads nothing of what it read before; compiling is in its first step."""
    bar, clock = Bar(), Clock()
    monkeypatch.setattr("stillhouse.recipe.logbook.time", clock)
    with watched(bar, tmp_path, "Training", tokens_a_step=1_000) as watch:
        for step, seconds, losses in ((21, 9.0, (1.5,)), (22, 0.5, ()), (41, 1.5, (1.0, 0.25))):
            clock.now += seconds
            watch.on_step(Progress(step=step, steps=50, losses=losses))
    told = [event[2] for event in bar.events if event[0] == "advance"]
    assert told == ["loss 1.5000", "", "loss 1.2500, 10,000 tokens/s"]  # 20 steps in 2 s
    [curves] = tmp_path.iterdir()
    assert b"tokens_per_s" in curves.read_bytes()


def test_no_rate_is_told_where_steps_differ_in_tokens(tmp_path):
    bar = Bar()
    with watched(bar, tmp_path, "Training") as watch:
        for step in (1, 2, 3):
            watch.on_step(Progress(step=step, steps=3, losses=(1.0,)))
    assert {event[2] for event in bar.events if event[0] == "advance"} == {"loss 1.0000"}
    [curves] = tmp_path.iterdir()
    assert b"tokens_per_s" not in curves.read_bytes()


def test_steps_in_no_time_have_a_finite_rate(tmp_path, monkeypatch):
    bar = Bar()
    monkeypatch.setattr("stillhouse.recipe.logbook.time", Clock())
    with watched(bar, tmp_path, "Training", tokens_a_step=8) as watch:
        for step in (1, 2):
            watch.on_step(Progress(step=step, steps=2, losses=(1.0,)))
    assert bar.events[-2][2].startswith("loss 1.0000, 8,000,")


def test_the_bar_ends_when_the_training_fails(tmp_path):
    bar = Bar()
    with pytest.raises(ZeroDivisionError), watched(bar, tmp_path, "Training"):
        raise ZeroDivisionError
    assert bar.events[-1] == "end"
