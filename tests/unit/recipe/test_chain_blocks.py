"""Blocks of sixty candidates, trained and shrunk in some steps on texts about the weather."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from stillhouse.device.operations import OperationTable
from stillhouse.errors import SpaceError
from stillhouse.model.modeling_chain_bert import ChainOperation
from stillhouse.recipe import chain_blocks, chain_rows
from stillhouse.recipe.chain_blocks import (
    ShrinkingStep,
    begin_shrinking,
    candidate_costs,
    fresh_block,
    load_blocks,
    train_blocks,
)
from stillhouse.recipe.chain_rows import BlockRow, open_rows, read_rows
from stillhouse.recipe.pretrain import fresh_student
from stillhouse.run.directory import RunDirectory
from stillhouse.run.settings import PretrainSettings
from stillhouse.space.chain import ChainArchitecture
from stillhouse.space.chain_counts import count_chain_flops, operation_parameters
from stillhouse.space.counts import Ends
from stillhouse.supernet.blocks import chain_states

SHRINKS = {"bins": 3, "sampled": 30, "kept": 3, "warm_epochs": 1, "steps_per_epoch": 3}


def table_of(nursery, cost_ms=None, refuses=()):
    """Latencies of all operations; without costs they go with the size."""
    block = nursery.space.block
    every = [(kind, size) for kind in block.operations for size in block.hidden_sizes]
    cost_ms = cost_ms or (lambda kind, size: operation_parameters(kind, size, 4) / 1000)
    return OperationTable(
        latency_ms={key: cost_ms(*key) for key in every if key not in refuses}
        | {("ends", size): 0.1 for size in block.hidden_sizes},
        teacher_ms=10.0,
        refused=dict.fromkeys(refuses, "no kernel"),
    )


def unlike(kind, size):
    """Costs that do not go with the size."""
    return {"M": 3.0, "F": 2.0, "S3": 0.5, "S5": 0.7, "S7": 0.9}[kind] * size / 8


def numbers(module):
    return sum(weight.numel() for weight in module.parameters())


def test_costs_are_sums_over_the_operations_as_they_are_built(make_chain_nursery):
    nursery = make_chain_nursery()
    supernet, table = fresh_block(nursery, 0), table_of(nursery, unlike, {("S5", 16)})
    parameters_N, latency_ms_N = candidate_costs(nursery.space, table)
    assert len(parameters_N) == len(latency_ms_N) == 60
    for index, block in enumerate(nursery.space.block):
        built = [supernet.operation(block, place) for place in range(len(block.operations))]
        assert parameters_N[index] == sum(map(numbers, built)), block.key
        costs_ms = [unlike(kind, block.hidden_size) for kind in block.operations]
        refused = block.hidden_size == 16 and "S5" in block.operations
        assert latency_ms_N[index] == (np.inf if refused else pytest.approx(sum(costs_ms)))


def bins_by_hand(nursery, table, bins):
    """Bins by the definition, of whole numbers: (b − 1) / B < share <= b / B for both costs."""
    costs = {}
    for index, block in enumerate(nursery.space.block):
        keys = [(kind, block.hidden_size) for kind in block.operations]
        if not set(keys) & set(table.refused):
            size = sum(operation_parameters(*key, 4) for key in keys)
            costs[index] = size, round(sum(table.latency_ms[key] for key in keys), 9)
    largest = max(costs.values(), key=lambda cost: cost[0])
    found = {}
    for index, cost in costs.items():
        places = {-int(-bins * c // top) - 1 for c, top in zip(cost, largest, strict=True)}
        if len(places) == 1 and max(places) < bins:
            found[index] = places.pop()
    return found


@pytest.mark.parametrize("refuses", [(), {("F", 16)}, {("S3", 8), ("M", 8)}])
def test_candidates_start_in_the_bin_of_both_costs_and_refused_ones_in_none(
    make_chain_nursery, talk, refuses
):
    nursery = make_chain_nursery(**SHRINKS)
    table = table_of(nursery, unlike, refuses)
    shrinkings = begin_shrinking(nursery, table)
    expected = bins_by_hand(nursery, table, 3)
    assert 5 < len(expected) < 60
    assert len(shrinkings) == 2
    for shrinking in shrinkings:
        assert shrinking.alive.tolist() == sorted(expected)
        counts = np.bincount(list(expected.values()), minlength=3)
        assert shrinking.counts_B.tolist() == counts.tolist()
        for index in shrinking.alive:
            block = nursery.space.block[int(index)]
            assert not {(kind, block.hidden_size) for kind in block.operations} & set(refuses)
    assert f"2 blocks of 60 candidates; {len(expected)} fit a bin" in talk.said[0]


def test_bins_by_size_drop_what_is_refused_alone(make_chain_nursery, talk):
    nursery = make_chain_nursery(**SHRINKS, bins_by="size")
    table = table_of(nursery, unlike, {("F", 16)})
    shrinking, _ = begin_shrinking(nursery, table)
    refused = [
        index
        for index, block in enumerate(nursery.space.block)
        if block.hidden_size == 16 and "F" in block.operations
    ]
    assert shrinking.alive.tolist() == sorted(set(range(60)) - set(refused))
    [told] = talk.said
    assert f"fit a bin of size, {len(refused)} are refused by the device" in told


def test_where_latency_goes_little_with_size_it_is_said(make_chain_nursery, talk):
    """Every operation takes as long, whatever its size: but few candidates are in one bin."""
    nursery = make_chain_nursery(operations=3, **{**SHRINKS, "bins": 40})
    begin_shrinking(nursery, table_of(nursery, lambda *_: 1.0))
    assert "Under 20% of the candidates fit" in talk.said[1]
    assert "blocks.bins_by=size" in talk.said[1]


def test_blocks_sample_and_draw_apart(make_chain_nursery):
    nursery = make_chain_nursery(**SHRINKS)
    first, second = begin_shrinking(nursery, table_of(nursery))
    again, _ = begin_shrinking(nursery, table_of(nursery))
    other, _ = begin_shrinking(make_chain_nursery("other", **SHRINKS, seed=1), table_of(nursery))
    drawn = [[one.draw(step) for step in range(20)] for one in (first, again, second, other)]
    assert drawn[0] == drawn[1]
    assert drawn[0] not in drawn[2:]
    assert drawn[2] != drawn[3]


def test_a_device_on_which_nothing_fits_is_refused(make_chain_nursery):
    """The largest candidate is by far the fastest."""
    nursery = make_chain_nursery(operations=1, **SHRINKS)
    costs = {("F", 16): 0.001}
    table = table_of(nursery, lambda *key: costs.get(key, 5.0))
    shrinking, _ = begin_shrinking(nursery, table)
    assert [nursery.space.block[int(n)].key for n in shrinking.alive] == ["16-F"]
    with pytest.raises(SpaceError, match="whose latency lies in the bin of its size"):
        begin_shrinking(nursery, table_of(nursery, lambda *_: np.nan))


def test_a_fresh_block_is_a_matter_of_seed_and_place(make_chain_nursery):
    nursery, elsewhere = make_chain_nursery(), make_chain_nursery("other", seed=1)
    before = torch.get_rng_state()
    first, again, second = (fresh_block(nursery, place) for place in (0, 0, 1))
    other = fresh_block(elsewhere, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(first, again)
    for one in (second, other):
        assert not torch.equal(one.inputs["8"].weight, first.inputs["8"].weight)
    plain = fresh_block(make_chain_nursery("plain", dropout=0.25), 0)
    rates = {m.p for m in plain.modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.25}


def equal(one, other):
    theirs = other.state_dict()
    return all(torch.equal(weight, theirs[name]) for name, weight in one.state_dict().items())


def test_the_published_half_of_each_bin_is_dropped_after_the_warm_epoch(make_chain_nursery):
    """Every loss is worked out here, by the shared modules one after the other."""
    nursery = make_chain_nursery(**SHRINKS)
    table = table_of(nursery)
    shrinkings = begin_shrinking(nursery, table)
    supernets = [fresh_block(nursery, place) for place in range(2)]
    step = ShrinkingStep(nursery, supernets, [0, 1], shrinkings)
    bins = bins_by_hand(nursery, table, 3)
    step.end_epochs(2)
    assert [one.epoch for one in step.shrinkings] == [0, 0]
    step.end_epochs(3)  # the warm one
    assert [one.epoch for one in step.shrinkings] == [1, 1]
    assert [len(one.alive) for one in step.shrinkings] == [len(bins)] * 2
    expected = [
        set(one.alive.tolist()) - worse_half(nursery, supernets[place], place, one, bins)
        for place, one in enumerate(step.shrinkings)
    ]
    step.end_epochs(8)
    for shrinking, left in zip(step.shrinkings, expected, strict=True):
        assert shrinking.epoch == 2
        assert set(shrinking.alive.tolist()) == left
    assert expected[0] != expected[1]


@torch.no_grad()
def worse_half(nursery, supernet, place, shrinking, bins):
    losses = {}
    for index in shrinking.sample().tolist():
        block = nursery.space.block[index]
        means = []
        for batch in nursery.dev():
            hidden_BTD = supernet.eval().inputs[str(block.hidden_size)](batch.states[place])
            for number in range(len(block.operations)):
                hidden_BTD = supernet.operation(block, number)(hidden_BTD, batch.text.mask)
            found_BTD = supernet.outputs[str(block.hidden_size)](hidden_BTD)
            means.append(nn.functional.mse_loss(found_BTD, batch.states[place + 1]).item())
        losses[index] = np.mean(means)
    gone = set()
    for number in range(3):
        inside = sorted((n for n in losses if bins[n] == number), key=losses.get)
        alive = sum(bins[int(n)] == number for n in shrinking.alive)
        dropped = min(len(inside) // 2, max(alive - 3, 0))
        gone |= set(inside[len(inside) - dropped :])
    return gone


def test_steps_draw_from_what_is_left(make_chain_nursery, monkeypatch):
    nursery, drawn = make_chain_nursery(**SHRINKS), []
    ask = ShrinkingStep._draw

    def spy(step, place, number):
        block = ask(step, place, number)
        alive = step.shrinkings[place].alive
        assert nursery.space.block.index(block) in alive
        assert step.shrinkings[place].epoch == number // 3
        drawn.append((number, place, len(alive)))
        return block

    monkeypatch.setattr(ShrinkingStep, "_draw", spy)
    train_blocks(nursery, table_of(nursery))
    steps = len(drawn) // 2
    assert [pair[:2] for pair in drawn] == [(n, place) for n in range(steps) for place in (0, 1)]
    assert drawn[0][2] > 3 * drawn[-1][2]


def result(nursery):
    """All that a training leaves: weights, survivors, records and facts of every block."""
    found = []
    for place in range(nursery.space.blocks):
        folder = nursery.supernet_folder(place)
        names = {path.name for path in folder.iterdir()}
        assert names == {"weights.safetensors", "shrinking.json", "supernet.json"}
        facts = facts_of(nursery, place)
        facts.pop("loss")  # that of the last tenth of the steps since the last start
        weights = (folder / "weights.safetensors").read_bytes()
        found.append((weights, (folder / "shrinking.json").read_text(), facts))
    return found


@pytest.fixture(scope="module")
def trained(open_chains, tmp_path_factory):
    """A run that nothing interrupted; to be read only."""
    nursery = open_chains(tmp_path_factory.mktemp("whole") / "run", **SHRINKS)
    train_blocks(nursery, table_of(nursery))
    return nursery


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of it, to go on with."""
    shutil.copytree(trained.run.path, tmp_path / "copy")
    return replace(trained, run=RunDirectory(path=tmp_path / "copy"))


