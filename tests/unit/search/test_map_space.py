"""The space of layer maps, against enumeration by hand and by brute force."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare

from stillhouse.errors import SpaceError
from stillhouse.search.map_space import MapSpace


def rising(genes):
    kept = [gene for gene in genes if gene]
    return kept == sorted(kept)


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("teacher_layers", [1, 2, 5])
def test_the_size_is_that_of_brute_force(layers, teacher_layers):
    every = list(product(range(teacher_layers + 1), repeat=layers))
    in_order = [genes for genes in every if rising(genes)]
    space = MapSpace(layers=layers, teacher_layers=teacher_layers)
    assert space.size() == len(in_order)
    assert list(space.enumerate()) == in_order
    assert MapSpace(layers=layers, teacher_layers=teacher_layers, any_order=True).size() == len(
        every
    )


@pytest.mark.parametrize(
    ("layers", "teacher_layers", "size"),
    [(4, 12, 28_561), (6, 12, 4_826_809)],  # the paper's (N + 1)^M
)
def test_in_any_order_there_are_as_many_as_in_the_paper(layers, teacher_layers, size):
    space = MapSpace(layers=layers, teacher_layers=teacher_layers, any_order=True)
    assert space.size() == size


def test_three_of_six_layers_in_order():
    # none 1; one supervised 3·6; two 3·21; three 56
    assert MapSpace(layers=3, teacher_layers=6).size() == 1 + 18 + 63 + 56


@pytest.mark.parametrize(
    ("genes", "inside"),
    [
        ((0, 0, 0), True),
        ((2, 2, 6), True),
        ((6, 0, 6), True),
        ((3, 0, 2), False),  # it falls
        ((0, 0, 7), False),  # beyond the teacher
        ((0, -1, 1), False),
        ((1, 2), False),
        ([1, 2, 3], False),
    ],
)
def test_what_is_a_map(genes, inside):
    assert (genes in MapSpace(layers=3, teacher_layers=6)) is inside


def test_the_empty_map_may_be_left_out():
    space = MapSpace(layers=2, teacher_layers=1, with_empty=False)
    assert space.size() == 3
    assert (0, 0) not in space
    assert set(space.enumerate()) == {(0, 1), (1, 0), (1, 1)}
    generator = np.random.default_rng(0)
    assert {space.sample(generator) for _ in range(100)} == set(space.enumerate())


@pytest.mark.parametrize("any_order", [False, True])
def test_every_map_is_drawn_as_often_as_any_other(any_order):
    space = MapSpace(layers=2, teacher_layers=3, any_order=any_order)
    generator = np.random.default_rng(1)
    drawn = Counter(space.sample(generator) for _ in range(6_000))
    assert drawn.keys() == set(space.enumerate())
    assert chisquare(list(drawn.values())).pvalue > 1e-3


def test_putting_into_order_keeps_what_is_supervised_and_by_which_layers():
    space = MapSpace(layers=5, teacher_layers=9)
    assert space.in_order((5, 0, 9, 0, 1)) == (1, 0, 5, 0, 9)
    assert MapSpace(layers=2, teacher_layers=9, any_order=True).in_order((5, 1)) == (5, 1)


def test_a_space_needs_layers():
    with pytest.raises(SpaceError, match="a layer of the student and one of the teacher, got 0"):
        MapSpace(layers=0, teacher_layers=3)
