"""A search space: named finite dimensions, and the rules that cut the grid of their values."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from stillhouse.errors import SpaceError
from stillhouse.space.architecture import ACTIVATIONS, Architecture
from stillhouse.space.constraints import Constraint
from stillhouse.space.counts import count_encoder_parameters
from stillhouse.space.families import DIMENSION_NAMES, Value, family_of

_NOT_WHOLE = ("ffn_ratio", "activation")
_MUTATION_TRIES = 100


@dataclass(frozen=True, slots=True)
class Dimension:
    """One choice of a search space.

    Args:
        name: Of plain encoders one of layers, hidden_size, heads, head_size, ffn_size, ffn_ratio
            (feed-forward size over hidden size) and activation; of MobileBERTs one of layers,
            hidden_size, bottleneck_size, heads, ffn_size, ffn_count and embedding_size.
        values: What it may be: strictly increasing positive numbers (whole ones but for
            ffn_ratio), or distinct activations.

    Raises:
        SpaceError: The name is unknown or the values break the rule.
    """

    name: str
    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Check the name, then the values by the rule of that name."""
        if self.name not in DIMENSION_NAMES:
            known = ", ".join(DIMENSION_NAMES)
            raise SpaceError(f"a dimension is one of {known}, got {self.name!r}")
        if not self.values:
            raise SpaceError(f"dimension {self.name} has no values; give at least one")
        if self.name == "activation":
            self._check_activations()
        else:
            self._check_numbers()

    @property
    def ordered(self) -> bool:
        """Whether neighbouring indices mean similar values."""
        return not isinstance(self.values[0], str)

    def _check_activations(self) -> None:
        unknown = [value for value in self.values if value not in ACTIVATIONS]
        if unknown or len(set(self.values)) < len(self.values):
            raise SpaceError(
                f"the values of activation must be distinct and among {', '.join(ACTIVATIONS)}, "
                f"got {self.values}"
            )

    def _check_numbers(self) -> None:
        whole = self.name not in _NOT_WHOLE
        previous = 0.0
        for value in self.values:
            if (
                isinstance(value, bool | str)
                or not previous < value < math.inf
                or (whole and not isinstance(value, int))
            ):
                kind = "whole numbers" if whole else "numbers"
                raise SpaceError(
                    f"the values of {self.name} must be strictly increasing positive {kind}, "
                    f"got {self.values}"
                )
            previous = value