def facts_of(nursery, place=0):
    return json.loads((nursery.supernet_folder(place) / "supernet.json").read_text())


def test_a_training_takes_the_planned_epochs(trained):
    """The epochs are counted here bin by bin, as the halves of samples of 30 fall away."""
    table = table_of(trained)
    counts = np.bincount(list(bins_by_hand(trained, table, 3).values()))
    epochs = []
    for count in counts.tolist():
        left, number = count, 1  # the warm one
        while left > 3:
            left, number = max(3, left - min(left, 30) // 2), number + 1
        epochs.append(number)
    assert max(epochs) > 3
    for place in range(2):
        folder = trained.supernet_folder(place)
        facts = facts_of(trained, place)
        assert facts["steps"] == 3 * max(epochs)
        assert facts["tokens"] == facts["steps"] * 2 * 16
        assert facts["loss"] > 0
        shrunk = json.loads((folder / "shrinking.json").read_text())
        bins = bins_by_hand(trained, table, 3)
        left = np.bincount([bins[index] for index in shrunk["alive"]], minlength=3)
        assert left.tolist() == np.minimum(counts, 3).tolist()
        assert max(record["epoch"] for record in shrunk["records"]) == max(epochs) - 1
    assert not (trained.run.work / "blocks" / "1-2").exists()


class Kills:
    """Writes checkpoints after some steps only, and stops the training after others."""

    def __init__(self, monkeypatch, *, kept, killed):
        self.killed, self.starts = sorted(killed), []
        save = chain_blocks.CheckpointFolder.save

        def save_some(folder, step, *arguments):
            if kept(step):
                save(folder, step, *arguments)
            if self.killed and step == self.killed[0]:
                del self.killed[0]
                raise KeyboardInterrupt

        monkeypatch.setattr(chain_blocks.CheckpointFolder, "save", save_some)
        monkeypatch.setattr(chain_blocks, "CHECKPOINT_EVERY_S", -1.0)

    def train(self, nursery, table):
        """Starts a training again and again until it ends."""
        while True:
            torch.manual_seed(len(self.starts))
            self.starts.append(1)
            try:
                return train_blocks(nursery, table)
            except KeyboardInterrupt:
                assert not nursery.run.supernets.exists() or not list(
                    nursery.run.supernets.iterdir()
                )


@pytest.mark.parametrize(
    "kept",
    [
        lambda _: True,
        lambda step: step % 5 == 2,
        lambda step: step % 3 == 0,
        lambda step: step == 7,
    ],
    ids=["all", "odd", "borders", "one"],
)
def test_killed_between_any_two_steps_is_as_unbroken(
    make_chain_nursery, trained, monkeypatch, kept
):
    """With checkpoints before, at and after the ends of epochs, and after the last step."""
    steps = facts_of(trained)["steps"]
    kills = Kills(monkeypatch, kept=kept, killed=range(1, steps + 1))
    nursery = make_chain_nursery("broken", **SHRINKS)
    kills.train(nursery, table_of(nursery))
    assert len(kills.starts) == steps + 1
    assert result(nursery) == result(trained)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("is_written", [False, True])
def test_killed_while_an_epoch_ends_is_as_unbroken(
    make_chain_nursery, trained, monkeypatch, place, is_written
):
    """Before and after the state of each block is written, at the end of each epoch."""
    seen, keep = set(), ShrinkingStep._keep

    def keep_or_stop(step, at, shrinking):
        if is_written:
            keep(step, at, shrinking)
        if at == place and shrinking.epoch not in seen:
            seen.add(shrinking.epoch)
            raise KeyboardInterrupt
        if not is_written:
            keep(step, at, shrinking)

    monkeypatch.setattr(ShrinkingStep, "_keep", keep_or_stop)
    kills = Kills(monkeypatch, kept=lambda step: step % 2 == 1, killed=())
    nursery = make_chain_nursery("broken", **SHRINKS)
    kills.train(nursery, table_of(nursery))
    assert seen == set(range(1, facts_of(trained)["steps"] // 3 + 1))
    assert result(nursery) == result(trained)


def test_killed_while_the_end_is_written_is_as_unbroken(make_chain_nursery, trained, monkeypatch):
    """The second block cannot be written: the first one does not count as trained either."""
    save, full = chain_blocks._save, [None]

    def save_or_stop(folder, *arguments):
        save(folder, *arguments)
        if "block-2" in folder.name and full:
            full.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(chain_blocks, "_save", save_or_stop)
    kills = Kills(monkeypatch, kept=lambda step: step > 12, killed=())
    nursery = make_chain_nursery("broken", **SHRINKS)
    kills.train(nursery, table_of(nursery))
    assert len(kills.starts) == 2
    assert result(nursery) == result(trained)
    assert facts_of(nursery)["loss"] is None  # the second start had nothing left to train


def test_what_is_trained_is_not_trained_again(trained, monkeypatch):
    def work(*_, **__):
        raise AssertionError("worked again")

    monkeypatch.setattr(chain_blocks, "run_steps", work)
    before = result(trained)
    found = train_blocks(trained, table_of(trained))
    assert result(trained) == before
    for place, supernet in enumerate(found):
        weights = load_file(trained.supernet_folder(place) / "weights.safetensors")
        assert all(torch.equal(supernet.state_dict()[name], w) for name, w in weights.items())


class Worker:
    """One of several processes; where it would wait for the others, they do their work."""

    device = torch.device("cpu")

    def __init__(self, rank, world, others=()):
        self.process_index, self.num_processes, self.others = rank, world, list(others)
        self.is_main_process = rank == 0

    def wait_for_everyone(self):
        while self.others:
            self.others.pop(0)()


@pytest.mark.parametrize("world", [2, 3])
def test_two_processes_share_the_blocks_and_find_what_one_finds(make_chain_nursery, trained, world):
    nursery = make_chain_nursery("shared", **SHRINKS)
    table, found = table_of(nursery), {}

    def start(rank, others=()):
        worker = Worker(rank, world, others)
        found[rank] = train_blocks(replace(nursery, accelerator=worker), table)

    start(0, [lambda rank=rank: start(rank) for rank in range(1, world)])
    assert result(nursery) == result(trained)
    assert sorted(found) == list(range(world))
    for supernets in found.values():
        assert all(
            equal(one, other) for one, other in zip(supernets, load_blocks(trained), strict=True)
        )
    curves = {path.name for path in nursery.run.tensorboard.iterdir()}
    assert curves == {"blocks-1", "blocks-2"}


def test_more_processes_go_on_where_one_was_killed(make_chain_nursery, trained, monkeypatch):
    """And the other way round: which process has which blocks does not matter."""
    nursery = make_chain_nursery("first", **SHRINKS)
    table = table_of(nursery)
    kills = Kills(monkeypatch, kept=lambda _: True, killed=[7])
    with pytest.raises(KeyboardInterrupt):
        train_blocks(replace(nursery, accelerator=Worker(1, 2)), table)
    assert kills.killed == []
    train_blocks(nursery, table)
    assert result(nursery) == result(trained)


def test_rows_are_the_survivors_with_their_costs_and_losses(copied):
    supernets, table = load_blocks(copied), table_of(copied, unlike)
    rows = open_rows(copied, table, supernets)
    for place, supernet in enumerate(supernets):
        mine = [row for row in rows if row.place == place]
        told = json.loads((copied.supernet_folder(place) / "shrinking.json").read_text())
        assert [copied.space.block.index(row.block) for row in mine] == told["alive"]
        for row in mine:
            block = row.block
            built = [supernet.operation(block, n) for n in range(len(block.operations))]
            assert row.parameters == sum(map(numbers, built))
            assert row.latency_ms == pytest.approx(
                sum(unlike(kind, block.hidden_size) for kind in block.operations)
            )
            means = [
                nn.functional.mse_loss(
                    supernet.eval()(block, batch.states[place], batch.text.mask),
                    batch.states[place + 1],
                ).item()
                for batch in copied.dev()
            ]
            assert row.loss == pytest.approx(np.mean(means), rel=1e-5)
            whole = ChainArchitecture(
                embedding_size=block.hidden_size, blocks=(block,), head_size=8
            )
            ends = Ends(vocab_size=1, positions=1, token_types=0, labels=0)
            pooler = 2 * block.hidden_size**2
            assert row.flops == count_chain_flops(whole, ends, length=16) - pooler
    with (copied.run.path / "blocks.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert len(written) == len(rows)
    assert (written[0]["block"], written[-1]["block"]) == ("1", "2")
    assert written[0]["operations"].split() == list(rows[0].block.operations)


def test_rows_are_read_again_as_they_were_written(copied, monkeypatch):
    supernets, table = load_blocks(copied), table_of(copied)
    rows = open_rows(copied, table, supernets)
    monkeypatch.setattr(chain_rows, "block_losses", None)
    assert open_rows(copied, table, supernets) == rows
    assert read_rows(copied.run.path / "blocks.csv") == rows
    assert all(isinstance(row, BlockRow) and isinstance(row.parameters, int) for row in rows)


@torch.no_grad()
def test_a_student_that_starts_from_the_supernets_has_their_operations(trained):
    """Between unlike widths its bridge is the way through the teacher's width."""
    start = PretrainSettings(start="supernet", dropout=0.0)
    nursery = replace(trained, settings=replace(trained.settings, pretrain=start))
    supernets = [one.eval() for one in load_blocks(nursery)]
    block = nursery.space.block
    batch = nursery.dev()[0]
    for first, second in [(7, 47), (58, 12), (3, 22)]:
        blocks = [block[first], block[second]]
        student = fresh_student(nursery, nursery.space.architecture(blocks, 8)).eval()
        parts = student.base_model.encoder.block
        hidden_BTD = supernets[0].begin(blocks[0].hidden_size, batch.states[0])
        for n, operation in enumerate(parts[0].operation):
            assert isinstance(operation, ChainOperation)
            assert equal(operation, supernets[0].operation(blocks[0], n))
            hidden_BTD = operation(hidden_BTD, batch.text.mask)
        for n, operation in enumerate(parts[1].operation):
            assert equal(operation, supernets[1].operation(blocks[1], n))
        is_bridged = blocks[0].hidden_size != blocks[1].hidden_size
        assert (parts[1].bridge is not None) == is_bridged
        if is_bridged:
            last_BTD = parts[1](hidden_BTD, batch.text.mask)
            found_BTD = supernets[1].end(blocks[1].hidden_size, last_BTD)
            expected_BTD = chain_states(supernets, blocks, batch, precision="float32")
            limit = 1e-5 * expected_BTD.abs().max().item()
            torch.testing.assert_close(found_BTD, expected_BTD, rtol=0, atol=limit)
    assert {block[n].hidden_size for n in (7, 12)} == {8}
    assert {block[n].hidden_size for n in (47, 58)} == {16}


def test_training_lowers_the_losses(make_chain_nursery):
    nursery = make_chain_nursery(**{**SHRINKS, "warm_epochs": 12}, dropout=0.0)
    table, dev = table_of(nursery), nursery.dev()

    def mean_loss(supernets):
        blocks = list(nursery.space.block)
        return [
            np.mean(chain_blocks.block_losses(one, n, blocks, dev, precision="float32"))
            for n, one in enumerate(supernets)
        ]

    before = mean_loss([fresh_block(nursery, place) for place in range(2)])
    after = mean_loss(train_blocks(nursery, table))
    assert all(now < 0.9 * then for now, then in zip(after, before, strict=True))
