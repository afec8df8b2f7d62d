"""Selection from tables of a few candidates, with weights and devices that are made up."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from stillhouse.device.latency import Comparison, Latency, Workload
from stillhouse.device.operations import OperationTable
from stillhouse.device.table import read_table
from stillhouse.errors import DeviceError, ExportError
from stillhouse.model.chains import chain_config
from stillhouse.model.modeling_chain_bert import ChainBertModel
from stillhouse.recipe import chain_selection, chain_table
from stillhouse.recipe.chain_blocks import fresh_block
from stillhouse.recipe.chain_rows import block_row
from stillhouse.recipe.chain_selection import (
    mlm_loss,
    read_selected,
    select_students,
    selected_folders,
)
from stillhouse.recipe.chain_table import ChainTable
from stillhouse.run.device_settings import LimitSettings
from stillhouse.run.settings import SelectSettings
from stillhouse.space.chain import ChainArchitecture, chain_from_dict
from stillhouse.space.chain_counts import count_chain_flops, count_chain_parameters
from stillhouse.space.counts import Ends
from stillhouse.supernet.blocks import chain_states

TEACHER_MS = 6.0
# The texts have 39 different words; the teacher has 32 positions and two kinds of segments.
ENDS = Ends(vocab_size=39, positions=32, token_types=2, labels=0)
# Four layers of 32: four projections of 32 × 32, twice 32 × 128, scores and context of 16 tokens.
LAYER_FLOPS = 2 * 16 * (4 * 32 * 32 + 2 * 32 * 128 + 2 * 16 * 32)
TEACHER_FLOPS = 4 * LAYER_FLOPS + 2 * 32 * 32


def operations(nursery):
    """Latencies that do not go with the size."""
    costs = {"M": 0.6, "F": 0.5, "S3": 0.11, "S5": 0.13, "S7": 0.17}
    latency_ms = {
        (kind, size): ms * size / 8 + 0.05
        for kind, ms in costs.items()
        for size in nursery.space.block.hidden_sizes
    }
    ends = {("ends", size): 0.3 + size / 100 for size in nursery.space.block.hidden_sizes}
    return OperationTable(latency_ms=latency_ms | ends, teacher_ms=TEACHER_MS)


class Case:
    """Some candidates of each block with losses by chance, and all chains of them."""

    def __init__(self, nursery, *, rows, seed=0):
        drawn = np.random.default_rng(seed)
        space, self.nursery, self.operations = nursery.space, nursery, operations(nursery)
        self.rows = [
            block_row(nursery, self.operations, place, space.block[int(n)], float(drawn.random()))
            for place in range(space.blocks)
            for n in drawn.choice(space.block.size, size=rows, replace=False)
        ]
        self.table = ChainTable(nursery, self.operations, self.rows)
        by_place = [[r for r in self.rows if r.place == n] for n in range(space.blocks)]
        self.all = {
            size: [
                (
                    space.architecture([row.block for row in chosen], size),
                    sum(r.loss for r in chosen),
                )
                for chosen in itertools.product(*by_place)
            ]
            for size in space.embedding_sizes
        }

    def costs(self, chain):
        """What a whole architecture costs, by the names of limits."""
        parameters = count_chain_parameters(chain, ENDS).total
        ms = self.operations.chain_ms(chain)
        return {
            "parameters": parameters,
            "params_m": parameters / 1e6,
            "size_mb": parameters * 4 / 1e6,
            "latency_ms": ms,
            "speedup": TEACHER_MS / ms,
            "flops_fraction": count_chain_flops(chain, ENDS, length=16) / TEACHER_FLOPS,
        }

    def ratios(self, chain, limits):
        """By how much a chain is over each limit; 1 is at it."""
        costs = self.costs(chain)
        return [
            bound / costs[name] if name == "speedup" else costs[name] / bound
            for name, bound in limits.items()
        ]

    def brute_force(self, limits, count, sizes):
        """The lowest losses within limits, at the first width of embeddings that has any."""
        for size in sizes:
            within = [pair for pair in self.all[size] if max(self.ratios(pair[0], limits)) <= 1]
            if within:
                return sorted(within, key=lambda pair: pair[1])[:count]
        return []


@pytest.fixture(scope="module")
def nursery(open_chains, tmp_path_factory):
    """Four blocks, a layer of the teacher each; for tests that write nothing."""
    return open_chains(tmp_path_factory.mktemp("chains") / "run", count=4)


@pytest.fixture(scope="module")
def case(nursery):
    return Case(nursery, rows=4)


def test_counts_are_those_of_the_built_models(case, nursery):
    assert nursery.space.embedding_sizes == (8, 16, 24)
    assert case.table.teacher_flops == TEACHER_FLOPS
    for size in nursery.space.embedding_sizes:
        for chain, _ in case.all[size][::64]:
            model = ChainBertModel(chain_config(chain, nursery.teacher.encoder.model.config))
            built = sum(weight.numel() for weight in model.parameters())
            assert case.table.parameters(chain) == built == case.costs(chain)["parameters"]
            assert case.table.flops(chain) == count_chain_flops(
                chain, ENDS, length=nursery.workload.length
            )


NAMES = ("parameters", "params_m", "size_mb", "latency_ms", "speedup", "flops_fraction")


def random_limits(case, drawn):
    """Limits near what some chain costs, and a few that are looser or tighter."""
    size = int(drawn.choice(case.nursery.space.embedding_sizes))
    chain, _ = case.all[size][drawn.integers(len(case.all[size]))]
    costs = case.costs(chain)
    names = drawn.choice(NAMES, size=drawn.integers(1, 4), replace=False)
    return {str(name): costs[name] * float(drawn.uniform(0.4, 1.4)) for name in names}


def check(case, limits, count=7):
    asked = LimitSettings(**limits)
    expected = case.brute_force(limits, count, case.table.embedding_sizes(asked))
    if not expected:
        with pytest.raises(DeviceError, match="no student of this search is within"):
            case.table.select(asked, count)
        return 0
    found = case.table.select(asked, count)
    assert [chain.key for chain, _ in found] == [chain.key for chain, _ in expected], limits
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected])
    return len(found)


def test_selection_is_that_of_brute_force_over_whole_architectures(case):
    drawn = np.random.default_rng(3)
    found = [check(case, random_limits(case, drawn)) for _ in range(60)]
    assert found.count(0) > 5
    assert found.count(7) > 20
    assert len(set(found)) > 3


@pytest.mark.parametrize("blocks", [1, 2])
def test_other_numbers_of_blocks(open_chains, tmp_path, blocks):
    case = Case(open_chains(tmp_path / "run", count=blocks), rows=20, seed=blocks)
    drawn = np.random.default_rng(4)
    assert len({check(case, random_limits(case, drawn), count=20) for _ in range(15)}) > 2


@pytest.mark.parametrize("name", ["parameters", "params_m", "size_mb", "flops_fraction"])
def test_what_costs_exactly_the_limit_is_within(case, name):
    """Whatever its unit: the limit that is printed for a chain finds that chain."""
    for chain, _ in case.all[24][::3]:
        bound = case.costs(chain)[name]
        found = [one for one, _ in case.table.select(LimitSettings(**{name: bound}), 256)]
        assert chain in found
        assert all(case.costs(one)[name] <= bound for one in found)


def test_the_embeddings_are_as_wide_as_half_of_the_parameters_allows(case):
    """24 × 39 words are 936 numbers, 16 × 39 are 624."""

    def sizes(**limits):
        return case.table.embedding_sizes(LimitSettings(**limits))

    assert sizes() == sizes(latency_ms=1) == sizes(parameters=1872) == [24, 16, 8]
    assert sizes(parameters=1871) == sizes(params_m=0.001248) == [16, 8]
    assert sizes(size_mb=1248 * 4e-6) == [16, 8]
    assert sizes(size_mb=1247 * 4e-6) == sizes(parameters=3, params_m=1) == [8]


def test_narrower_embeddings_are_taken_where_nothing_is_left_for_the_blocks(case):
    """The word table of the width that is wanted takes less than half, the positions the rest."""
    smallest = min(case.table.parameters(chain) for chain, _ in case.all[8])
    limits = {"parameters": smallest}
    assert case.table.embedding_sizes(LimitSettings(**limits))[0] > 8
    ((chain, _),) = case.table.select(LimitSettings(**limits), 7)
    assert chain.embedding_size == 8
    assert case.table.parameters(chain) == smallest


def test_the_nearest_is_named_where_none_is_within(case):
    drawn, told = np.random.default_rng(5), 0
    while told < 12:
        limits = random_limits(case, drawn)
        hard = {name: x * 3 if name == "speedup" else x / 3 for name, x in limits.items()}
        asked = LimitSettings(**hard)
        sizes = case.table.embedding_sizes(asked)
        if case.brute_force(hard, 1, sizes):
            continue
        everything = [pair for size in sizes for pair in case.all[size]]
        least = min(max(case.ratios(chain, hard)) for chain, _ in everything)
        with pytest.raises(DeviceError) as caught:
            case.table.select(asked, 7)
        message = str(caught.value)
        (near,) = (chain for chain, _ in everything if f"({chain.label})" in message)
        costs = case.costs(near)
        assert max(case.ratios(near, hard)) == pytest.approx(least, rel=1e-9)
        assert (
            f"the nearest has {costs['params_m']:.3g} M parameters, {costs['latency_ms']:.3g} ms, "
            f"{costs['flops_fraction']:.3g} of the teacher's FLOPs"
        ) in message
        assert all(f"{name}={bound:g}" in message for name, bound in hard.items())
        told += 1


def test_a_width_that_the_device_refuses_is_never_selected(nursery):
    case = Case(nursery, rows=6)
    rows = [row for row in case.rows if row.block.hidden_size == 8]
    known = case.operations.latency_ms
    refused = {key: "no kernel" for key in known if key[1] == 16 and key[0] != "ends"}
    table = ChainTable(
        nursery,
        replace(
            case.operations,
            latency_ms={key: ms for key, ms in known.items() if key[1] == 8},
            refused=refused,
        ),
        rows,
    )
    found = table.select(LimitSettings(speedup=0.5), 1000)
    assert {block.hidden_size for chain, _ in found for block in chain.blocks} == {8}
    with pytest.raises(DeviceError, match=r"the nearest has .* 8: "):
        table.select(LimitSettings(latency_ms=0.01), 5)


class Chip:
    """A device: half of what the table says, but some chains are slower, and some uncertain.

    A chain takes 10 MB and what `memory_mb` tells of it.
    """

    name = "chip"

    def __init__(self, operations, slow=None, high=1.0, memory_mb=None):
        self.operations, self.slow, self.high, self.asked = operations, slow or {}, high, []
        self.memory_mb, self.weighed = memory_mb or (lambda chain: parameters_of(chain) / 1e3), []

    def compare(self, architecture, workload):
        self.asked.append(architecture.key)
        ms = self.operations.chain_ms(architecture) / 2 * self.slow.get(architecture.key, 1.0)
        return Comparison(
            student=latency(ms, ms * self.high, workload),
            teacher=latency(TEACHER_MS, 9.0, workload),
        )

    def peak_memory_mb(self, architecture, workload):
        self.weighed.append(architecture)
        return 10.0 + self.memory_mb(architecture)


def parameters_of(chain):
    return count_chain_parameters(chain, ENDS).total


def latency(ms, high_ms, workload):
    return Latency(
        median_ms=ms,
        low_ms=ms,
        high_ms=high_ms,
        p10_ms=ms,
        p90_ms=ms,
        runs=20,
        how="measured",
        device="chip",
        workload=workload,
    )


class Bench:
    """A run with untrained supernets of two blocks, and a table of five candidates each."""

    def __init__(self, nursery, **chip):
        self.supernets = [fresh_block(nursery, place) for place in range(2)]
        self.case = Case(nursery, rows=5)
        self.chip = Chip(self.case.operations, **chip)
        self.nursery = replace(nursery, device=self.chip)

    def select(self, *budgets):
        return select_students(
            self.nursery, self.case.operations, self.case.rows, self.supernets, budgets
        )

    def ranking(self, limits):
        """The proposed chains, best complete model first; by plain networks and float64."""
        sizes = self.case.table.embedding_sizes(LimitSettings(**limits))
        count = self.nursery.settings.select.candidates
        proposed = [chain for chain, _ in self.case.brute_force(limits, count, sizes)]
        return sorted(proposed, key=lambda chain: naive_mlm_loss(self, chain))


@torch.no_grad()
def naive_mlm_loss(bench, chain):
    """Cross-entropy over all hidden tokens of all batches."""
    losses = []
    for batch in bench.nursery.dev():
        state_BTD = batch.states[0]
        for supernet, block in zip(bench.supernets, chain.blocks, strict=True):
            size = str(block.hidden_size)
            state_BTD = supernet.eval().inputs[size](state_BTD)
            for place in range(len(block.operations)):
                state_BTD = supernet.operation(block, place)(state_BTD, batch.text.mask)
            state_BTD = supernet.outputs[size](state_BTD)
        scores_BTV = bench.nursery.teacher.head(state_BTD)
        scores_NV = scores_BTV.reshape(-1, scores_BTV.shape[-1])[batch.text.places]
        losses.append(F.cross_entropy(scores_NV.double(), batch.text.labels, reduction="none"))
    return torch.cat(losses).mean().item()


@pytest.fixture
def make_bench(make_chain_nursery):
    def make(name="run", *, device=None, dev_batches=2, **chip):
        nursery = make_chain_nursery(name, device=device, dev_batches=dev_batches)
        select = SelectSettings(candidates=12, runners_up=3)
        nursery = replace(nursery, settings=replace(nursery.settings, select=select))
        return Bench(nursery, **chip)

    return make


SMALL = LimitSettings(params_m=0.0062)
FAST = LimitSettings(latency_ms=2.2)


def test_the_loss_of_a_complete_model_is_the_mean_over_all_hidden_tokens(make_bench):
    bench = make_bench(dev_batches=3)
    dev = bench.nursery.dev()
    assert len({len(batch.text.labels) for batch in dev}) == 2  # a mean of means is another number
    for chain, _ in bench.case.all[16]:
        found = mlm_loss(bench.nursery, bench.supernets, chain.blocks, dev)
        assert found == pytest.approx(naive_mlm_loss(bench, chain), rel=1e-5)


def test_the_best_complete_model_of_each_budget_is_noted(make_bench):
    bench = make_bench()
    folders = bench.select(SMALL, FAST)
    selected = bench.nursery.run.path / "selected"
    assert folders == [selected / "1", selected / "2"] == selected_folders(bench.nursery.run)
    for folder, limits in zip(folders, (SMALL, FAST), strict=True):
        ranking = bench.ranking(limits.given())
        assert 4 < len(ranking) <= 12
        told = read_selected(folder)
        best = chain_from_dict(told["architecture"])
        costs = bench.case.costs(best)
        assert best.key == ranking[0].key
        others = [chain_from_dict(one["architecture"]).key for one in told["runners_up"]]
        assert others == [chain.key for chain in ranking[1:4]]
        assert told["mlm_loss"] == pytest.approx(naive_mlm_loss(bench, best), rel=1e-5)
        losses = {chain.key: loss for chain, loss in bench.case.all[best.embedding_size]}
        assert told["block_loss"] == pytest.approx(losses[best.key])
        assert told["predicted_latency_ms"] == pytest.approx(costs["latency_ms"])
        assert told["latency_ms"] == pytest.approx(costs["latency_ms"] / 2)
        assert (told["latency_how"], told["device"]) == ("measured", "chip")
        assert told["teacher_latency_ms"] == TEACHER_MS
        assert told["parameters"] == costs["parameters"]
        assert told["size_mb"] == pytest.approx(costs["size_mb"])
        assert told["flops_fraction"] == pytest.approx(costs["flops_fraction"])
        assert told["memory_mb"] == pytest.approx(10 + costs["parameters"] / 1e3)
        assert told["limits"] == limits.given()
        assert told["violations"].keys() == limits.given().keys()
        assert max(told["violations"].values()) <= 0
        assert told["within_limit"] is True
        assert told["workload_label"] == Workload(length=16, threads=1).label


@pytest.fixture
def bench_of_8_bits(make_bench, monkeypatch):
    """Its chains answer as in float32, but that of `bench.unwritten`, which has no file."""
    bench = make_bench(device={"kind": "onnxruntime-cpu", "precision": "int8"})
    bench.unwritten, bench.written = set(), []

    def states(served, supernets, blocks, dev):
        assert served.precision == "int8"
        if blocks in bench.unwritten:
            raise ExportError("no such operator")
        bench.written.append(blocks)
        for batch in dev:
            yield chain_states(supernets, blocks, batch, precision="float32")

    monkeypatch.setattr(chain_selection, "served_states", states)
    return bench


def test_complete_models_are_compared_as_the_device_serves_them(bench_of_8_bits):
    bench = bench_of_8_bits
    (folder,) = bench.select(SMALL)
    ranking = bench.ranking(SMALL.given())
    told = read_selected(folder)
    assert {chain.blocks for chain in ranking} == set(bench.written)
    assert chain_from_dict(told["architecture"]).key == ranking[0].key
    assert told["quality_precision"] == told["served_precision"] == "int8"


def test_a_model_that_cannot_be_written_is_told_and_left_out(bench_of_8_bits, talk):
    bench = bench_of_8_bits
    first, second, *_ = bench.ranking(SMALL.given())
    bench.unwritten.add(first.blocks)
    (folder,) = bench.select(SMALL)
    assert chain_from_dict(read_selected(folder)["architecture"]).key == second.key
    assert f"{first.label} is left out: no such operator" in talk.said

    bench.unwritten.update(chain.blocks for chain, _ in bench.case.all[8])
    with pytest.raises(DeviceError, match=r"chip can serve none of the \d+ students"):
        bench.select(FAST)


def test_a_budget_that_was_asked_before_costs_nothing(make_bench, monkeypatch):
    bench = make_bench()
    before = bench.select(SMALL, FAST)
    texts = [(folder / "selected.json").read_bytes() for folder in before]

    def work(*_, **__):
        raise AssertionError("worked again")

    with monkeypatch.context() as patched:
        patched.setattr(chain_table, "select_lowest", work)
        for name in ("mlm_loss", "chain_states"):
            patched.setattr(chain_selection, name, work)
        patched.setattr(type(bench.nursery), "dev", work)
        patched.setattr(bench.chip, "compare", work)
        assert bench.select(FAST) == before[1:]
        assert bench.select(FAST, SMALL, FAST) == [before[1], before[0], before[1]]
    assert [(folder / "selected.json").read_bytes() for folder in before] == texts
    (third,) = bench.select(LimitSettings(params_m=0.0062, latency_ms=2.2))
    assert third.name == "3"
    assert bench.select(SMALL) == before[:1]


def test_the_same_budget_twice_is_one_student(make_bench):
    bench = make_bench()
    first, second = bench.select(SMALL, LimitSettings(params_m=0.0062))
    assert first == second
    assert len(selected_folders(bench.nursery.run)) == 1


def test_numbers_go_on_behind_the_largest(make_bench):
    bench = make_bench()
    for name in ("2", "10", "notes", ".11.tmp"):
        folder = bench.nursery.run.path / "selected" / name
        folder.mkdir(parents=True)
        (folder / "selected.json").write_text(json.dumps({"limits": {}}))
    (folder,) = bench.select(SMALL)
    assert folder.name == "11"
    assert [one.name for one in selected_folders(bench.nursery.run)] == ["2", "10", "11"]


def test_one_that_is_too_slow_when_measured_makes_way_for_the_next(make_bench):
    ranking = make_bench("first").ranking(FAST.given())
    bench = make_bench("second", slow={chain.key: 100.0 for chain in ranking[:2]})
    (folder,) = bench.select(FAST)
    told = read_selected(folder)
    assert chain_from_dict(told["architecture"]).key == ranking[2].key
    assert bench.chip.asked == [chain.key for chain in ranking[:3]]
    others = [chain_from_dict(one["architecture"]).key for one in told["runners_up"]]
    assert others == [chain.key for chain in ranking[3:6]]


def test_a_predicted_chain_is_measured_before_it_is_selected(make_bench, predicting):
    """The first two are within by prediction, and too slow when they are measured."""
    ranking = make_bench("first").ranking(FAST.given())
    bench = make_bench("second", slow={chain.key: 4.0 for chain in ranking[:2]})
    device = predicting(bench.chip, share=0.25)
    bench.nursery = replace(bench.nursery, device=device)
    (folder,) = bench.select(FAST)
    told = read_selected(folder)
    best = chain_from_dict(told["architecture"])
    assert best == ranking[2]
    assert device.finished == ranking[:3]
    half_ms = bench.case.operations.chain_ms(best) / 2
    assert (told["latency_how"], told["latency_ms"]) == ("measured", pytest.approx(half_ms))
    assert told["latency_predicted_ms"] == pytest.approx(half_ms / 4)
    assert told["latency_predicted_error_fraction"] == pytest.approx(-0.75)
    assert told["violations"] == {"latency_ms": pytest.approx(half_ms / 2.2 - 1)}


def test_a_chain_that_is_over_by_prediction_is_not_measured(make_bench, predicting):
    ranking = make_bench("first").ranking(FAST.given())
    bench = make_bench("second", slow={ranking[0].key: 100.0})
    device = predicting(bench.chip, share=1.0)
    bench.nursery = replace(bench.nursery, device=device)
    bench.select(FAST)
    assert device.finished == ranking[1:2]


def test_a_measurement_counts_with_the_end_of_its_interval(make_bench):
    """Half the predicted time, but it may be three times as long."""
    bench = make_bench(high=3.0)
    ranking = bench.ranking(FAST.given())
    within = [one for one in ranking if bench.case.operations.chain_ms(one) / 2 * 3 <= 2.2]
    assert within[0] != ranking[0]
    (folder,) = bench.select(FAST)
    assert chain_from_dict(read_selected(folder)["architecture"]).key == within[0].key


def test_where_all_are_too_slow_when_measured_it_is_said(make_bench):
    ranking = make_bench("first").ranking(FAST.given())
    bench = make_bench("second", slow={chain.key: 100.0 for chain in ranking})
    message = rf"{len(ranking)} students are within .*latency_ms.* but none is as a whole model"
    with pytest.raises(DeviceError, match=message):
        bench.select(SMALL, FAST)
    assert [folder.name for folder in selected_folders(bench.nursery.run)] == ["1"]  # of SMALL
    assert read_selected(bench.nursery.run.path / "selected" / "1")["limits"] == SMALL.given()


def test_a_budget_that_none_meets_leaves_those_before_it(make_bench):
    bench = make_bench()
    with pytest.raises(DeviceError, match=r"no student .* within params_m=1e-06: the nearest has"):
        bench.select(FAST, LimitSettings(params_m=1e-6), SMALL)
    assert [folder.name for folder in selected_folders(bench.nursery.run)] == ["1"]


def test_a_table_of_operations_alone_is_believed(make_bench, tmp_path):
    """A table device has no rows for whole chains: the sum of their operations is all there is."""
    file = tmp_path / "chip.csv"
    file.write_text(f"architecture,latency_ms\nteacher,{TEACHER_MS}\n")
    bench = make_bench(device={"kind": "table", "table": str(file)})
    (folder,) = bench.select(FAST)
    assert bench.chip.asked == []
    told = read_selected(folder)
    best = chain_from_dict(told["architecture"])
    assert best.key == bench.ranking(FAST.given())[0].key
    assert told["latency_how"] == "sum of operations"
    assert told["latency_ms"] == pytest.approx(bench.case.costs(best)["latency_ms"])
    assert told["latency_ms"] <= 2.2
    assert told["violations"] == {"latency_ms": pytest.approx(told["latency_ms"] / 2.2 - 1)}
    assert told["within_limit"] is True


def test_a_speedup_is_one_over_the_teachers_own_latency(make_bench):
    bench = make_bench()
    (folder,) = bench.select(LimitSettings(speedup=3.0))
    told = read_selected(folder)
    assert told["predicted_latency_ms"] <= TEACHER_MS / 3
    assert told["speedup"] == pytest.approx(TEACHER_MS / told["latency_ms"])
    assert isinstance(chain_from_dict(told["architecture"]), ChainArchitecture)


def test_memory_that_rises_with_the_parameters_bounds_what_is_proposed(make_bench):
    """10 MB and 1 kB a parameter, where the first guess is 4 bytes a parameter."""
    bench = make_bench()
    everything = bench.case.all[24]
    allowed_mb = (
        10 + sorted(parameters_of(chain) for chain, _ in everything)[len(everything) // 4] / 1e3
    )
    (folder,) = bench.select(LimitSettings(memory_mb=allowed_mb))
    told = read_selected(folder)
    best = chain_from_dict(told["architecture"])
    assert told["memory_mb"] == pytest.approx(10 + parameters_of(best) / 1e3)
    assert told["memory_mb"] <= allowed_mb
    assert told["violations"] == {"memory_mb": pytest.approx(told["memory_mb"] / allowed_mb - 1)}
    assert len(bench.chip.weighed) <= 1 + 4 * 10 + 1
    assert parameters_of(bench.chip.weighed[0]) == min(
        parameters_of(chain) for several in bench.case.all.values() for chain, _ in several
    )
    smaller = [chain for chain, _ in everything if parameters_of(chain) < parameters_of(best)]
    assert len(smaller) > len(everything) // 20  # the bound does not fall to the smallest


def test_one_that_needs_too_much_memory_makes_way_for_the_next(make_bench):
    hungry = [chain.key for chain in make_bench("first").ranking(SMALL.given())[:2]]
    bench = make_bench("second", memory_mb=lambda chain: 1e3 if chain.key in hungry else 1.0)
    limits = LimitSettings(params_m=0.0062, memory_mb=50.0)
    ranking = bench.ranking(SMALL.given())
    (folder,) = bench.select(limits)
    told = read_selected(folder)
    assert chain_from_dict(told["architecture"]).key == ranking[2].key
    assert told["memory_mb"] == 11.0
    assert [chain.key for chain in bench.chip.weighed[1:4]] == [one.key for one in ranking[:3]]
    others = [chain_from_dict(one["architecture"]).key for one in told["runners_up"]]
    assert others == [chain.key for chain in ranking[3:6]]


def test_memory_is_not_measured_of_what_is_too_slow(make_bench):
    ranking = make_bench("first").ranking(FAST.given())
    slow = {chain.key: 100.0 for chain in ranking[:2]}
    bench = make_bench("second", slow=slow)
    bench.select(LimitSettings(latency_ms=2.2, memory_mb=1e3))
    assert [chain.key for chain in bench.chip.weighed[1:]] == [ranking[2].key]


def test_a_limit_on_memory_that_none_meets_ends_after_a_few(make_bench):
    bench = make_bench()
    with pytest.raises(
        DeviceError, match=r"even the smallest \(.*\) takes 1\d\.\d MB .* over memory_mb=5 by"
    ):
        bench.select(LimitSettings(memory_mb=5.0))
    assert len(bench.chip.weighed) == 1
    first = itertools.chain([0.0], itertools.repeat(1e6))
    bench = make_bench("hungry", memory_mb=lambda _: next(first))
    with pytest.raises(DeviceError, match=r"students are within \{'memory_mb': 50.* but none is"):
        bench.select(LimitSettings(memory_mb=50.0))
    assert 10 < len(bench.chip.weighed) <= 1 + 4 * 10


def test_a_table_of_operations_tells_no_memory(make_bench, tmp_path):
    file = tmp_path / "chip.csv"
    file.write_text(f"architecture,latency_ms\nteacher,{TEACHER_MS}\n")
    bench = make_bench(device={"kind": "table", "table": str(file)})
    bench.nursery = replace(bench.nursery, device=read_table(file))
    with pytest.raises(DeviceError, match="memory"):
        bench.select(LimitSettings(memory_mb=1e6))
    (folder,) = bench.select(FAST)
    assert "memory_mb" not in read_selected(folder)


def test_in_8_bits_a_parameter_is_a_byte(case, nursery):
    """A limit on the size leaves four times the parameters."""
    in_8_bits = replace(nursery, workload=replace(nursery.workload, precision="int8"))
    table = ChainTable(in_8_bits, case.operations, case.rows)
    narrow = LimitSettings(size_mb=0.0125)
    wide = LimitSettings(size_mb=0.05)
    assert table.select(narrow, 9) == case.table.select(wide, 9) != case.table.select(narrow, 9)
