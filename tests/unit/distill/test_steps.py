"""Optimiser steps on a network of 39 numbers, whose gradients any function may give."""

import copy
import math
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stillhouse.distill.checkpoint import CheckpointFolder
from stillhouse.distill.steps import Evaluations, Schedule, Watch, run_steps
from stillhouse.errors import SettingsError, TrainingError

BROKEN = Schedule(steps=10, learning_rate=0.02, warmup_fraction=0.2)


def rates(schedule):
    return [schedule.learning_rate_at(step) for step in range(schedule.steps)]


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (4, 0.0, [8, 6, 4, 2]),
        (10, 0.2, [4, 8, 8, 7, 6, 5, 4, 3, 2, 1]),
        (4, 1.0, [2, 4, 6, 8]),
        (1, 0.0, [8]),
        (3, 0.1, [8, 16 / 3, 8 / 3]),  # no whole step to warm up in
    ],
)
def test_rates_go_straight_up_and_straight_down(steps, warmup, expected):
    schedule = Schedule(steps=steps, learning_rate=8.0, warmup_fraction=warmup)
    assert rates(schedule) == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"learning_rate": 0.0}, {"clip_norm": 0.0}, {"learning_rate": -1.0}]
)
def test_impossible_schedules_are_refused(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(SettingsError, match=f"{name} must be above 0, got {value}"):
        Schedule(**{"steps": 1, "learning_rate": 1.0, **wrong})


class Net(nn.Module):
    """An embedding, a projection and a norm."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.table = nn.Embedding(5, 3)
            self.linear = nn.Linear(3, 4)
            self.norm = nn.LayerNorm(4)

    def learn(self, step):
        """Gradients of a step, of other tokens each time; returns two losses."""
        tokens = torch.tensor([step % 5, (step + 2) % 5, 4])
        made = self.norm(self.linear(self.table(tokens)) + torch.rand(3, 4))
        losses = torch.stack([made.square().mean(), (made[:, 0] - step).square().mean()])
        losses.sum().backward()
        return losses.detach()

    def idle(self, step):
        """Gradients of zero."""
        sum(parameter.sum() * 0.0 for parameter in self.parameters()).backward()
        return torch.tensor([float(step)])


@pytest.fixture
def net():
    torch.manual_seed(7)
    return Net()


@pytest.fixture
def take_steps(accelerator):
    """Trains all of a network, or some of its parameters; returns the report."""

    def run(net, schedule, *, backward=None, parameters=None, worker=accelerator, **watch):
        return run_steps(
            net,
            backward or net.learn,
            schedule,
            accelerator=worker,
            parameters=parameters,
            watch=Watch(**watch),
        )

    return run


def equal(one, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


def test_steps_equal_a_plain_loop(net, take_steps):
    plain = copy.deepcopy(net)
    schedule = Schedule(
        steps=10, learning_rate=0.02, warmup_fraction=0.2, weight_decay=0.5, clip_norm=0.3
    )
    torch.manual_seed(3)
    take_steps(net, schedule)

    torch.manual_seed(3)
    others = [plain.linear.bias, plain.norm.weight, plain.norm.bias, plain.table.weight]
    optimizer = torch.optim.AdamW(
        [
            {"params": [plain.linear.weight], "weight_decay": 0.5},
            {"params": others, "weight_decay": 0.0},
        ]
    )
    for step, rate in enumerate([0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]):
        optimizer.zero_grad()
        plain.learn(step)
        nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * rate
        optimizer.step()
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], weight, msg=name)
        assert not torch.equal(weight, Net().state_dict()[name]), name


def test_decay_is_on_weight_matrices_alone(net, take_steps):
    """Nothing has a gradient, so what moves is decay: rates 1, 3/4, 2/4, 1/4 of 0.1."""
    before = copy.deepcopy(net)
    schedule = Schedule(steps=4, learning_rate=0.1, weight_decay=0.5)
    take_steps(net, schedule, backward=net.idle)
    shrunk = (1 - 0.05) * (1 - 0.0375) * (1 - 0.025) * (1 - 0.0125)
    torch.testing.assert_close(net.linear.weight, before.linear.weight * shrunk)
    for part in ("linear.bias", "norm.weight", "norm.bias", "table.weight"):
        assert torch.equal(net.get_parameter(part), before.get_parameter(part)), part


@pytest.fixture
def watched_norms(monkeypatch):
    """Norms of all gradients that an optimiser was given."""
    norms = []
    take_step = torch.optim.AdamW.step

    def step(optimizer, *args, **kwargs):
        given = [w.grad for group in optimizer.param_groups for w in group["params"]]
        norms.append(torch.cat([g.flatten() for g in given if g is not None]).norm().item())
        return take_step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return norms


def test_long_gradients_are_clipped_and_short_ones_stay(net, take_steps, watched_norms):
    def backward(step):
        net.norm.bias.grad = torch.tensor([0.0, 3.0, 0.0, 4.0]) * 10.0 ** (step - 2)
        return torch.zeros(1)

    take_steps(net, Schedule(steps=4, learning_rate=1e-3, clip_norm=2.0), backward=backward)
    assert watched_norms == pytest.approx([0.05, 0.5, 2.0, 2.0], rel=1e-4)


def test_a_step_starts_without_the_gradients_of_the_one_before(net, take_steps, watched_norms):
    def backward(_):
        (3.0 * net.norm.bias.sum()).backward()
        return torch.zeros(1)

    take_steps(net, Schedule(steps=3, learning_rate=1e-3, clip_norm=99.0), backward=backward)
    assert watched_norms == pytest.approx([6.0] * 3)


def test_what_is_not_given_does_not_move_and_does_not_count(net, take_steps, watched_norms):
    """The table has a gradient that would leave nothing of the others', clipped together."""

    def backward(_):
        net.table.weight.grad = torch.full_like(net.table.weight, 1e6)
        (0.3 * net.norm.bias.sum() + 0.0 * net.linear.weight.sum()).backward()
        return torch.zeros(1)

    before = copy.deepcopy(net)
    schedule = Schedule(steps=3, learning_rate=0.1, weight_decay=0.5, clip_norm=1.0)
    given = [net.linear.weight, net.norm.bias]
    take_steps(net, schedule, backward=backward, parameters=given)
    for name, weight in net.named_parameters():
        moved = name in ("linear.weight", "norm.bias")
        assert torch.equal(weight, before.get_parameter(name)) is not moved, name
    assert watched_norms == pytest.approx([0.6] * 3)


def test_what_has_no_gradients_is_not_trained_where_nothing_is_given(net, take_steps):
    net.table.weight.requires_grad_(requires_grad=False)
    before = copy.deepcopy(net)
    take_steps(net, Schedule(steps=2, learning_rate=0.1))
    for name, weight in net.named_parameters():
        assert torch.equal(weight, before.get_parameter(name)) is (name == "table.weight"), name


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(path=tmp_path / "training", fingerprint="mine", every_s=0.0)


@pytest.fixture
def interrupted(net, take_steps, folder):
    """A training stopped in its 7th of 10 steps, checkpoints at every step; gives the folder."""

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    torch.manual_seed(3)
    with pytest.raises(KeyboardInterrupt):
        take_steps(net, BROKEN, on_step=stop, checkpoint=folder)
    return folder


def unbroken(take_steps):
    whole = Net()
    torch.manual_seed(3)
    return whole, take_steps(whole, BROKEN)


def test_a_resumed_training_ends_with_the_numbers_of_an_unbroken_one(take_steps, interrupted):
    whole, expected = unbroken(take_steps)
    resumed, told = Net(), []
    with torch.no_grad():
        resumed.linear.weight.zero_()
    torch.manual_seed(1234)
    report = take_steps(resumed, BROKEN, on_step=told.append, checkpoint=interrupted)
    assert [progress.step for progress in told] == [7, 8, 9, 10]
    assert equal(resumed, whole)
    assert (report.steps, report.loss) == (expected.steps, expected.loss) == (10, expected.loss)


def test_what_is_not_trained_is_in_the_checkpoint_too(take_steps, folder):
    """Supernets keep weights that no subnet reaches."""
    first, other = Net(), Net()
    with torch.no_grad():
        first.table.weight.fill_(5.0)
    schedule = Schedule(steps=2, learning_rate=0.1)
    take_steps(first, schedule, parameters=[first.norm.bias], checkpoint=folder)
    take_steps(other, schedule, parameters=[other.norm.bias], checkpoint=folder)
    assert equal(first, other)


def test_a_finished_training_is_not_repeated(take_steps, interrupted):
    first, again, told = Net(), Net(), []
    take_steps(first, BROKEN, checkpoint=interrupted)
    report = take_steps(again, BROKEN, on_step=told.append, checkpoint=interrupted)
    assert told == []
    assert equal(first, again)
    assert report.steps == 10
    assert math.isnan(report.loss)


def test_a_checkpoint_of_another_training_is_ignored(take_steps, interrupted):
    told = []
    other = CheckpointFolder(path=interrupted.path, fingerprint="other")
    take_steps(Net(), BROKEN, on_step=told.append, checkpoint=other)
    assert told[0].step == 1


def test_half_written_checkpoints_are_ignored(take_steps, interrupted):
    """A process that is killed while it writes leaves a folder aside, or one without its mark."""
    whole, _ = unbroken(take_steps)
    [newest] = interrupted.path.iterdir()
    aside = interrupted.path / ".step-8.tmp"
    newest.rename(aside)
    (interrupted.path / "step-9").mkdir()
    (interrupted.path / "step-9" / "weights.safetensors").write_bytes(b"half")
    restarted, told = Net(), []
    torch.manual_seed(3)
    take_steps(restarted, BROKEN, on_step=told.append, checkpoint=interrupted)
    assert told[0].step == 1
    assert equal(restarted, whole)
    assert [path.name for path in interrupted.path.iterdir()] == ["step-10"]


def test_checkpoints_wait_for_their_time(net, take_steps, tmp_path):
    patient = CheckpointFolder(path=tmp_path / "training", fingerprint="", every_s=60.0)
    take_steps(net, BROKEN, checkpoint=patient)
    assert not patient.path.exists()


def test_only_the_main_worker_tells_and_writes(net, take_steps, folder):
    told = []
    worker = SimpleNamespace(is_main_process=False)
    whole, _ = unbroken(take_steps)
    torch.manual_seed(3)
    report = take_steps(net, BROKEN, worker=worker, on_step=told.append, checkpoint=folder)
    assert told == []
    assert not folder.path.exists()
    assert equal(net, whole)
    assert report.steps == 10


def test_a_worker_with_work_of_its_own_tells_and_writes_it(net, folder):
    told = []
    whole = copy.deepcopy(net)
    torch.manual_seed(3)
    run_steps(whole, whole.learn, BROKEN, accelerator=SimpleNamespace(is_main_process=True))
    torch.manual_seed(3)
    run_steps(
        net,
        net.learn,
        BROKEN,
        accelerator=SimpleNamespace(is_main_process=False),
        watch=Watch(on_step=told.append, checkpoint=folder),
        has_own_work=True,
    )
    assert [progress.step for progress in told] == list(range(1, 11))
    assert [path.name for path in folder.path.iterdir()] == ["step-10"]
    assert equal(net, whole)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_the_training(net, take_steps, value):
    def backward(step):
        losses = net.learn(step)
        if step == 2:
            net.table.weight.grad[4, 1] = value
        return losses

    with pytest.raises(
        TrainingError,
        match=r"gradient is not finite at step 3 of 10 \(learning rate 0\.02\): lower",
    ):
        take_steps(net, BROKEN, backward=backward)
    assert all(weight.isfinite().all() for weight in net.parameters())


def test_training_stops_at_its_deadline(net, take_steps):
    told = []
    with pytest.raises(TrainingError, match="out of time after 1 of 10 steps; allow more time"):
        take_steps(net, BROKEN, on_step=told.append, deadline=time.monotonic() - 1)
    assert len(told) == 1
    assert take_steps(net, BROKEN, deadline=time.monotonic() + 60).steps == 10


def test_a_training_done_at_its_deadline_is_done(net, take_steps):
    schedule = Schedule(steps=1, learning_rate=0.1)
    assert take_steps(net, schedule, deadline=time.monotonic() - 1).steps == 1


def test_every_step_is_told_and_every_twentieth_with_losses(net, take_steps):
    told = []
    schedule = Schedule(steps=45, learning_rate=1e-3)
    report = take_steps(net, schedule, backward=net.idle, on_step=told.append)
    assert [progress.step for progress in told] == list(range(1, 46))
    assert {progress.steps for progress in told} == {45}
    losses = {progress.step: progress.losses for progress in told if progress.losses}
    assert losses == {1: (0.0,), 21: (20.0,), 41: (40.0,), 45: (44.0,)}
    assert report.loss == pytest.approx((41 + 42 + 43 + 44) / 4)  # the last tenth
    assert report.steps == 45
    assert report.wall_s >= 0


def test_the_reported_loss_is_the_mean_of_a_steps_losses(net, take_steps):
    def backward(step):
        net.idle(step)
        return torch.tensor([1.0, 2.0, 6.0])

    told = []
    schedule = Schedule(steps=1, learning_rate=1e-3)
    report = take_steps(net, schedule, backward=backward, on_step=told.append)
    assert told[0].losses == report.losses == (1.0, 2.0, 6.0)
    assert report.loss == pytest.approx(3.0)


def test_the_best_weights_outlive_the_process_that_made_them(take_steps, folder):
    """The score is best after 4 steps of 10; another process goes on after the 6th."""
    scores = {2: 0.1, 4: 0.6, 6: 0.5, 8: 0.4, 10: 0.3}
    first, kept = Net(), {}

    def score(done):
        kept[done] = copy.deepcopy(first.state_dict())
        return scores[done]

    def stop(progress):
        if progress.step == 7:
            raise KeyboardInterrupt

    chosen = Evaluations(score=score, every_steps=2)
    with pytest.raises(KeyboardInterrupt):
        take_steps(first, BROKEN, on_step=stop, checkpoint=folder, evaluations=chosen)
    resumed = Net()
    report = take_steps(resumed, BROKEN, checkpoint=folder, evaluations=chosen)
    assert (report.scores, report.best_step, report.steps) == (scores, 4, 10)
    assert all(torch.equal(kept[4][name], w) for name, w in resumed.state_dict().items())
