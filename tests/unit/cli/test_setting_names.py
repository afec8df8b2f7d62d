"""The settings as read from source are those of the classes."""

import dataclasses
import subprocess
import sys
import typing

from stillhouse.cli.setting_names import choices, keys, names_in, words_in
from stillhouse.data.glue import GLUE_TASKS
from stillhouse.data.squad import SQUAD_TASKS
from stillhouse.device.kinds import MEASURED
from stillhouse.recipe.profile_job import SPACES
from stillhouse.run.recipes import RECIPE_NAMES
from stillhouse.run.settings import RunSettings, StrategyName


def leaves():
    for field in dataclasses.fields(RunSettings):
        section = field.default_factory
        if dataclasses.is_dataclass(section):
            yield from (f"{field.name}.{inner.name}" for inner in dataclasses.fields(section))
        else:
            yield field.name


def test_every_setting_is_known_in_its_order():
    assert [key.path for key in keys()] == list(leaves())


def test_every_setting_of_a_section_says_what_it_means():
    assert [key.path for key in keys() if "." in key.path and not key.told] == []


def test_words_that_a_setting_may_be():
    assert choices("search.strategy") == typing.get_args(StrategyName)
    assert choices("recipe") == RECIPE_NAMES
    assert choices("teacher.finetune") == ("auto", "always", "never")
    assert choices("distill.embeddings") == ("true", "false")
    assert set(choices("device.kind")) == {"auto", "table", "analytic", "predicted", *MEASURED}
    assert choices("search.epochs") == ()
    assert choices("no.such") == ()


def test_names_of_tables_and_types():
    assert names_in("stillhouse.data.glue", "GLUE_TASKS") == tuple(GLUE_TASKS)
    assert names_in("stillhouse.data.squad", "SQUAD_TASKS") == tuple(SQUAD_TASKS)
    assert words_in("stillhouse.recipe.profile_job", "SpaceName") == SPACES


def test_nothing_heavy_is_loaded():
    code = (
        "import sys; from stillhouse.cli.setting_names import keys; assert keys(); "
        "print({'torch', 'pydantic', 'datasets', 'numpy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
