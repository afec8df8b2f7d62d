"""Strategies that propose layer maps: ELM's genetic algorithm, and distinct maps by chance.

What either proposes is a function of its seed and of the maps told, whatever their order, so that
an interrupted search goes on as if it never had been once a new strategy is told what was judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from stillhouse.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stillhouse.distill.layer_maps import Genes
    from stillhouse.search.map_space import MapSpace

_FEWEST = 2
_ATTEMPTS = 50
"""Children that may come out like one of their generation before chance draws another map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evolution:
    """Constants of the genetic algorithm.

    Attributes:
        population: Maps of a generation, fewer where the space has no more.
        elite_fraction: Share of a generation that goes on as it is, the best; at least one map.
        crossover: Probability that a child has genes of two parents.
        mutation: Probability, for each gene of a child, that it is drawn anew.

    Source: ELM (Jiao et al., arXiv 2012.06153) has these operators; its constants are not known,
    ours are usual ones.
    """

    population: int = 20
    elite_fraction: float = 0.25
    crossover: float = 0.5
    mutation: float = 0.1

    def __post_init__(self) -> None:
        """Refuses a generation without elite or without children, and no probabilities."""
        if self.population < _FEWEST:
            raise SettingsError(
                f"a population needs {_FEWEST} maps, an elite and a child, got {self.population}"
            )
        if not 0 < self.elite_fraction < 1 or self.elites >= self.population:
            raise SettingsError(
                f"an elite of {self.elite_fraction:g} leaves a population of {self.population} "
                "without elite or without children: take a share above 0 and below 1 that leaves "
                "a child"
            )
        for name in ("crossover", "mutation"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} must be in 0..1, got {getattr(self, name)}")

    @property
    def elites(self) -> int:
        """Maps of a generation that go on as they are."""
        return max(1, round(self.elite_fraction * self.population))

    def judged_in(self, generations: int) -> int:
        """Counts the maps of so many generations if none comes again: elites are known."""
        return self.population + (generations - 1) * (self.population - self.elites)


@final
class GeneticMaps:
    """ELM's genetic algorithm, on maps whose fitness is told.

    Parents are drawn in proportion to what their fitness has above the worst of the generation;
    the plain fitness of scores between 0.7 and 0.8 would hardly prefer any. A failed map is no
    parent. Children have genes of two parents up to a point, some drawn anew, and their teacher
    layers in order. Within a generation all maps differ; maps of earlier ones come again, and cost
    nothing. A generation of such alone gets one new map by chance, so that a search of small
    spaces ends.

    Args:
        space: Where to search.
        seed: Of all proposals, at least 0.
        evolution: Sizes and probabilities.
        first: Maps that the first generation begins with; chance draws the others.
    """

    def __init__(
        self,
        space: MapSpace,
        seed: int,
        *,
        evolution: Evolution | None = None,
        first: Sequence[Genes] = (),
    ) -> None:
        """Start knowing no map."""
        self._space = space
        self._seed = seed
        self._evolution = evolution or Evolution()
        self._size = min(self._evolution.population, space.size())
        self._told: dict[Genes, float | None] = {}
        start = _known_maps(space, first)[: self._size]
        generator = np.random.default_rng([seed, 0])
        while len(start) < self._size:
            start.append(_unlike(space, start, generator))
        self._generations = [start]

    def ask(self, count: int) -> list[Genes]:
        """Propose the next maps of the first generation that is not all judged.

        Args:
            count: Most maps, at least 1.

        Returns:
            Maps that were not told; fewer at the end of a generation, none when all are told.
        """
        if len(self._told) >= self._space.size():
            return []
        while not (new := [one for one in self._generations[-1] if one not in self._told]):
            self._generations.append(self._next_generation())
        return new[:count]

    def tell(self, judged: Mapping[Genes, float | None]) -> None:
        """Learn what became of maps.

        Args:
            judged: Fitness by map, higher is better, of any sign; `None` of a failed one.
        """
        if any(self._told.get(genes, fitness) != fitness for genes, fitness in judged.items()):
            del self._generations[1:]  # they were bred from what is no longer so
        self._told.update(judged)

    def _next_generation(self) -> list[Genes]:
        parents = self._generations[-1]
        fitness = [self._told[genes] for genes in parents]
        generator = np.random.default_rng([self._seed, len(self._generations)])
        weights = selection_weights(fitness)
        ranked = sorted(zip(fitness, parents, strict=True), key=lambda pair: _descending(pair[0]))
        children = [genes for told, genes in ranked if told is not None][: self._evolution.elites]
        while len(children) < self._size:
            children.append(self._child(parents, weights, children, generator))
        seen = {genes for generation in self._generations for genes in generation}
        if len(seen) < self._space.size() and seen.issuperset(children):
            children[-1] = _unlike(self._space, seen, generator)
        return children

    def _child(
        self,
        parents: Sequence[Genes],
        weights: NDArray[np.float64],
        siblings: Sequence[Genes],
        generator: np.random.Generator,
    ) -> Genes:
        """Breeds a map unlike its siblings; where parents only breed such, chance draws one."""
        for _ in range(_ATTEMPTS):
            mother, father = (parents[n] for n in generator.choice(len(parents), 2, p=weights))
            child = mother
            if generator.random() < self._evolution.crossover:
                child = crossed(mother, father, generator)
            child = mutated(child, self._evolution.mutation, self._space.teacher_layers, generator)
            child = self._space.in_order(child)
            if child in self._space and child not in siblings:
                return child
        return _unlike(self._space, siblings, generator)


