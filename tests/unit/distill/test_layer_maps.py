import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.distill.layer_maps import (
    LayerLink,
    gene_links,
    layer_links,
    links_of,
    uniform_layer,
)
from stillhouse.errors import SettingsError

DEPTH = st.integers(1, 48)


def pairs(name, student, teacher):
    return [(link.student, link.teacher) for link in layer_links(name, student, teacher)]


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (3, 6, [1, 3, 5]),
        (4, 12, [2, 5, 8, 11]),
        (6, 12, [1, 3, 5, 7, 9, 11]),
        (5, 12, [2, 4, 7, 9, 11]),  # 1-based ⌈2.4⌉, ⌈4.8⌉, ⌈7.2⌉, ⌈9.6⌉, 12
        (1, 12, [11]),
        (4, 2, [0, 0, 1, 1]),
    ],
)
def test_the_uniform_map(student, teacher, expected):
    assert pairs("uniform", student, teacher) == [(i, (t,)) for i, t in enumerate(expected)]


def test_the_last_map_links_the_two_last_layers_only():
    assert pairs("last", 3, 6) == [(2, (5,))]
    assert pairs("last", 1, 1) == [(0, (0,))]


def test_the_map_of_kd_nas():
    """Source: arXiv 2303.09639 v2: 1-based layer i learns ⌈i·L_T/L_S⌉ beside L_T − L_S + i."""
    assert pairs("uniform_last", 3, 6) == [(0, (1, 3)), (1, (3, 4)), (2, (5, 5))]
    assert pairs("uniform_last", 4, 12) == [(0, (2, 8)), (1, (5, 9)), (2, (8, 10)), (3, (11, 11))]


def test_a_student_deeper_than_its_teacher_stays_inside_it():
    assert pairs("uniform_last", 4, 2) == [(0, (0, 0)), (1, (0, 0)), (2, (1, 0)), (3, (1, 1))]


@pytest.mark.parametrize("name", ["uniform", "last", "uniform_last"])
@given(student=DEPTH, teacher=DEPTH)
def test_links_are_inside_both_models_and_end_at_the_last_layers(name, student, teacher):
    links = layer_links(name, student, teacher)
    students = [link.student for link in links]
    assert students == sorted(set(students))
    assert students[-1] == student - 1
    assert all(0 <= layer < teacher for link in links for layer in link.teacher)
    assert set(links[-1].teacher) == {teacher - 1}
    assert len({len(link.teacher) for link in links}) == 1
    for rule in zip(*(link.teacher for link in links), strict=True):
        assert list(rule) == sorted(rule)


@given(student=DEPTH, teacher=DEPTH)
def test_the_uniform_layer_is_the_first_one_as_deep_relative_to_its_model(student, teacher):
    for layer in range(student):
        found = uniform_layer(layer, student, teacher)
        assert (found + 1) * student >= (layer + 1) * teacher
        assert found * student < (layer + 1) * teacher


@given(depth=DEPTH)
def test_models_of_one_depth_are_linked_layer_by_layer(depth):
    assert pairs("uniform", depth, depth) == [(i, (i,)) for i in range(depth)]
    assert pairs("uniform_last", depth, depth) == [(i, (i, i)) for i in range(depth)]


def test_genes_count_teacher_layers_from_1_and_0_is_none():
    assert gene_links((0, 5, 10), 3, 12) == (
        LayerLink(student=1, teacher=(4,)),
        LayerLink(student=2, teacher=(9,)),
    )
    assert gene_links((0, 0), 2, 6) == ()


@pytest.mark.parametrize(
    ("genes", "said"),
    [((1,), "1 genes, but the student 2"), ((0, 7), "7 is no layer"), ((-1, 2), "-1 is no layer")],
)
def test_genes_that_do_not_fit_are_refused(genes, said):
    with pytest.raises(SettingsError, match=said):
        gene_links(genes, 2, 6)


def test_a_map_is_a_name_or_genes():
    assert links_of("uniform", 2, 6) == links_of((3, 6), 2, 6)
    assert links_of("last", 2, 6) == links_of((0, 6), 2, 6)
