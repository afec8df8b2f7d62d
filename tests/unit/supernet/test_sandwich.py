"""Steps of a supernet beside four ordinary models that are trained one after the other.

Letters in names: B batch, T tokens, W width, R relation heads, K width of one, S tokens.
"""

import math

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stillhouse.data.packing import PackedSet
from stillhouse.space.architecture import BertArchitecture
from stillhouse.supernet.sandwich import (
    Draws,
    RelationLesson,
    SandwichStep,
    draw_subnets,
    held_out_losses,
    packed_batch,
)
from stillhouse.supernet.skeletons import ProjectionReader
from stillhouse.supernet.subnets import Supernet

RELATION_HEADS = 4
LENGTH = 11
FREE = BertArchitecture(layers=3, hidden_size=12, heads=3, head_size=8, ffn_size=24)


@pytest.fixture(scope="module")
def corpus():
    """Ten sequences."""
    ids_NT = np.random.default_rng(0).integers(3, 50, (10, LENGTH)).astype(np.uint16)
    return PackedSet(
        chunks=(ids_NT,), stretches=np.array([[0, 10]]), length=LENGTH, used_length=LENGTH
    )


@pytest.fixture(scope="module")
def padded_corpus():
    """One sequence of 7 tokens, as in a store of a single one."""
    ids_NT = np.random.default_rng(0).integers(3, 50, (1, LENGTH)).astype(np.uint16)
    ids_NT[:, 7:] = 0
    return PackedSet(chunks=(ids_NT,), stretches=np.array([[0, 1]]), length=LENGTH, used_length=7)


@pytest.fixture(params=["bert", "roberta"])
def teacher(request, make_teacher):
    return make_teacher(request.param)


@pytest.fixture
def supernet(teacher, free_space):
    return Supernet(teacher, list(free_space))


@pytest.fixture
def lesson(teacher, make_teacher):
    family = teacher.config.model_type
    return RelationLesson(teacher=ProjectionReader(make_teacher(family)), heads=RELATION_HEADS)


def relations(projection_BTW):
    width = projection_BTW.shape[-1] // RELATION_HEADS
    heads_BTRK = projection_BTW[..., : RELATION_HEADS * width].unflatten(-1, (RELATION_HEADS, -1))
    return torch.einsum("btrk,bsrk->brts", heads_BTRK, heads_BTRK) / math.sqrt(width)


def plain_loss(student, teacher):
    """The mean squared difference of relations, summed over queries, keys and values."""
    parts = zip(student, teacher, strict=True)
    return sum((relations(ours) - relations(theirs)).square().mean() for ours, theirs in parts)


def shapes(count):
    return [
        BertArchitecture(layers=layers, hidden_size=8, heads=1, ffn_size=8)
        for layers in range(1, count + 1)
    ]


@pytest.mark.parametrize("step", range(20))
def test_a_step_has_the_largest_the_smallest_and_others_once_each(step):
    architectures = shapes(8)
    drawn = draw_subnets(architectures, random_count=3, seed=0, step=step)
    assert drawn[:2] == [architectures[-1], architectures[0]]
    assert len(set(drawn)) == len(drawn) == 5
    assert set(drawn) <= set(architectures)


def test_draws_are_a_matter_of_seed_and_step():
    architectures = shapes(60)

    def drawn(**place):
        return draw_subnets(architectures, random_count=2, **place)

    first = drawn(seed=1, step=4)
    torch.rand(1)
    np.random.default_rng(1).random()
    assert drawn(seed=1, step=4) == first
    assert drawn(seed=2, step=4) != first
    assert drawn(seed=1, step=5) != first
    over_steps = {tuple(drawn(seed=1, step=step)) for step in range(20)}
    assert len(over_steps) > 15


def test_every_subnet_is_drawn_some_time():
    architectures = shapes(8)
    drawn = {
        one
        for step in range(60)
        for one in draw_subnets(architectures, random_count=2, seed=0, step=step)
    }
    assert drawn == set(architectures)


@pytest.mark.parametrize(
    ("count", "random_count", "places"),
    [(1, 2, [0]), (2, 2, [1, 0]), (3, 2, [2, 0, 1]), (5, 0, [4, 0])],
)
def test_small_spaces_give_what_they_have(count, random_count, places):
    architectures = shapes(count)
    drawn = draw_subnets(architectures, random_count=random_count, seed=0, step=0)
    assert drawn == [architectures[place] for place in places]


