"""The space of layer maps: for each student layer the teacher layer that it learns from, or none.

Written here: M layers of the student, N of the teacher.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import comb

import numpy as np

from stillhouse.distill.layer_maps import Genes
from stillhouse.errors import SpaceError


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpace:
    """All layer maps that a search may try.

    Attributes:
        layers: M, genes of a map.
        teacher_layers: N, the largest gene; 0 means that a layer has no supervision.
        any_order: Whether a layer may learn from a teacher layer below that of an earlier layer.
        with_empty: Whether the map without any supervision is one; where nothing else is learnt,
            it would train nothing.

    Source: ELM (Jiao et al., arXiv 2012.06153) has (N + 1)^M maps. Ours do not fall unless
    `any_order` says so: whether the paper's may is not known, and a layer that should know more
    than the one above it can only undo work.
    """

    layers: int
    teacher_layers: int
    any_order: bool = False
    with_empty: bool = True

    def __post_init__(self) -> None:
        """Refuses a student or a teacher without layers."""
        if self.layers < 1 or self.teacher_layers < 1:
            raise SpaceError(
                "a layer map needs a layer of the student and one of the teacher, got "
                f"{self.layers} and {self.teacher_layers}"
            )

    def size(self) -> int:
        """Counts the maps.

        In any order there are (N + 1)^M. Otherwise k supervised layers stand in C(M, k) places, and
        their teacher layers are one of C(N + k − 1, k) multisets, for k from 0 to M.
        """
        every = (self.teacher_layers + 1) ** self.layers if self.any_order else sum(self._counts())
        return every - (not self.with_empty)

    def __contains__(self, genes: object) -> bool:
        """Tells whether genes are a map of the space."""
        if not isinstance(genes, tuple) or len(genes) != self.layers:
            return False
        if not all(0 <= gene <= self.teacher_layers for gene in genes):
            return False
        if not any(genes):
            return self.with_empty
        return self.in_order(genes) == genes

    def in_order(self, genes: Genes) -> Genes:
        """Puts the teacher layers into order, where that is asked for; layers without stay so."""
        if self.any_order:
            return genes
        rising = iter(sorted(gene for gene in genes if gene))
        return tuple(next(rising) if gene else 0 for gene in genes)

    def sample(self, generator: np.random.Generator) -> Genes:
        """Draws a map, each as likely as any other."""
        while True:
            genes = self._draw(generator)
            if any(genes) or self.with_empty:
                return genes

    def enumerate(self) -> Iterator[Genes]:
        """Yields every map, for spaces small enough to be walked through."""
        numbers = range(self.teacher_layers + 1)
        return (genes for genes in product(numbers, repeat=self.layers) if genes in self)

    def _draw(self, generator: np.random.Generator) -> Genes:
        if self.any_order:
            return tuple(generator.integers(self.teacher_layers + 1, size=self.layers).tolist())
        counts = np.array(self._counts(), dtype=float)
        supervised = int(generator.choice(len(counts), p=counts / counts.sum()))
        genes = np.zeros(self.layers, dtype=int)
        if supervised:
            places = generator.choice(self.layers, supervised, replace=False)
            # Stars and bars: different numbers, less their rank, are a multiset.
            drawn = generator.choice(
                self.teacher_layers + supervised - 1, supervised, replace=False
            )
            genes[np.sort(places)] = np.sort(drawn) - np.arange(supervised) + 1
        return tuple(genes.tolist())

    def _counts(self) -> list[int]:
        """Counts the maps in order by how many layers they supervise, from 0 to M."""
        return [
            comb(self.layers, count) * comb(self.teacher_layers + count - 1, count)
            for count in range(self.layers + 1)
        ]
