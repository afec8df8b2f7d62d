"""Supernets of twelve subnets, trained for some steps on a corpus of texts about the weather."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from stillhouse.device.latency import Workload
from stillhouse.errors import SettingsError
from stillhouse.model.encoders import load_encoder
from stillhouse.recipe import supernets
from stillhouse.recipe.autodistil import open_nursery, sub_spaces
from stillhouse.recipe.selection import Scales
from stillhouse.recipe.supernets import score_subnets, train_supernet
from stillhouse.run.directory import RunDirectory, open_run
from stillhouse.run.settings import settings_from_dict
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace
from stillhouse.supernet.sandwich import held_out_losses

STEPS = 5
SPACE = SearchSpace(
    (
        Dimension("layers", (1, 2)),
        Dimension("hidden_size", (16, 32)),
        Dimension("ffn_size", (32,)),
        Dimension("heads", (2, 3, 4)),
        Dimension("head_size", (8,)),
    )
)
TEACHER = BertArchitecture(layers=4, hidden_size=32, heads=4, ffn_size=128)


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=True)


@pytest.fixture
def make_nursery(weather_encoder_folder, weather_text, accelerator, talk, tmp_path):
    """Opens the nursery of a run by the folder's name; a seed and a dropout may be given."""

    def make(name="run", seed=0, **more):
        settings = settings_from_dict(
            {
                "teacher": {"model": str(weather_encoder_folder)},
                "corpus": {"name": str(weather_text), "length": 16},
                "supernet": {"steps": STEPS, "batch_size": 4, "learning_rate": 0.01, **more},
                "distill": {"precision": "float32"},
                "seed": seed,
            }
        )
        path = tmp_path / name
        with open_run(path, settings):
            pass
        teacher = load_encoder(str(weather_encoder_folder))
        return open_nursery(settings, RunDirectory(path=path), talk, teacher, accelerator)

    return make


@pytest.fixture
def nursery(make_nursery):
    return make_nursery()


