"""Supernets of blocks beside plain networks of the same weights, on a teacher of six layers."""

import copy
import itertools

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F  # noqa: N812

from stillhouse.distill.masked_lm import MaskedBatch
from stillhouse.distill.steps import Schedule, run_steps
from stillhouse.model.chains import chain_config
from stillhouse.model.encoders import bare_anatomy
from stillhouse.model.modeling_chain_bert import ChainBertModel, ChainOperation
from stillhouse.space.chain import BlockSpace, ChainArchitecture, ChainBlock
from stillhouse.supernet.blocks import (
    NO_CLIPPING,
    Alone,
    BlockStep,
    BlockSupernet,
    BorderReader,
    DevBatch,
    block_losses,
    chain_states,
    dev_batches,
    state_loss,
)

SPACE = BlockSpace(hidden_sizes=(8, 16), most_operations=3)
WIDTH = 32  # of the teacher
HERE = Alone(device=torch.device("cpu"))
PATHS = [
    ChainBlock(hidden_size=16, operations=("M",)),
    ChainBlock(hidden_size=8, operations=("F", "S3")),
    ChainBlock(hidden_size=16, operations=("S7", "M", "S5")),
    ChainBlock(hidden_size=8, operations=("M", "M", "M")),
]


@pytest.fixture(scope="module")
def teacher(make_teacher):
    return make_teacher("bert")


def config_for(teacher, block, dropout=0.0):
    shape = ChainArchitecture(embedding_size=WIDTH, blocks=(block,), head_size=8, ffn_ratio=2)
    return chain_config(shape, teacher.config, dropout=dropout)


@pytest.fixture(scope="module")
def make_supernet(teacher):
    """Makes a supernet with random biases and norms too."""

    def make(*, seed=0, dropout=0.0):
        config = config_for(teacher, PATHS[0], dropout)
        supernet = BlockSupernet(SPACE, width=WIDTH, config=config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in supernet.parameters():
                weight.normal_(std=0.3, generator=generator)
        return supernet

    return make


@pytest.fixture(scope="module")
def supernet(make_supernet):
    return make_supernet().eval()


@pytest.fixture(scope="module")
def state(tokens):
    """A state of three rows of 11 tokens, and which of them are real."""
    _, mask_BT = tokens
    return torch.randn(3, 11, WIDTH, generator=torch.Generator().manual_seed(2)), mask_BT


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.key)
@torch.no_grad()
def test_a_path_is_a_plain_sequence_of_its_operations(path, supernet, state, teacher):
    size = path.hidden_size
    plain = nn.Sequential(nn.Linear(WIDTH, size))
    plain[0].load_state_dict(supernet.inputs[str(size)].state_dict())
    for place, kind in enumerate(path.operations):
        operation = ChainOperation(kind, size, config_for(teacher, path))
        operation.load_state_dict(supernet.operations[str(size)][place][kind].state_dict())
        plain.append(operation)
    plain.append(nn.Linear(size, WIDTH))
    plain[-1].load_state_dict(supernet.outputs[str(size)].state_dict())
    state_BTD, _ = state
    close(supernet(path, state_BTD, None), plain.eval()(state_BTD))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.key)
@torch.no_grad()
def test_a_path_is_a_block_of_a_whole_model(path, supernet, state, teacher):
    """The projection to the block's width is the model's bridge from its embeddings."""
    model = ChainBertModel(config_for(teacher, path)).eval()
    (block,) = model.encoder.block
    size = str(path.hidden_size)
    block.bridge.load_state_dict(supernet.inputs[size].state_dict())
    for place, operation in enumerate(block.operation):
        shared = supernet.operations[size][place][path.operations[place]]
        operation.load_state_dict(shared.state_dict())
    state_BTD, mask_BT = state
    for mask in (mask_BT, None):
        expected_BTD = supernet.outputs[size](block(state_BTD, mask))
        close(supernet(path, state_BTD, mask), expected_BTD)


def test_every_place_kind_and_width_has_weights_of_its_own(supernet):
    operations = [
        supernet.operation(ChainBlock(hidden_size=size, operations=("F",) * place + (kind,)), place)
        for size, place, kind in itertools.product(SPACE.hidden_sizes, range(3), SPACE.operations)
    ]
    assert len({id(one) for one in operations}) == 2 * 3 * 5
    weights = sum(p.numel() for one in operations for p in one.parameters())
    ends = sum(2 * WIDTH * size + size + WIDTH for size in SPACE.hidden_sizes)
    assert weights + ends == sum(p.numel() for p in supernet.parameters())


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.key)
def test_only_the_paths_parameters_get_gradients(path, make_supernet, state):
    supernet, (state_BTD, mask_BT) = make_supernet(), state
    state_loss(supernet(path, state_BTD, mask_BT), 2 * state_BTD, mask_BT).backward()
    size = path.hidden_size
    used = [f"inputs.{size}.", f"outputs.{size}."]
    used += [f"operations.{size}.{place}.{kind}." for place, kind in enumerate(path.operations)]
    for name, weight in supernet.named_parameters():
        is_used = name.startswith(tuple(used))
        assert (weight.grad is not None) == is_used, name
        assert not is_used or weight.grad.abs().max() > 0 or name.endswith("key.bias"), name


