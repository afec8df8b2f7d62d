"""A point of a search space as Optuna parameters: the dimension's name, the value's index."""

from collections.abc import Mapping

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from stillhouse.space.architecture import Architecture
from stillhouse.space.search_space import Dimension, SearchSpace


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Return one distribution per dimension: an ordered index, or the names themselves."""
    return {dimension.name: _distribution(dimension) for dimension in space.dimensions}


def to_parameters(space: SearchSpace, architecture: Architecture) -> dict[str, int | str]:
    """Return the parameters that stand for an architecture of the space."""
    indices = space.encode(architecture)
    return {
        dimension.name: index if dimension.ordered else str(dimension.values[index])
        for dimension in space.dimensions
        for index in (indices[dimension.name],)
    }


def to_indices(space: SearchSpace, parameters: Mapping[str, int | str]) -> dict[str, int]:
    """Return the point of the space's grid, allowed or not, that the parameters stand for."""
    return {
        dimension.name: int(value) if dimension.ordered else dimension.values.index(value)
        for dimension in space.dimensions
        for value in (parameters[dimension.name],)
    }


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.ordered:
        return IntDistribution(0, len(dimension.values) - 1)
    return CategoricalDistribution([str(value) for value in dimension.values])
