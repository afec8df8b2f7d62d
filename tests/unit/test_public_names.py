import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import stillhouse

ROOMS = {"benchmark"}


@pytest.mark.parametrize("name", sorted(set(stillhouse.__all__) - ROOMS))
def test_every_public_name_loads(name):
    found = getattr(stillhouse, name)
    assert callable(found)
    assert not isinstance(found, ModuleType)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        stillhouse.serach  # noqa: B018


def test_the_names_are_sorted_and_each_has_a_home():
    assert stillhouse.__all__ == sorted(stillhouse.__all__)
    assert stillhouse._HOMES.keys() == set(stillhouse.__all__) - ROOMS


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_importing_loads_no_torch():
    assert run("import stillhouse, sys; print('torch' in sys.modules)").stdout == "False\n"


def test_a_public_room_loads_at_its_first_use_and_without_torch():
    code = (
        "import stillhouse, sys; before = 'stillhouse.benchmark' in sys.modules; "
        "stillhouse.benchmark.names(); print(before, 'torch' in sys.modules)"
    )
    assert run(code).stdout == "False False\n"


def test_a_function_is_not_hidden_by_the_room_of_the_same_name():
    code = "from stillhouse import search, evaluate; print(type(search), type(evaluate))"
    assert run(code).stdout == "<class 'function'> <class 'function'>\n"
    import_module("stillhouse.search.trial")
    import_module("stillhouse.evaluate.metrics")
    assert not isinstance(stillhouse.search, ModuleType)
    assert not isinstance(stillhouse.evaluate, ModuleType)
