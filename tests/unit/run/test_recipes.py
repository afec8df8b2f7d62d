import pytest

from stillhouse.errors import SettingsError
from stillhouse.run.recipes import RECIPE_NAMES, with_recipe
from stillhouse.run.settings import settings_from_dict


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_makes_valid_settings(name):
    assert settings_from_dict({"recipe": name}).recipe == name


def test_no_recipe_is_the_plain_one():
    assert settings_from_dict({}) == settings_from_dict({"recipe": "plain"})


def test_kd_nas_searches_its_space_with_its_controller():
    settings = settings_from_dict({"recipe": "kd-nas"})
    assert settings.search.strategy == "controller"
    assert settings.space.base == "kd-nas-wide"
    assert settings.distill.layer_map == "uniform_last"
    # With winners and controls together a rank correlation can just be told.
    assert settings.final.students + settings.final.controls == 8


def test_a_layer_map_is_searched_with_the_objective_of_its_judge():
    on_text = settings_from_dict({"recipe": "layer-map"}).distill
    general = settings_from_dict({"recipe": "general"}).distill
    assert on_text.layer_map == "search"
    assert (on_text.logit_weight, on_text.hidden_weight) == (0, general.hidden_weight)
    assert on_text.embeddings
    on_task = settings_from_dict({"recipe": "layer-map", "layer_map": {"judge": "task"}})
    assert (on_task.distill.logit_weight, on_task.distill.attention_weight) == (1, 1)
    assert on_task.distill.layer_map == "search"
    assert settings_from_dict(on_task.to_dict()) == on_task


def test_what_the_user_gives_wins_and_the_rest_of_the_section_stays():
    settings = settings_from_dict({"recipe": "kd-nas", "final": {"controls": 0}})
    assert settings.final.controls == 0
    assert settings.final.students == 4


def test_resolved_settings_resolve_to_themselves():
    settings = settings_from_dict({"recipe": "kd-nas", "distill": {"hidden_weight": 0.5}})
    assert settings_from_dict(settings.to_dict()) == settings


def test_the_given_mapping_is_left_alone():
    given = {"recipe": "kd-nas", "final": {"epochs": 1.0}}
    with_recipe(given)
    assert given == {"recipe": "kd-nas", "final": {"epochs": 1.0}}


@pytest.mark.parametrize("name", ["kd_nas", 3, ["kd-nas"]])
def test_an_unknown_recipe_is_refused(name):
    with pytest.raises(SettingsError, match="recipe"):
        settings_from_dict({"recipe": name})


@pytest.mark.parametrize(
    ("given", "candidates"),
    [
        ({}, 60),
        ({"controller": "published"}, 300),  # 15 episodes of 20
        ({"seconds": 60}, 60),  # the episodes need a number to be planned
        ({"candidates": 12}, 12),
    ],
)
def test_the_controller_always_knows_its_candidates(given, candidates):
    settings = settings_from_dict({"recipe": "kd-nas", "search": given})
    assert settings.search.most_candidates == candidates