def weights_of(supernet):
    return {name: weight.clone() for name, weight in supernet.encoder.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def forbid_work(monkeypatch):
    """Lets whatever takes long fail from now on."""

    def work(*_, **__):
        raise AssertionError("worked again")

    def forbid():
        for name in ("run_steps", "held_out_losses"):
            monkeypatch.setattr(supernets, name, work)

    return forbid


def test_a_trained_supernet_is_kept_with_its_facts(nursery):
    supernet = train_supernet(nursery, "mine", SPACE)
    folder = nursery.run.path / "supernets" / "mine"
    assert {path.name for path in folder.iterdir()} == {"weights.safetensors", "supernet.json"}
    assert equal(load_file(folder / "weights.safetensors"), weights_of(supernet))
    facts = json.loads((folder / "supernet.json").read_text())
    assert facts.pop("wall_s") > 0
    assert facts.pop("loss") > 0
    assert facts == {"students": 12, "steps": STEPS, "tokens": STEPS * 4 * 16}
    assert not (nursery.run.work / "supernets" / "mine").exists()


def test_training_moves_what_subnets_reach_and_lowers_the_loss(make_nursery):
    nursery = make_nursery(steps=40, dropout=0.0)
    fresh = nursery.fresh(SPACE)
    before = weights_of(fresh)
    reached = {id(parameter) for parameter in fresh.reached()}
    names = {name for name, p in fresh.encoder.named_parameters() if id(p) in reached}

    def losses(supernet):
        held_out = nursery.corpus.held_out
        return held_out_losses(supernet, nursery.lesson, held_out, list(SPACE), batch_size=4)

    loss_before = losses(fresh)
    supernet = train_supernet(nursery, "mine", SPACE)
    after = weights_of(supernet)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == names & before.keys()
    assert "pooler.dense.weight" not in moved
    pairs = zip(losses(supernet), loss_before, strict=True)
    assert all(now < 0.8 * then for now, then in pairs)


def test_a_trained_supernet_is_loaded(make_nursery, forbid_work):
    nursery = make_nursery()
    supernet = train_supernet(nursery, "mine", SPACE)
    scored = score_subnets(nursery, "mine", SPACE, supernet)
    forbid_work()
    nursery = make_nursery()
    again = train_supernet(nursery, "mine", SPACE)
    assert equal(weights_of(again), weights_of(supernet))
    assert score_subnets(nursery, "mine", SPACE, again) == scored


def test_one_seed_is_one_training(make_nursery):
    """With dropout, whatever was drawn by chance before; what the caller draws stays his own."""

    def trained(name, seed, chance):
        nursery = make_nursery(name, seed=seed, dropout=0.3)
        torch.manual_seed(chance)
        expected = torch.get_rng_state()
        weights = weights_of(train_supernet(nursery, "mine", SPACE))
        assert torch.equal(torch.get_rng_state(), expected)
        return weights

    first = trained("first", seed=1, chance=1)
    assert equal(trained("same", seed=1, chance=2), first)
    assert not equal(trained("other", seed=2, chance=1), first)
    no_dropout = make_nursery("without", seed=1, dropout=0.0)
    assert not equal(weights_of(train_supernet(no_dropout, "mine", SPACE)), first)


def test_an_interrupted_training_ends_with_the_weights_of_an_unbroken_one(
    make_nursery, monkeypatch
):
    expected = weights_of(train_supernet(make_nursery("whole", dropout=0.3), "mine", SPACE))
    monkeypatch.setitem(supernets.CheckpointFolder.__init__.__kwdefaults__, "every_s", 0.0)

    class Stop:
        def __init__(self, after):
            self.after = after

        def begin(self, task, total):
            pass

        def advance(self, done, detail=""):
            if done == self.after:
                raise KeyboardInterrupt

        def end(self):
            pass

    broken = replace(make_nursery("broken", dropout=0.3), narrator=Stop(after=4 / STEPS))
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        train_supernet(broken, "mine", SPACE)
    assert not broken.folder("mine").exists()
    resumed = make_nursery("broken", dropout=0.3)
    checkpoints = resumed.run.work / "supernets" / "mine"
    assert [path.name for path in checkpoints.iterdir()] == ["step-3"]
    torch.manual_seed(6)
    assert equal(weights_of(train_supernet(resumed, "mine", SPACE)), expected)
    facts = json.loads((resumed.folder("mine") / "supernet.json").read_text())
    assert facts["steps"] == STEPS


def test_scores_are_the_held_out_losses_with_true_counts(nursery):
    supernet = train_supernet(nursery, "mine", SPACE)
    scored = score_subnets(nursery, "mine", SPACE, supernet)
    assert [one.architecture for one in scored] == list(SPACE)
    assert {one.space for one in scored} == {"mine"}
    held_out = nursery.corpus.held_out
    losses = held_out_losses(supernet, nursery.lesson, held_out, list(SPACE), batch_size=4)
    assert [one.loss for one in scored] == losses
    assert len(set(losses)) == len(losses)

    with (nursery.folder("mine") / "subnets.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scales = Scales(nursery.teacher.model.config, nursery.settings.limit, None, Workload(length=16))
    for row, subnet in zip(rows, scored, strict=True):
        assert json.loads(row["architecture"]) == subnet.architecture.to_dict()
        cost = scales.cost(subnet.architecture)
        assert (int(row["parameters"]), int(row["flops"])) == (cost.parameters, cost.flops)
        assert float(row["flops_fraction"]) == cost.flops_fraction
        assert row["length"] == "16"


def test_supernets_of_one_run_are_kept_apart(make_nursery):
    nursery = make_nursery(steps=1)
    narrow = SearchSpace((Dimension("layers", (1,)), *SPACE.dimensions[1:]))
    first = weights_of(train_supernet(nursery, "first", SPACE))
    second = weights_of(train_supernet(nursery, "second", narrow))
    assert not equal(first, second)
    assert equal(weights_of(train_supernet(nursery, "first", SPACE)), first)
    assert {path.name for path in nursery.run.supernets.iterdir()} == {"first", "second"}


def test_workers_share_a_batch_evenly(nursery, talk):
    message = r"supernet\.batch_size 4 must be a multiple of the 3 workers"
    workers = SimpleNamespace(num_processes=3)
    with pytest.raises(SettingsError, match=message):
        open_nursery(nursery.settings, nursery.run, talk, nursery.teacher, workers)


def test_sub_spaces_are_in_the_teachers_proportions():
    spaces = sub_spaces(settings_from_dict({"supernet": {"spaces": ["tiny", "base"]}}), TEACHER)
    assert {name: len(space) for name, space in spaces.items()} == {"tiny": 16, "base": 32}


def test_one_shot_is_one_box_around_all_spaces():
    """Depths 1 to 4, one width, 2 or 3 heads, ratios 2 to 4 by halves."""
    supernet = {"spaces": ["tiny", "small"], "one_shot": True}
    spaces = sub_spaces(settings_from_dict({"supernet": supernet}), TEACHER)
    assert list(spaces) == ["one-shot"]
    assert len(spaces["one-shot"]) == 4 * 1 * 2 * 5
    apart = sub_spaces(settings_from_dict({"supernet": {"spaces": ["tiny", "small"]}}), TEACHER)
    assert {one for space in apart.values() for one in space} < set(spaces["one-shot"])
