"""AutoDistil's published figures: sizes of its spaces, and those of its teacher and students."""

import pytest

from stillhouse.model.count import paper_flops, paper_parameters, true_parameters
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.counts import Ends
from stillhouse.space.published import autodistil, autodistil_ablation

ENGLISH = Ends(vocab_size=30522, positions=512, token_types=2, labels=2)


def student(layers, hidden_size, ratio, heads):
    return BertArchitecture(
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        head_size=64,
        ffn_size=int(hidden_size * ratio),
    )


STUDENTS = {
    "BERT": student(12, 768, 4, 12),
    "Agnostic": student(11, 352, 4, 10),
    "ProxyB": student(12, 544, 3, 9),
    "ProxyS": student(11, 352, 4, 8),
    "ProxyT": student(7, 160, 3.5, 10),
}


@pytest.mark.parametrize(
    ("name", "parameters_m", "flops_g"),
    [
        ("BERT", "109.48", "11.25"),
        ("Agnostic", "26.77", "2.13"),
        ("ProxyB", "50.11", "4.40"),
        ("ProxyS", "26.09", "2.02"),
    ],
)
def test_the_papers_formulas_give_its_figures(name, parameters_m, flops_g):
    assert f"{paper_parameters(STUDENTS[name]) / 1e6:.2f}" == parameters_m
    assert f"{paper_flops(STUDENTS[name]) / 1e9:.2f}" == flops_g


def test_the_papers_formulas_give_the_figures_of_the_smallest_student():
    assert f"{paper_parameters(STUDENTS['ProxyT']) / 1e6:.2f}" == "6.89"
    assert f"{paper_flops(STUDENTS['ProxyT']) / 1e9:.3f}" == "0.275"


@pytest.mark.parametrize(
    ("name", "millions"),
    [("Agnostic", "31.9"), ("ProxyB", "53.6"), ("ProxyS", "29.9"), ("ProxyT", "9.1")],
)
def test_true_parameters_of_the_students(name, millions):
    """Of the bare encoder with its pooler: without it, three of the four would be 0.1 M to 0.3 M
    smaller."""
    assert f"{true_parameters(STUDENTS[name], ENGLISH, bare=True) / 1e6:.1f}" == millions


@pytest.mark.parametrize(
    ("name", "smallest", "largest", "found"),
    [
        # Fewest and most parameters in millions, cut as the paper cuts them, and one of its finds.
        ("tiny", 4, 10, "ProxyT"),
        ("small", 12, 28, "Agnostic"),
        ("base", 39, 79, "ProxyB"),
    ],
)
def test_the_three_sub_spaces(name, smallest, largest, found):
    space = autodistil(name)
    assert len(space) == space.grid_size == 256
    assert all(architecture.head_size == 64 for architecture in space)
    assert space.contains(STUDENTS[found])
    parameters = [paper_parameters(architecture) / 1e6 for architecture in space]
    assert (int(min(parameters)), int(max(parameters))) == (smallest, largest)


def test_ratios_give_whole_feed_forward_sizes():
    for name in ("tiny", "small", "base"):
        for architecture in autodistil(name):
            assert 2 * architecture.ffn_size % architecture.hidden_size == 0


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [2880]), (2, [384] * 2), (3, [256] * 3), (4, [192] * 4), (5, [128] * 5)],
)
def test_sizes_of_the_ablation(count, sizes):
    spaces = autodistil_ablation(count)
    assert [len(space) for space in spaces] == sizes
    distinct = {architecture for space in spaces for architecture in space}
    assert len(distinct) == sum(sizes)