def gradients_of_plain_models(supernet, teacher, subnets, ids_BT, kept_of_six, plain_projections):
    """Sums what ordinary models of the subnets learn, each at the place of its slices."""
    with torch.no_grad():
        wanted = plain_projections(teacher, ids_BT, None)
    summed = {name: torch.zeros_like(p) for name, p in supernet.encoder.named_parameters()}
    losses = []
    for subnet in subnets:
        model = supernet.extract(subnet)
        loss = plain_loss(plain_projections(model, ids_BT, None), wanted)
        loss.backward()
        losses.append(loss.item())
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                parts = name.split(".")
                if parts[0] == "encoder":
                    parts[2] = str(kept_of_six[subnet.layers][int(parts[2])])
                summed[".".join(parts)][tuple(map(slice, parameter.shape))] += parameter.grad
    return summed, losses


def assert_same_gradients(found, expected):
    """Equal up to rounding, which is measured by the largest gradient of all parameters.

    The gradient of a key bias that the loss reaches only through a softmax is zero, for a shift of
    all scores changes no probability: what is found there is rounding alone, and its size depends
    on the processor's kernels.
    """
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6 * largest, rtol=1e-3)


def test_a_step_sums_the_gradients_of_four_ordinary_models(
    supernet, teacher, lesson, corpus, kept_of_six, plain_projections
):
    step = SandwichStep(
        supernet, lesson, corpus, Draws(batch_size=4, random_count=2, seed=3), Accelerator(cpu=True)
    )
    losses = step(5)
    subnets = draw_subnets(supernet.architectures, random_count=2, seed=3, step=5)
    assert len(subnets) == len(losses) == 4
    ids_BT = torch.from_numpy(corpus.batch(corpus.plan(batch_size=4, seed=3, step=5))).long()
    expected, expected_losses = gradients_of_plain_models(
        supernet, teacher, subnets, ids_BT, kept_of_six, plain_projections
    )
    assert losses.tolist() == pytest.approx(expected_losses, rel=1e-4)
    assert not losses.requires_grad
    table = expected["embeddings.word_embeddings.weight"]
    assert table.abs().max() > 0
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in supernet.encoder.named_parameters()
    }
    assert_same_gradients(found, {name: expected[name] for name in found})


def test_the_gradient_is_added_to_what_is_there(supernet, lesson, corpus):
    step = SandwichStep(supernet, lesson, corpus, Draws(batch_size=4), Accelerator(cpu=True))
    step(0)
    once = {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}
    step(0)
    for name, gradient in once.items():
        torch.testing.assert_close(dict(supernet.named_parameters())[name].grad, 2 * gradient)


