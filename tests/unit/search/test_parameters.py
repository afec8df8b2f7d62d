from optuna.distributions import CategoricalDistribution, IntDistribution

from stillhouse.search.parameters import distributions, to_indices, to_parameters
from stillhouse.space.architecture import BertArchitecture
from stillhouse.space.search_space import Dimension, SearchSpace

SPACE = SearchSpace(
    (
        Dimension("layers", (2, 4, 8)),
        Dimension("hidden_size", (64,)),
        Dimension("heads", (1, 2)),
        Dimension("ffn_ratio", (0.5, 1, 2)),
        Dimension("activation", ("silu", "gelu")),
    )
)


def test_numbers_are_ordered_indices_and_activations_are_names():
    assert distributions(SPACE) == {
        "layers": IntDistribution(0, 2),
        "hidden_size": IntDistribution(0, 0),
        "heads": IntDistribution(0, 1),
        "ffn_ratio": IntDistribution(0, 2),
        "activation": CategoricalDistribution(["silu", "gelu"]),
    }


def test_there_and_back():
    architecture = BertArchitecture(
        layers=8, hidden_size=64, heads=2, ffn_size=32, activation="gelu"
    )
    parameters = to_parameters(SPACE, architecture)
    assert parameters == {
        "layers": 2,
        "hidden_size": 0,
        "heads": 1,
        "ffn_ratio": 0,
        "activation": "gelu",
    }
    assert SPACE.decode(to_indices(SPACE, parameters)) == architecture