def test_the_loss_is_the_mean_over_real_tokens_by_hand():
    found_BTD = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 3.0], [9.0, 9.0]]])
    wanted_BTD = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[3.0, 1.0], [0.0, 0.0]]])
    mask_BT = torch.tensor([[1, 1], [1, 0]])
    assert state_loss(found_BTD, wanted_BTD, mask_BT).item() == pytest.approx((2.5 + 1 + 2) / 3)
    assert state_loss(found_BTD, wanted_BTD, None).item() == pytest.approx((2.5 + 1 + 2 + 81) / 4)
    assert state_loss(found_BTD, wanted_BTD, torch.zeros(2, 2)).item() == 0
    halves = state_loss(found_BTD.bfloat16(), wanted_BTD, mask_BT)
    assert halves.dtype == torch.float32
    assert halves.item() == pytest.approx(5.5 / 3)


def layer_outputs(model, **inputs):
    """What each layer of a teacher gives, by hooks."""
    layers, seen = model.get_submodule(bare_anatomy(model.config).layers), []

    def embedded(_, given, named):
        seen.append(given[0] if given else named["hidden_states"])

    def left(_, __, output):
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[0].register_forward_pre_hook(embedded, with_kwargs=True)]
    handles += [layer.register_forward_hook(left) for layer in layers]
    with torch.no_grad():
        model(**inputs)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("blocks", [1, 2, 3, 6])
def test_borders_are_what_the_layers_give(blocks, make_teacher, family, tokens):
    model, (ids_BT, mask_BT) = make_teacher(family), tokens
    found = BorderReader(model, blocks, precision="float32")(ids_BT, mask_BT)
    every = layer_outputs(model, input_ids=ids_BT, attention_mask=mask_BT)
    assert len(every) == 7
    wanted = {1: (0, 6), 2: (0, 3, 6), 3: (0, 2, 4, 6), 6: tuple(range(7))}[blocks]
    assert len(found) == len(wanted) == blocks + 1
    is_real_BT = mask_BT.bool()
    for state_BTD, place in zip(found, wanted, strict=True):
        assert not state_BTD.requires_grad
        close(state_BTD[is_real_BT], every[place][is_real_BT])


class Text:
    """Stands for a corpus: every step has other tokens and padding."""

    def __init__(self, seed=0):
        self.seed = seed

    def batch(self, step, worker):
        assert (worker.process_index, worker.num_processes) == (0, 1)
        generator = torch.Generator().manual_seed(step)
        rows = 2 + step % 2
        lengths_B1 = torch.randint(4, 10, (rows, 1), generator=generator)
        return MaskedBatch(
            input_ids=torch.randint(3, 50, (rows, 9), generator=generator).to(worker.device),
            mask=(torch.arange(9) < lengths_B1).long(),
            places=torch.tensor([1]),
            labels=torch.tensor([5]),
        )


def draw(place, step):
    """A path of each block at each step; other ones at every step."""
    return PATHS[(2 * step + place) % len(PATHS)]


def make_step(teacher, supernets, places, seed=0):
    reader = BorderReader(teacher, 3, precision="float32")
    return BlockStep(supernets, places, reader, Text(seed), draw, precision="float32")


def test_a_block_reads_the_teachers_state_and_is_judged_by_the_next(teacher, make_supernet):
    """The second and the third block of three; the states are those that hooks see."""
    supernets = [make_supernet(seed=place) for place in (1, 2)]
    given = []
    for supernet in supernets:
        supernet.register_forward_pre_hook(lambda _, arguments: given.append(arguments))
    losses = make_step(teacher, supernets, [1, 2])(3)
    text = Text().batch(3, HERE)
    every = layer_outputs(teacher, input_ids=text.input_ids, attention_mask=text.mask)
    is_real_BT = text.mask.bool()
    for number, place in enumerate((1, 2)):
        path, state_BTD, mask_BT = given[number]
        assert path == draw(place, 3)
        assert torch.equal(mask_BT, text.mask)
        close(state_BTD[is_real_BT], every[2 * place][is_real_BT])
        found = supernets[number].eval()(path, state_BTD, mask_BT).detach()[is_real_BT]
        wanted = every[2 * place + 2][is_real_BT]
        by_hand = np.square((found.double() - wanted.double()).numpy()).mean()
        assert losses[number].item() == pytest.approx(by_hand, rel=1e-5)
    assert len(losses) == 2
    assert not losses.requires_grad


