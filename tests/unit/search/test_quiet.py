import warnings

import optuna
import pytest
from optuna.exceptions import ExperimentalWarning

from stillhouse.search.quiet import quiet_optuna


@pytest.fixture(autouse=True)
def _restore_level():
    level = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(level)


@pytest.mark.parametrize(
    ("outside", "inside"),
    [
        (optuna.logging.INFO, optuna.logging.WARNING),
        (optuna.logging.ERROR, optuna.logging.ERROR),
    ],
)
def test_level_inside_and_after(outside, inside):
    optuna.logging.set_verbosity(outside)
    with quiet_optuna():
        assert optuna.logging.get_verbosity() == inside
    assert optuna.logging.get_verbosity() == outside


def test_level_returns_after_an_error():
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with pytest.raises(KeyError), quiet_optuna():
        raise KeyError
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_only_experimental_warnings_are_silent():
    with quiet_optuna():
        warnings.warn("new", ExperimentalWarning, stacklevel=1)
        with pytest.raises(FutureWarning, match="old"):
            warnings.warn("old", FutureWarning, stacklevel=1)
