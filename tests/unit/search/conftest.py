"""A space of 36 architectures, and made-up outcomes that need no training."""

import pytest

from stillhouse.search.trial import Trial, TrialState
from stillhouse.space.search_space import Dimension, SearchSpace


@pytest.fixture
def space():
    return SearchSpace(
        (
            Dimension("layers", (1, 2, 4)),
            Dimension("hidden_size", (16, 32, 64)),
            Dimension("head_size", (8, 16)),
            Dimension("ffn_ratio", (2, 4)),
            Dimension("activation", ("gelu",)),
        )
    )


@pytest.fixture
def make_trial(space):
    """Trial `number` of the architecture at `place` of the enumeration."""
    architectures = list(space.enumerate())

    def make(number=0, state=TrialState.COMPLETE, place=None, **fields):
        if state is TrialState.COMPLETE:
            fields = {"quality": 0.5, "latency_ms": 1.0, **fields}
        architecture = architectures[number if place is None else place]
        return Trial(number=number, architecture=architecture, state=state, **fields)

    return make