@final
class RandomMaps:
    """Proposes distinct maps by chance, whatever is told of others.

    Args:
        space: Where to search.
        seed: Of all proposals, at least 0.
        first: Maps that are proposed before all others.
    """

    def __init__(self, space: MapSpace, seed: int, *, first: Sequence[Genes] = ()) -> None:
        """Start knowing no map."""
        self._space = space
        self._generator = np.random.default_rng([seed, 0])
        self._drawn = dict.fromkeys(_known_maps(space, first))
        self._told: set[Genes] = set()

    def ask(self, count: int) -> list[Genes]:
        """Propose the next maps of one fixed order that were not told, as `GeneticMaps`."""
        wanted = min(count, self._space.size() - len(self._told))
        while len(new := [one for one in self._drawn if one not in self._told]) < wanted:
            self._drawn[_unlike(self._space, self._drawn, self._generator)] = None
        return new[:wanted]

    def tell(self, judged: Mapping[Genes, float | None]) -> None:
        """Learn which maps were judged."""
        self._told |= judged.keys()


def selection_weights(fitness: Sequence[float | None]) -> NDArray[np.float64]:
    """Gives each map of a generation its probability to be a parent.

    Args:
        fitness: Of any sign; `None` of a failed map.

    Returns:
        As many probabilities: in proportion to what a fitness has above the worst, plus one share
        of the range, so that the worst may breed, too; equal where all are equal or have failed.
    """
    living = np.array([told is not None for told in fitness])
    if not living.any():
        return np.full(len(fitness), 1 / len(fitness))
    values = np.array([0.0 if told is None else told for told in fitness])
    above = np.where(living, values - values[living].min(), 0.0)
    span = above.max()
    weights: NDArray[np.float64] = np.where(
        living, above / span + 1 / len(fitness) if span else 1.0, 0.0
    )
    weights /= weights.sum()
    return weights


def crossed(mother: Genes, father: Genes, generator: np.random.Generator) -> Genes:
    """Takes the first genes of one parent and the others of another, at least one of each."""
    if len(mother) == 1:
        return mother
    point = int(generator.integers(1, len(mother)))
    return mother[:point] + father[point:]


def mutated(
    genes: Genes, probability: float, teacher_layers: int, generator: np.random.Generator
) -> Genes:
    """Draws genes anew, each with the same probability, from 0 to the teacher's layers."""
    drawn = generator.integers(teacher_layers + 1, size=len(genes)).tolist()
    changes = generator.random(len(genes)) < probability
    return tuple(new if one else old for old, new, one in zip(genes, drawn, changes, strict=True))


def _descending(fitness: float | None) -> float:
    return np.inf if fitness is None else -fitness


def _known_maps(space: MapSpace, maps: Sequence[Genes]) -> list[Genes]:
    """Leaves out what comes again or is not in the space."""
    return [genes for genes in dict.fromkeys(maps) if genes in space]


def _unlike(
    space: MapSpace,
    others: Sequence[Genes] | Mapping[Genes, None] | set[Genes],
    generator: np.random.Generator,
) -> Genes:
    """Draws a map that is none of the others; there must be one."""
    while (genes := space.sample(generator)) in others:
        pass
    return genes