def test_what_no_subnet_of_a_step_uses_has_a_gradient_of_zero(teacher, lesson, corpus):
    # Of six layers, two subnets of 3 keep 0, 2 and 4, one of 2, which is not drawn, 0 and 3.
    sizes = [(3, 32, 64), (3, 8, 8), (2, 16, 64)]
    archs = [
        BertArchitecture(layers=layers, hidden_size=width, heads=width // 8, ffn_size=inner)
        for layers, width, inner in sizes
    ]
    supernet = Supernet(teacher, archs)
    draws = Draws(batch_size=2, random_count=0)
    SandwichStep(supernet, lesson, corpus, draws, Accelerator(cpu=True))(0)
    unused = supernet.encoder.encoder.layer[3].attention.self.key.weight
    assert torch.equal(unused.grad, torch.zeros_like(unused))
    assert all(parameter.grad is not None for parameter in supernet.reached())


def test_steps_read_what_the_corpus_plans(supernet, lesson, corpus):
    step = SandwichStep(supernet, lesson, corpus, Draws(batch_size=4), Accelerator(cpu=True))
    assert step.tokens == 4 * LENGTH
    first, again, other = step(0), step(0), step(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


class Worker:
    """One of two workers: it sends its messages, or averages them with those of the other."""

    device = torch.device("cpu")
    num_processes = 2

    def __init__(self, rank, received=()):
        self.process_index, self.received, self.sent = rank, list(received), []

    def reduce(self, tensor, reduction):
        assert reduction == "mean"
        self.sent.append(tensor.clone())
        return (tensor + self.received.pop(0)) / 2 if self.received else tensor


def test_workers_average_to_the_step_of_one(teacher, free_space, lesson, corpus):
    supernets, losses = [], []

    def work(worker):
        supernets.append(Supernet(teacher, list(free_space)))
        losses.append(SandwichStep(supernets[-1], lesson, corpus, Draws(batch_size=4), worker)(2))
        return worker

    first = work(Worker(0))
    work(Worker(1, received=first.sent))
    work(Accelerator(cpu=True))
    assert torch.allclose(losses[1], losses[2], rtol=1e-4)
    assert not torch.allclose(losses[0], losses[2], rtol=1e-2)
    _, averaged, whole = (
        {name: p.grad for name, p in one.named_parameters() if p.grad is not None}
        for one in supernets
    )
    assert_same_gradients(averaged, whole)


def test_half_precision_is_near(supernet, lesson, corpus):
    losses = []
    for precision in ("float32", "bfloat16"):
        half = RelationLesson(teacher=lesson.teacher, heads=RELATION_HEADS, precision=precision)
        step = SandwichStep(supernet, half, corpus, Draws(batch_size=4), Accelerator(cpu=True))
        losses.append(step(0))
    assert losses[1].dtype == torch.float32
    assert not torch.equal(*losses)
    torch.testing.assert_close(*losses, rtol=0.1, atol=0.02)


@torch.no_grad()
def test_held_out_losses_are_those_of_ordinary_models(
    supernet, teacher, lesson, corpus, plain_projections
):
    architectures = list(supernet.architectures)[::7]
    told = []
    found = held_out_losses(
        supernet, lesson, corpus, architectures, batch_size=4, on_progress=told.append
    )
    ids_BT = torch.from_numpy(corpus.batch(np.arange(10))).long()  # in batches of 4, 4 and 2 above
    wanted = plain_projections(teacher, ids_BT, None)
    expected = [
        plain_loss(plain_projections(supernet.extract(one), ids_BT, None), wanted).item()
        for one in architectures
    ]
    assert found == pytest.approx(expected, rel=1e-4)
    assert told == sorted(told)
    assert len(told) == 3 * len(architectures)
    assert told[-1] == pytest.approx(1.0)


def test_held_out_losses_drop_nothing_out(teacher, lesson, corpus):
    supernet = Supernet(teacher, [FREE], dropout=0.5).train()
    first, second = (held_out_losses(supernet, lesson, corpus, [FREE], batch_size=4) for _ in "ab")
    assert first == second
    assert all(parameter.grad is None for parameter in supernet.parameters())


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 2.0, 0.5)])
@torch.no_grad()
def test_a_lesson_weighs_queries_keys_and_values(weights, make_teacher, corpus, plain_projections):
    supernet = Supernet(make_teacher(), [FREE])
    lesson = RelationLesson(
        teacher=ProjectionReader(make_teacher()), heads=RELATION_HEADS, weights=weights
    )
    [found] = held_out_losses(supernet, lesson, corpus, [FREE], batch_size=10)
    ids_BT = torch.from_numpy(corpus.batch(np.arange(10))).long()
    wanted = plain_projections(make_teacher(), ids_BT, None)
    student = plain_projections(supernet.extract(FREE), ids_BT, None)
    parts = zip(weights, student, wanted, strict=True)
    expected = sum(
        weight * (relations(ours) - relations(theirs)).square().mean()
        for weight, ours, theirs in parts
    )
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_full_sequences_have_no_mask(corpus):
    ids_BT, mask_BT = packed_batch(corpus, np.array([7, 2]), torch.device("cpu"))
    assert ids_BT.dtype == torch.int64
    assert ids_BT.tolist() == corpus.chunks[0][[7, 2]].tolist()
    assert mask_BT is None


def test_a_padded_sequence_has_a_mask(padded_corpus):
    ids_BT, mask_BT = packed_batch(padded_corpus, np.array([0]), torch.device("cpu"))
    assert ids_BT.shape == (1, LENGTH)
    assert mask_BT.tolist() == [[1] * 7 + [0] * 4]


def test_padding_teaches_nothing(supernet, lesson, padded_corpus):
    short = PackedSet(
        chunks=(padded_corpus.chunks[0][:, :7],),
        stretches=padded_corpus.stretches,
        length=7,
        used_length=7,
    )
    other = padded_corpus.chunks[0].copy()
    other[:, 7:] = 9
    content = PackedSet(
        chunks=(other,), stretches=padded_corpus.stretches, length=LENGTH, used_length=7
    )
    found = []
    for corpus in (padded_corpus, short, content):
        supernet.zero_grad()
        step = SandwichStep(supernet, lesson, corpus, Draws(batch_size=1), Accelerator(cpu=True))
        losses = step(0)
        found.append((losses, dict(enumerate(one.grad.clone() for one in supernet.reached()))))
    (losses, gradients), *others = found
    for other_losses, other_gradients in others:
        torch.testing.assert_close(losses, other_losses, rtol=1e-4, atol=1e-6)
        assert_same_gradients(other_gradients, gradients)
