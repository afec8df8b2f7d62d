"""What workers share, with two of them in one process."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from stillhouse.distill.workers import average_gradients, mean_over_workers, own_chance


class Worker:
    """Takes part in averages with one other, whose messages are given."""

    device = torch.device("cpu")
    num_processes = 2

    def __init__(self, rank, *others):
        self.process_index, self.others = rank, list(others)

    def reduce(self, tensor, reduction):
        assert reduction == "mean"
        return (tensor + self.others.pop(0)) / 2


def parameters(*gradients):
    made = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]
    for parameter, gradient in zip(made, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.tensor(gradient)
    return made


def test_gradients_are_averaged_in_one_message():
    matrix, vector = parameters([[1.0, 2.0], [3.0, 4.0]], None)
    other = Worker(0, torch.tensor([3.0, 2.0, 1.0, 0.0, 6.0, 0.0, -2.0]))
    average_gradients([matrix, vector], other)
    assert other.others == []
    assert matrix.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert vector.grad.tolist() == [3.0, 0.0, -1.0]


def test_a_worker_alone_keeps_its_gradients_and_has_zeros_where_there_are_none():
    matrix, vector = parameters([[1.0, 2.0], [3.0, 4.0]], None)
    average_gradients([matrix, vector], Accelerator(cpu=True))
    assert matrix.grad.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert vector.grad.tolist() == [0.0, 0.0, 0.0]


def test_losses_are_averaged():
    assert mean_over_workers(
        torch.tensor([1.0, 5.0]), Worker(1, torch.tensor([3.0, 1.0]))
    ).tolist() == [2.0, 3.0]
    assert mean_over_workers(torch.tensor([1.0]), Accelerator(cpu=True)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("place", "is_same"),
    [((0, 3, 5), True), ((1, 3, 5), False), ((0, 4, 5), False), ((0, 3, 6), False)],
    ids=["same", "worker", "seed", "step"],
)
def test_chance_is_a_matter_of_worker_seed_and_step(place, is_same):
    def draw(rank, seed, step):
        with own_chance(Worker(rank), seed=seed, step=step):
            return torch.rand(4)

    before = torch.get_rng_state()
    assert torch.equal(draw(0, 3, 5), draw(*place)) is is_same
    assert torch.equal(before, torch.get_rng_state())