def test_a_block_does_not_read_what_the_one_before_predicts(teacher, make_supernet):
    second = make_supernet(seed=2)
    losses = [
        make_step(teacher, [make_supernet(seed=seed), copy.deepcopy(second)], [0, 1])(0)
        for seed in (0, 1)
    ]
    assert losses[0][0] != losses[1][0]
    assert losses[0][1] == losses[1][1]


def gradient(supernet):
    return torch.cat([p.grad.flatten() for p in supernet.parameters() if p.grad is not None])


def test_each_block_is_clipped_by_itself(teacher, make_supernet):
    """Long gradients get the length 1, short ones stay as they are."""
    supernets = [make_supernet(seed=0), make_supernet(seed=1)]
    with torch.no_grad():
        for weight in supernets[0].outputs.parameters():
            weight.mul_(10)
    plain = copy.deepcopy(supernets)
    make_step(teacher, supernets, [0, 1])(0)

    batch = Text().batch(0, HERE)
    states = BorderReader(teacher, 3, precision="float32")(batch.input_ids, batch.mask)
    for place, one in enumerate(plain):
        found_BTD = one(draw(place, 0), states[place], batch.mask)
        F.mse_loss(found_BTD[batch.mask.bool()], states[place + 1][batch.mask.bool()]).backward()
    lengths = [gradient(one).norm().item() for one in plain]
    assert lengths[0] > 2
    assert lengths[1] < 0.9
    close(gradient(supernets[0]), gradient(plain[0]) / lengths[0])
    close(gradient(supernets[1]), gradient(plain[1]))


def trained(teacher, supernets, places):
    """Trains some steps at a high rate, with dropout."""
    modules = nn.ModuleList(supernets)
    run_steps(
        modules,
        make_step(teacher, supernets, places),
        Schedule(steps=6, learning_rate=0.05, warmup_fraction=0.3, clip_norm=NO_CLIPPING),
        accelerator=Accelerator(cpu=True),
    )
    return [{name: w.clone() for name, w in one.state_dict().items()} for one in supernets]


def test_alone_a_block_learns_what_it_learns_beside_others(teacher, make_supernet):
    """Bit for bit, with dropout and whatever was drawn by chance before."""
    fresh = [make_supernet(seed=place, dropout=0.3) for place in range(3)]
    before = torch.get_rng_state()
    together = trained(teacher, copy.deepcopy(fresh), [0, 1, 2])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(77)
    (alone,) = trained(teacher, [copy.deepcopy(fresh[1])], [1])
    backwards = trained(teacher, [copy.deepcopy(fresh[2]), copy.deepcopy(fresh[0])], [2, 0])
    for found, expected in zip([alone, *backwards], [together[n] for n in (1, 2, 0)], strict=True):
        assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    moved = [not torch.equal(w, together[1][name]) for name, w in fresh[1].state_dict().items()]
    assert any(moved)
    assert not all(moved)  # no path had all of them


def test_chance_is_another_one_for_each_block_step_and_seed(teacher, make_supernet):
    """Two blocks with the same weights; the seed of the random numbers is read where they run."""

    def chances(seed, step):
        seen = []

        def path(*_):
            seen.append(torch.initial_seed())
            return PATHS[2]

        reader = BorderReader(teacher, 3, precision="float32")
        supernets = [make_supernet(dropout=0.5) for _ in range(2)]
        made = BlockStep(supernets, [0, 1], reader, Text(seed), path, precision="float32")
        return seen, made(step).tolist()

    assert chances(0, 0) == chances(0, 0)
    every = [chances(*place)[0] for place in ((0, 0), (0, 1), (1, 0))]
    assert len({seed for pair in every for seed in pair}) == 6
    assert chances(0, 0)[1] != chances(1, 0)[1]  # on the same text


def test_held_out_batches_are_what_the_teacher_makes_of_masked_text(teacher):
    reader = BorderReader(teacher, 2, precision="float32")
    batches = dev_batches(reader, Text(), 3, torch.device("cpu"))
    assert len(batches) == 3
    for step, batch in enumerate(batches):
        text = Text().batch(step, HERE)
        assert torch.equal(batch.text.input_ids, text.input_ids)
        every = layer_outputs(teacher, input_ids=text.input_ids, attention_mask=text.mask)
        for state_BTD, place in zip(batch.states, (0, 3, 6), strict=True):
            close(state_BTD[text.mask.bool()], every[place][text.mask.bool()])


@pytest.fixture(scope="module")
def batches(teacher):
    return dev_batches(
        BorderReader(teacher, 3, precision="float32"), Text(), 2, torch.device("cpu")
    )


