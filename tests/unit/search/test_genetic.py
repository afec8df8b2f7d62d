"""Strategies of layer maps: what they propose, and that nothing but seed and maps told counts."""

import numpy as np
import pytest

from stillhouse.errors import SettingsError
from stillhouse.search.genetic import (
    Evolution,
    GeneticMaps,
    RandomMaps,
    crossed,
    mutated,
    selection_weights,
)
from stillhouse.search.map_space import MapSpace

SPACE = MapSpace(layers=3, teacher_layers=6)
LARGE = MapSpace(layers=6, teacher_layers=12)
STRATEGIES = [GeneticMaps, RandomMaps]


def fitness_of(genes):
    """A separable fitness, negative everywhere, best at a map that has a layer without any."""
    wanted = (0, 2, 5, 7, 9, 12)
    return -1.0 - sum(abs(gene - aim) for gene, aim in zip(genes, wanted, strict=False))


def run(strategy, evaluations, fitness=fitness_of, count=1):
    """Asks and tells; gives the maps in the order in which they were told."""
    found = []
    while len(found) < evaluations and (asked := strategy.ask(count)):
        for genes in asked[: evaluations - len(found)]:
            strategy.tell({genes: fitness(genes)})
            found.append(genes)
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_maps_are_proposed_once_each_and_then_none(strategy):
    maker = strategy(SPACE, 3)
    found = run(maker, 10_000)
    assert sorted(found) == sorted(SPACE.enumerate())
    assert maker.ask(5) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_seed_is_one_course_and_another_another(strategy):
    assert run(strategy(LARGE, 3), 60) == run(strategy(LARGE, 3), 60)
    assert run(strategy(LARGE, 3), 60) != run(strategy(LARGE, 4), 60)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stop", [1, 19, 20, 21, 47])
def test_a_search_that_was_interrupted_goes_on_as_if_it_never_had_been(strategy, stop):
    whole = run(strategy(LARGE, 5), 70)
    again = strategy(LARGE, 5)
    again.tell({genes: fitness_of(genes) for genes in reversed(whole[:stop])})  # in any order
    assert run(again, 70 - stop) == whole[stop:]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asking_without_telling_changes_nothing(strategy):
    one, another = strategy(LARGE, 6), strategy(LARGE, 6)
    for _ in range(3):
        one.ask(7)
    assert run(one, 50) == run(another, 50)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batches_are_the_same_maps_as_one_at_a_time(strategy):
    assert run(strategy(LARGE, 7), 60, count=8) == run(strategy(LARGE, 7), 60)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_given_maps_come_first_where_they_are_in_the_space(strategy):
    first = [(2, 4, 6), (0, 0, 6), (2, 4, 6), (0, 0, 7), (6, 1, 0)]
    assert strategy(SPACE, 0, first=first).ask(2) == [(2, 4, 6), (0, 0, 6)]


@pytest.mark.parametrize(
    "fitness",
    [
        pytest.param(lambda _: 0.5, id="all equal"),
        pytest.param(lambda _: None, id="all failed"),
        pytest.param(lambda genes: None if genes[0] else fitness_of(genes), id="some failed"),
        pytest.param(lambda genes: 1e-320 * sum(genes), id="hardly different"),
    ],
)
def test_a_genetic_search_survives_any_fitness(fitness):
    found = run(GeneticMaps(SPACE, 1), 138, fitness=fitness)
    assert len(set(found)) == 138


def test_a_failed_map_is_never_a_parent_nor_elite():
    weights = selection_weights([-3.0, None, -1.0, None])
    assert weights[1] == weights[3] == 0
    # above the worst (0, 2 of a range of 2), plus a share of 1 / 4: 1/4 and 5/4
    np.testing.assert_allclose(weights, [1 / 6, 0, 5 / 6, 0])


@pytest.mark.parametrize("fitness", [[0.7, 0.7, 0.7], [None, None, None]])
def test_equals_are_parents_alike(fitness):
    np.testing.assert_allclose(selection_weights(fitness), [1 / 3] * 3)


def test_selection_does_not_care_for_shift_and_scale():
    one = selection_weights([0.1, 0.5, 0.3])
    np.testing.assert_allclose(one, selection_weights([-90.0, -50.0, -70.0]))


def test_children_have_genes_of_both_parents_up_to_a_point():
    generator = np.random.default_rng(0)
    children = {crossed((1, 1, 1), (2, 2, 2), generator) for _ in range(50)}
    assert children == {(1, 2, 2), (1, 1, 2)}
    assert crossed((4,), (5,), generator) == (4,)


def test_genes_are_drawn_anew_as_often_as_is_said():
    generator = np.random.default_rng(0)
    assert mutated((7,) * 50, 0.0, 6, generator) == (7,) * 50
    assert 7 not in mutated((7,) * 50, 1.0, 6, generator)
    changed = sum(mutated((7,), 0.3, 6, generator) != (7,) for _ in range(2_000))
    assert 0.26 < changed / 2_000 < 0.34  # ± 4 standard errors


def test_the_elite_goes_on_and_others_are_children():
    # All maps of the first generation are known; the second has its 2 best and 2 others.
    space, evolution = LARGE, Evolution(population=4, elite_fraction=0.5, mutation=0.5)
    maker = GeneticMaps(space, 2, evolution=evolution)
    first = maker.ask(10)
    assert len(first) == 4
    maker.tell({genes: fitness_of(genes) for genes in first})
    assert len(maker.ask(10)) <= 2
    assert not set(maker.ask(10)) & set(first)


def test_without_mutation_children_are_crossed_and_chance_brings_what_is_new():
    space = MapSpace(layers=2, teacher_layers=3)
    evolution = Evolution(population=2, mutation=0.0)
    found = run(GeneticMaps(space, 0, evolution=evolution), 100, fitness=lambda _: 1.0)
    assert sorted(found) == sorted(space.enumerate())


def test_a_fitness_that_changes_breeds_anew():
    told = GeneticMaps(LARGE, 8)
    first = told.ask(20)
    told.tell({genes: fitness_of(genes) for genes in first})
    before = told.ask(20)
    turned = {genes: -fitness_of(genes) for genes in first}
    told.tell(turned)
    fresh = GeneticMaps(LARGE, 8)
    fresh.tell(turned)
    assert told.ask(20) == fresh.ask(20) != before


def test_a_genetic_search_finds_more_than_chance_on_a_separable_fitness():
    def best(strategy, seed):
        return max(map(fitness_of, run(strategy(LARGE, seed), 155)))

    gaps = [best(GeneticMaps, seed) - best(RandomMaps, seed) for seed in range(8)]
    assert np.mean(gaps) > 1
    assert min(gaps) >= 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "a population needs 2 maps, an elite and a child, got 1"),
        ({"elite_fraction": 0.0}, "an elite of 0 leaves a population of 20 without"),
        ({"population": 4, "elite_fraction": 0.9}, "an elite of 0.9 leaves a population of 4"),
        ({"crossover": -0.1}, "crossover must be in 0..1, got -0.1"),
        ({"mutation": 1.1}, "mutation must be in 0..1, got 1.1"),
    ],
)
def test_what_cannot_breed_is_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Evolution(**settings)


def test_how_many_maps_the_generations_have():
    assert Evolution().judged_in(1) == 20
    assert Evolution().judged_in(10) == 155
    assert Evolution(population=3, elite_fraction=0.1).elites == 1
