import json

import pytest
import torch
from torch import nn

from stillhouse.distill.checkpoint import BestWeights, CheckpointFolder
from stillhouse.errors import TrainingError


def trained(*, seed=0, steps=3, groups=2):
    """A small network and its optimiser after some steps."""
    torch.manual_seed(seed)
    modules = nn.ModuleList([nn.Linear(4, 3), nn.LayerNorm(3)])
    weights = list(modules.parameters())
    parts = [weights[:2], weights[2:]] if groups == 2 else [weights]
    optimizer = torch.optim.AdamW([{"params": part} for part in parts], lr=0.1)
    for _ in range(steps):
        step(modules, optimizer)
    return modules, optimizer


def step(modules, optimizer):
    optimizer.zero_grad()
    modules[1](modules[0](torch.randn(5, 4))).square().sum().backward()
    optimizer.step()


def equal(one, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


@pytest.fixture
def folder(tmp_path):
    return CheckpointFolder(path=tmp_path / "checkpoints", fingerprint="mine")


def test_what_is_saved_goes_on_to_the_same_numbers(folder):
    modules, optimizer = trained()
    optimizer.param_groups[0]["lr"] = 0.03
    folder.save(3, modules, optimizer)
    for _ in range(4):
        step(modules, optimizer)

    other, other_optimizer = trained(seed=8, steps=1)
    assert folder.load(other, other_optimizer) == 3
    assert [group["lr"] for group in other_optimizer.param_groups] == [0.03, 0.1]
    for _ in range(4):  # the inputs are drawn from the global state, which was restored
        step(other, other_optimizer)
    assert equal(modules, other)


def test_weights_that_two_modules_share_are_saved(folder):
    modules, optimizer = trained()
    modules.append(modules[0])
    folder.save(3, modules, optimizer)
    other, other_optimizer = trained(seed=8, steps=1)
    other.append(other[0])
    folder.load(other, other_optimizer)
    assert equal(modules, other)
    assert other[0].weight is other[2].weight


def test_nothing_saved_is_step_zero(folder):
    modules, optimizer = trained()
    assert folder.load(modules, optimizer) == 0
    assert equal(modules, trained()[0])


def test_a_checkpoint_of_another_training_is_ignored(folder, tmp_path):
    folder.save(3, *trained())
    other = CheckpointFolder(path=tmp_path / "checkpoints", fingerprint="other")
    modules, optimizer = trained(seed=5)
    assert other.load(modules, optimizer) == 0
    assert equal(modules, trained(seed=5)[0])


def test_an_incomplete_checkpoint_is_ignored(folder):
    folder.save(3, *trained())
    (folder.path / "step-3" / "complete.json").unlink()
    assert folder.load(*trained()) == 0


def test_the_newest_of_several_is_taken(folder):
    """By number, not by name; two folders lie there when a crash came between save and removal."""
    folder.save(9, *trained(steps=1))
    (folder.path / "step-9").rename(folder.path.with_name("kept"))
    modules, optimizer = trained(steps=5)
    folder.save(10, modules, optimizer)
    folder.path.with_name("kept").rename(folder.path / "step-9")
    other, other_optimizer = trained(seed=4)
    assert folder.load(other, other_optimizer) == 10
    assert equal(other, modules)


def test_older_checkpoints_go_when_a_newer_is_complete(folder):
    modules, optimizer = trained()
    folder.save(3, modules, optimizer)
    folder.save(6, modules, optimizer)
    assert [path.name for path in folder.path.iterdir()] == ["step-6"]


def test_a_failed_save_leaves_the_older_checkpoint(folder, monkeypatch):
    modules, optimizer = trained()
    folder.save(3, modules, optimizer)

    def fill_the_disk(*args):
        raise OSError("no space left")

    monkeypatch.setattr("stillhouse.distill.checkpoint._flatten_optimizer", fill_the_disk)
    with pytest.raises(OSError, match="no space left"):
        folder.save(6, modules, optimizer)
    assert [path.name for path in folder.path.iterdir()] == ["step-3"]
    assert folder.load(modules, optimizer) == 3


def test_only_safetensors_and_json_are_written(folder):
    folder.save(3, *trained())
    names = {path.name for path in folder.path.rglob("*") if path.is_file()}
    assert names == {"weights.safetensors", "optimizer.safetensors", "complete.json"}
    state = json.loads((folder.path / "step-3" / "complete.json").read_text())
    assert (state["step"], state["fingerprint"]) == (3, "mine")


def test_other_parameter_groups_are_refused(folder):
    folder.save(3, *trained(groups=1))
    with pytest.raises(TrainingError, match="1 parameter groups, the training 2"):
        folder.load(*trained())


def test_clearing_removes_everything(folder):
    folder.clear()
    folder.save(3, *trained())
    folder.clear()
    assert not folder.path.exists()
    assert folder.load(*trained()) == 0


def test_the_best_weights_are_copies():
    modules, optimizer = trained()
    best = BestWeights()
    assert (best.step, best.count_since, best.weights) == (None, 0, {})
    best.offer(3, 0.5, modules)
    kept = {name: weight.clone() for name, weight in modules.state_dict().items()}
    step(modules, optimizer)
    for done, score in ((4, 0.4), (5, 0.5)):
        best.offer(done, score, modules)
    assert (best.step, best.count_since) == (3, 2)
    assert all(torch.equal(best.weights[name], weight) for name, weight in kept.items())
    best.offer(6, 0.6, modules)
    assert (best.step, best.count_since) == (6, 0)
    assert torch.equal(best.weights["0.weight"], modules[0].weight)


def test_the_best_weights_are_saved_beside_the_last(folder):
    modules, optimizer = trained()
    best = BestWeights()
    best.offer(3, 1 / 3, modules)
    expected = {name: weight.clone() for name, weight in modules.state_dict().items()}
    step(modules, optimizer)
    best.offer(4, 0.25, modules)
    folder.save(4, modules, optimizer, best)
    other, other_optimizer = trained(seed=8)
    found = BestWeights()
    assert folder.load(other, other_optimizer, found) == 4
    assert equal(other, modules)
    assert found.scores == {3: 1 / 3, 4: 0.25}
    assert found.weights.keys() == expected.keys()
    assert all(torch.equal(found.weights[name], weight) for name, weight in expected.items())


def test_without_evaluations_nothing_more_is_saved(folder):
    modules, optimizer = trained()
    folder.save(3, modules, optimizer, BestWeights())
    assert not (folder.path / "step-3" / "best.safetensors").exists()
    found = BestWeights()
    folder.load(modules, optimizer, found)
    assert (found.scores, found.weights) == ({}, {})


def test_a_checkpoint_that_is_half_removed_is_none(folder, monkeypatch):
    """A process may be killed while it clears."""
    modules, optimizer = trained()
    folder.save(3, modules, optimizer)

    def killed(path, **_):
        (path / "step-3" / "optimizer.safetensors").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            folder.clear()
    assert folder.load(*trained(seed=8)) == 0
