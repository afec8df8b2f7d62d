import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from stillhouse.search.reward_lstm import RewardLstm, reward_lstm

SIZES = [5, 4, 3]


def examples(count, seed=0):
    """Random states, and rewards that add up from the candidate's indices."""
    generator = np.random.default_rng(seed)
    inputs = generator.integers(SIZES, size=(count, 3, 3))
    return inputs, (inputs[:, 2] / SIZES).sum(axis=1)


def fitted(inputs, rewards, seed=0, passes=80):
    model = RewardLstm(SIZES, seed)
    model.fit(inputs, rewards, passes=passes, learning_rate=1e-2)
    return model


def test_learns_a_sum():
    model = fitted(*examples(120))
    unseen, rewards = examples(60, seed=1)
    assert spearmanr(model.predict(unseen), rewards).statistic > 0.8


def test_a_number_for_each_example():
    predicted = RewardLstm(SIZES, 0).predict(examples(7)[0])
    assert predicted.shape == (7,)
    assert predicted.dtype == np.float64


def test_same_seed_same_model_and_another_seed_another():
    inputs, rewards = examples(20)
    one, same, other = (fitted(inputs, rewards, seed=seed, passes=5) for seed in (0, 0, 1))
    assert np.array_equal(one.predict(inputs), same.predict(inputs))
    assert not np.allclose(one.predict(inputs), other.predict(inputs))


def test_leaves_the_randomness_of_torch_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fitted(*examples(9), passes=2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_state_counts(place):
    inputs, rewards = examples(20)
    model = fitted(inputs, rewards, passes=5)
    changed = inputs.copy()
    changed[:, place, 0] = (changed[:, place, 0] + 1) % SIZES[0]
    assert np.abs(model.predict(changed) - model.predict(inputs)).min() > 1e-6


def test_the_same_index_of_two_dimensions_means_two_things():
    model = RewardLstm([2, 2], 0)
    one, other = np.array([[[0, 1]] * 3]), np.array([[[1, 0]] * 3])
    assert model.predict(one) != pytest.approx(model.predict(other))


def test_the_last_value_of_every_dimension_is_known(space):
    model = reward_lstm(space)(3)
    last = [len(dimension.values) - 1 for dimension in space.dimensions]
    assert np.isfinite(model.predict(np.array([[last] * 3]))).all()


def test_goes_on_from_what_it_knows():
    inputs, rewards = examples(30)
    model = fitted(inputs, rewards, passes=30)
    before = np.square(model.predict(inputs) - rewards).mean()
    model.fit(inputs, rewards, passes=60, learning_rate=3e-3)
    assert np.square(model.predict(inputs) - rewards).mean() < before


def test_trains_where_gradients_are_off():
    inputs, rewards = examples(5)
    with torch.no_grad():
        inside = fitted(inputs, rewards, passes=3).predict(inputs)
    assert np.array_equal(inside, fitted(inputs, rewards, passes=3).predict(inputs))