@final
class SearchSpace:
    """All architectures on the grid of the dimensions that can be built and are allowed.

    Two different points of the grid never mean the same architecture, so a strategy may work on
    indices alone. The allowed ones are listed once, at the first question that needs the list.

    A space is of plain encoders, or of MobileBERTs if it has the dimension bottleneck_size.

    With either heads or head_size, the heads share the width out among them, and points where they
    do not divide it are left out. With both, heads are free: every point can be built. The heads of
    a MobileBERT share out the bottleneck.

    Args:
        dimensions: layers, hidden_size, heads or head_size or both, ffn_size or ffn_ratio, and
            optionally activation (gelu if left out); of MobileBERTs layers, hidden_size,
            bottleneck_size, heads, ffn_size, ffn_count and optionally embedding_size (128 if left
            out); each once, in the order of enumeration.
        constraints: Rules that every architecture of the space keeps.

    Raises:
        SpaceError: A dimension is missing, twice there, or excludes another; or two values of
            ffn_ratio round to the same feed-forward size.
    """

    def __init__(
        self, dimensions: tuple[Dimension, ...], constraints: tuple[Constraint, ...] = ()
    ) -> None:
        """Check that the dimensions describe an architecture, fully and in one way only."""
        self.dimensions = tuple(dimensions)
        self.constraints = tuple(constraints)
        self._by_name = {dimension.name: dimension for dimension in self.dimensions}
        _check_names([dimension.name for dimension in self.dimensions])
        self._names = frozenset(self._by_name)
        self._family = family_of(self._names)
        self._family.check({item.name: item.values for item in self.dimensions})

    @property
    def grid_size(self) -> int:
        """Number of points on the grid, before anything is ruled out."""
        return math.prod(len(dimension.values) for dimension in self.dimensions)

    def size(self) -> int:
        """Count the allowed architectures exactly."""
        return len(self._allowed)

    def __len__(self) -> int:
        """Count the allowed architectures exactly, as `size` does."""
        return self.size()

    def enumerate(self) -> Iterator[Architecture]:
        """Yield every allowed architecture once; the last dimension turns fastest."""
        return iter(self._allowed)

    def __iter__(self) -> Iterator[Architecture]:
        """Yield every allowed architecture once, as `enumerate` does."""
        return self.enumerate()

    def contains(self, architecture: Architecture) -> bool:
        """Tell whether the architecture is on the grid and allowed."""
        indices = self._indices(architecture)
        return indices is not None and self.try_decode(indices) is not None

    def encode(self, architecture: Architecture) -> dict[str, int]:
        """Return the index of the architecture's value in each dimension.

        Raises:
            SpaceError: The architecture is not in the space.
        """
        indices = self._indices(architecture)
        if indices is None or self.try_decode(indices) is None:
            raise SpaceError(
                f"{architecture.label} is not in the search space; {self._reason(architecture)}"
            )
        return indices

    def decode(self, indices: Mapping[str, int]) -> Architecture:
        """Return the architecture at these indices.

        Args:
            indices: One index per dimension, by name.

        Raises:
            SpaceError: The indices do not fit the dimensions, cannot be built, or are ruled out.
        """
        architecture = self.try_decode(indices)
        if architecture is None:
            raise SpaceError(
                f"the point {dict(indices)} is not in the search space: its heads do not divide "
                f"its width, or a constraint refuses it "
                f"({'; '.join(rule.description for rule in self.constraints) or 'there are none'})"
            )
        return architecture

    def try_decode(self, indices: Mapping[str, int]) -> Architecture | None:
        """Return the architecture at these indices, or None if it is not in the space.

        Raises:
            SpaceError: The indices do not fit the dimensions.
        """
        self._check_indices(indices)
        architecture = self._family.build(
            {item.name: item.values[indices[item.name]] for item in self.dimensions}
        )
        if architecture is None or not all(rule.allows(architecture) for rule in self.constraints):
            return None
        return architecture

    def sample(self, generator: np.random.Generator) -> Architecture:
        """Draw one allowed architecture, all equally likely.

        Raises:
            SpaceError: The space is empty.
        """
        self._check_not_empty()
        return self._allowed[generator.integers(len(self._allowed))]

    def mutate(
        self, architecture: Architecture, generator: np.random.Generator, probability: float = 0.3
    ) -> Architecture:
        """Redraw each dimension with some probability, until the result is allowed and new.

        Args:
            architecture: The parent, itself in the space.
            generator: Source of randomness.
            probability: Chance of each dimension to change, 0..1.

        Returns:
            Another architecture of the space; the parent only if it is the only one.

        Raises:
            SpaceError: The parent is not in the space.
        """
        parent = self.encode(architecture)
        for _ in range(_MUTATION_TRIES):
            child = self._redraw(parent, generator, probability)
            mutant = self.try_decode(child)
            if mutant is not None and child != parent:
                return mutant
        others = [other for other in self._allowed if other != architecture]
        return others[generator.integers(len(others))] if others else architecture

    def smallest(self) -> Architecture:
        """Return the architecture with the fewest encoder parameters.

        Raises:
            SpaceError: The space is empty.
        """
        self._check_not_empty()
        return min(self._allowed, key=count_encoder_parameters)

    def with_constraint(self, constraint: Constraint) -> "SearchSpace":
        """Return the space narrowed by one more rule."""
        return SearchSpace(self.dimensions, (*self.constraints, constraint))

    @cached_property
    def _allowed(self) -> tuple[Architecture, ...]:
        names = [dimension.name for dimension in self.dimensions]
        grid = itertools.product(*(range(len(dimension.values)) for dimension in self.dimensions))
        decoded = (self.try_decode(dict(zip(names, point, strict=True))) for point in grid)
        return tuple(architecture for architecture in decoded if architecture is not None)

    def _indices(self, architecture: Architecture) -> dict[str, int] | None:
        if not self._family.has(architecture, self._names):
            return None
        indices = {}
        for item in self.dimensions:
            place = self._family.place(architecture, item.name, item.values)
            if place is None:
                return None
            indices[item.name] = place
        return indices

    def _redraw(
        self, parent: Mapping[str, int], generator: np.random.Generator, probability: float
    ) -> dict[str, int]:
        child = dict(parent)
        for dimension in self.dimensions:
            others = len(dimension.values) - 1
            if others and generator.random() < probability:
                step = 1 + int(generator.integers(others))
                child[dimension.name] = (parent[dimension.name] + step) % (others + 1)
        return child

    def _reason(self, architecture: Architecture) -> str:
        refused = [rule.description for rule in self.constraints if not rule.allows(architecture)]
        if refused:
            return f"it must have {'; '.join(refused)}"
        if architecture.has_free_heads and not self._names.issuperset(("heads", "head_size")):
            return "its heads must share hidden_size among them: the space lacks heads or head_size"
        grid = ", ".join(f"{item.name} {item.values}" for item in self.dimensions)
        return f"choose among {grid}"

    def _check_indices(self, indices: Mapping[str, int]) -> None:
        if indices.keys() != self._by_name.keys():
            raise SpaceError(
                f"indices are needed for {', '.join(self._by_name)}, got {', '.join(indices)}"
            )
        for dimension in self.dimensions:
            if not 0 <= indices[dimension.name] < len(dimension.values):
                raise SpaceError(
                    f"the index of {dimension.name} must be 0 to {len(dimension.values) - 1}, "
                    f"got {indices[dimension.name]}"
                )

    def _check_not_empty(self) -> None:
        if not self._allowed:
            rules = "; ".join(rule.description for rule in self.constraints) or "none"
            raise SpaceError(
                f"the search space holds no architecture: of {self.grid_size} points none can be "
                f"built and keeps the constraints ({rules}); add values or loosen a constraint"
            )


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpaceError(f"dimension {', '.join(twice)} is there twice; merge its values")
