import time

import pytest

from stillhouse.distill.loop import Progress
from stillhouse.recipe.logbook import watched


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


def test_the_bar_ends_when_the_training_fails(tmp_path):
    bar = Bar()
    with pytest.raises(ZeroDivisionError), watched(bar, tmp_path, "Training"):
        raise ZeroDivisionError
    assert bar.events[-1] == "end"