def naive_losses(supernet, place, blocks, batches):
    """One by one; the mean of the batches' means over real tokens, in float64."""
    losses = []
    for block in blocks:
        means = []
        for batch in batches:
            with torch.no_grad():
                found_BTD = supernet(block, batch.states[place], batch.text.mask)
            real = batch.text.mask.bool()
            found, wanted = found_BTD[real].double(), batch.states[place + 1][real].double()
            means.append(np.square((found - wanted).numpy()).mean())
        losses.append(np.mean(means))
    return losses


def losses_of(supernet, place, blocks, batches):
    return block_losses(supernet, place, blocks, batches, precision="float32")


def test_losses_are_those_of_each_path_by_itself(supernet, batches):
    """In the order that was asked for, some of them twice."""
    order = np.random.default_rng(0).permutation(len(SPACE))
    blocks = [SPACE[int(index)] for index in [*order[:60], *order[:3]]]
    found = losses_of(supernet, 1, blocks, batches)
    expected = naive_losses(supernet, 1, blocks, batches)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(expected))
    assert found[60:] == found[:3]
    assert len(set(found)) == 60


def test_shared_beginnings_are_computed_once(make_supernet, batches):
    """All paths: as many operations as there are paths, since each but the last is a beginning."""
    supernet, ran = make_supernet(), []
    for module in supernet.modules():
        if isinstance(module, ChainOperation):
            module.register_forward_hook(lambda *_: ran.append(1))
    losses_of(supernet, 0, list(SPACE), batches)
    assert len(ran) == len(SPACE) * len(batches) == 2 * 155 * 2


def test_all_paths_are_compared_on_the_same_batches(supernet, batches):
    """What is asked beside a path changes nothing of its loss."""
    blocks = [SPACE[index] for index in range(0, len(SPACE), 31)]
    together = losses_of(supernet, 0, blocks, batches)
    alone = [losses_of(supernet, 0, [block], batches)[0] for block in blocks]
    assert together == pytest.approx(alone, rel=1e-5)
    apart = [losses_of(supernet, 0, blocks, [batch]) for batch in batches]
    assert together == pytest.approx(np.mean(apart, axis=0))


def test_padding_does_not_count(supernet, batches):
    generator = torch.Generator().manual_seed(9)
    changed = []
    for batch in batches:
        padding = ~batch.text.mask.bool()
        assert padding.any()
        states = [state_BTD.clone() for state_BTD in batch.states]
        for state_BTD in states:
            state_BTD[padding] = 100 * torch.randn(int(padding.sum()), WIDTH, generator=generator)
        changed.append(DevBatch(text=batch.text, states=tuple(states)))
    assert losses_of(supernet, 1, PATHS, changed) == pytest.approx(
        losses_of(supernet, 1, PATHS, batches), rel=1e-5
    )


def test_candidates_are_compared_without_dropout_and_trained_with_it(
    make_supernet, teacher, batches
):
    supernet = make_supernet(dropout=0.5)
    step = make_step(teacher, [supernet], [0])
    step(0)
    assert supernet.training
    with_it = losses_of(supernet, 0, PATHS, batches)
    assert not supernet.training
    assert with_it == losses_of(make_supernet(), 0, PATHS, batches)
    assert with_it == losses_of(supernet, 0, PATHS, batches)
    step(1)
    assert supernet.training


@torch.no_grad()
def test_a_complete_model_hands_its_own_states_on(make_supernet, batches):
    supernets = [make_supernet(seed=place, dropout=0.5).train() for place in range(3)]
    batch = batches[0]
    found_BTD = chain_states(supernets, PATHS[:3], batch, precision="float32")
    state_BTD = batch.states[0]
    for supernet, path in zip(supernets, PATHS, strict=False):
        size, mask_BT = str(path.hidden_size), batch.text.mask
        hidden_BTD = supernet.eval().inputs[size](state_BTD)
        for place, kind in enumerate(path.operations):
            hidden_BTD = supernet.operations[size][place][kind](hidden_BTD, mask_BT)
        state_BTD = supernet.outputs[size](hidden_BTD)
    close(found_BTD, state_BTD)
    first_BTD = supernets[0](PATHS[0], batch.states[0], batch.text.mask)
    assert not torch.allclose(first_BTD, batch.states[1], atol=0.1)  # it is no teacher yet


@torch.no_grad()
def test_half_precision_is_near(supernet, teacher, batches):
    exact = losses_of(supernet, 0, PATHS, batches)
    halves = block_losses(supernet, 0, PATHS, batches, precision="bfloat16")
    assert halves == pytest.approx(exact, rel=0.05)
    assert halves != exact
    reader = BorderReader(teacher, 3, precision="bfloat16")
    batch = batches[0]
    for near_BTD, state_BTD in zip(
        reader(batch.text.input_ids, batch.text.mask), batch.states, strict=True
    ):
        gap = (near_BTD.float() - state_BTD)[batch.text.mask.bool()].abs().max()
        assert gap < 0.1 * state_BTD.abs().max()
