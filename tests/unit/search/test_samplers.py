import typing

import optuna
import pytest

from stillhouse.search.samplers import SamplerName, make_sampler


def test_classes():
    classes = {
        "random": optuna.samplers.RandomSampler,
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
        "nsga2": optuna.samplers.NSGAIISampler,
    }
    assert set(typing.get_args(SamplerName)) == set(classes)
    for name, kind in classes.items():
        assert type(make_sampler(name)(3)) is kind


def test_each_call_makes_a_fresh_one():
    make = make_sampler("tpe")
    assert make(1) is not make(1)


def test_population_is_20():
    assert make_sampler("nsga2")(0).population_size == 20


def test_unknown_name_is_our_mistake():
    with pytest.raises(KeyError):
        make_sampler("annealing")


def test_another_number_of_first_trials():
    assert make_sampler("tpe", 3)(0)._n_startup_trials == 3
    assert make_sampler("gp", 3)(0)._n_startup_trials == 3
    assert make_sampler("nsga2", 3)(0).population_size == 3
