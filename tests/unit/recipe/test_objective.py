import pytest
from transformers import BertConfig

from stillhouse.distill.signals import EMBEDDINGS
from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm
from stillhouse.errors import SettingsError
from stillhouse.recipe.objective import (
    check_hidden_quality,
    check_layer_map,
    distillation_terms,
    hidden_links,
    told_layer_map,
)
from stillhouse.run.settings import DistillSettings

STUDENT = BertConfig(num_hidden_layers=2, hidden_size=16)
TEACHER = BertConfig(num_hidden_layers=6, hidden_size=32)


def terms_of(*, kind="classes", **settings):
    made = DistillSettings(**settings)
    return distillation_terms(made, STUDENT, TEACHER, kind=kind, seed=0)


def test_by_default_the_teachers_outputs_alone():
    assert terms_of() == [LogitTerm()]


def test_every_weight_above_zero_is_a_term():
    logits, labels, hidden = terms_of(
        logit_weight=0.5, temperature=2.0, label_weight=0.25, hidden_weight=3.0
    )
    assert (logits.weight, logits.temperature) == (0.5, 2.0)
    assert labels == LabelTerm(weight=0.25)
    assert isinstance(hidden, HiddenTerm)
    assert hidden.weight == 3.0
    assert (hidden.projection.in_features, hidden.projection.out_features) == (16, 32)


@pytest.mark.parametrize(
    ("name", "read"), [("uniform", {2, 5}), ("last", {5}), ("uniform_last", {2, 4, 5})]
)
def test_the_layer_map_tells_which_teacher_layers_are_read(name, read):
    # 1-based: student 1, 2 learn from teacher 3, 6; the last two of the teacher are 5, 6.
    terms = terms_of(hidden_weight=1.0, layer_map=name)
    assert terms[-1].teacher_layers == frozenset(read)


def test_genes_say_which_layers_learn_states_and_attention():
    _, hidden, attention = terms_of(hidden_weight=1.0, attention_weight=2.0, layer_map=(0, 5))
    assert (hidden.student_layers, hidden.teacher_layers) == ({1}, {4})
    assert (attention.student_attention, attention.teacher_attention) == ({1}, {4})
    assert attention.weight == 2.0


def test_genes_of_0_leave_the_outputs_and_perhaps_the_embeddings():
    off = {"hidden_weight": 1.0, "attention_weight": 1.0, "layer_map": (0, 0)}
    assert terms_of(**off) == [LogitTerm()]
    _, hidden = terms_of(**off, embeddings=True)
    assert hidden.student_layers == hidden.teacher_layers == {EMBEDDINGS}


def test_embeddings_join_a_map_of_two_layers_each():
    _, hidden = terms_of(hidden_weight=1.0, embeddings=True, layer_map="uniform_last")
    assert hidden.links[0].teacher == (EMBEDDINGS, EMBEDDINGS)


def test_a_map_still_to_be_searched_is_uniform():
    _, hidden = terms_of(hidden_weight=1.0, layer_map="search")
    assert hidden.teacher_layers == {2, 5}


@pytest.mark.parametrize("kind", ["multi_label", "scores"])
def test_the_losses_know_what_the_labels_are(kind):
    assert [term.kind for term in terms_of(kind=kind, label_weight=1)] == [kind] * 2


def told(**settings):
    return told_layer_map(DistillSettings(**settings), STUDENT, TEACHER)


def test_a_students_map_is_told_as_genes():
    assert told() == {}  # outputs alone need none
    assert told(hidden_weight=1.0) == {"layer_map": [3, 6]}
    assert told(attention_weight=1.0, layer_map="last") == {"layer_map": [0, 6]}
    assert told(hidden_weight=1.0, layer_map=(0, 5)) == {"layer_map": [0, 5]}
    assert told(hidden_weight=1.0, layer_map=(0, 0)) == {"layer_map": [0, 0]}
    both = told(hidden_weight=1.0, layer_map="uniform_last")
    assert both == {"layer_map": "uniform_last"}  # two teacher layers each


def check(genes, depths):
    check_layer_map(DistillSettings(hidden_weight=1.0, layer_map=genes), depths, TEACHER)


def test_genes_that_fit_every_depth_and_all_rules_are_taken():
    check((0, 6), [2, 2])
    check("uniform_last", [1, 2, 3])
    check("search", [1, 2, 3])


@pytest.mark.parametrize(
    ("genes", "depths", "message"),
    [
        ((0, 6), [1, 2, 3, 3], r"is for students of 2 layers, but .* of 1, 3 as well"),
        ((0, 6), [3], r"\[0, 6\] has 2 genes, but the student 3 layers"),
        ((0, 7), [2], "7 is no layer of the teacher, which has 6"),
    ],
)
def test_genes_that_do_not_fit_are_refused(genes, depths, message):
    with pytest.raises(SettingsError, match=message):
        check(genes, depths)


@pytest.mark.parametrize(
    "weights",
    [
        {"hidden_weight": 1.0},
        {"attention_weight": 1.0, "embeddings": True},  # of whose states there is no loss
        {"hidden_weight": 1.0, "embeddings": True},
        {"logit_weight": 1.0, "hidden_weight": 1.0},
        {"label_weight": 1.0, "hidden_weight": 1.0},
    ],
)
def test_genes_of_0_are_refused_where_they_leave_no_term(weights):
    """What is refused is what the objective itself has no term for."""
    settings = DistillSettings(**{"logit_weight": 0.0, **weights, "layer_map": (0, 0)})
    if distillation_terms(settings, STUDENT, TEACHER, kind="classes", seed=0):
        check_layer_map(settings, [2, 2], TEACHER)
    else:
        assert weights.get("embeddings", False) is False or "attention_weight" in weights
        with pytest.raises(SettingsError, match=r"layer map \[0, 0\] links no layer.*embeddings"):
            check_layer_map(settings, [2, 2], TEACHER)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("layer_map", [(0, 0), (0, 6), "last", "search"])
def test_hidden_states_judge_where_some_are_linked(layer_map, embeddings):
    settings = DistillSettings(hidden_weight=1.0, layer_map=layer_map, embeddings=embeddings)
    if hidden_links(settings, STUDENT, TEACHER):
        check_hidden_quality(settings)
    else:
        assert (layer_map, embeddings) == ((0, 0), False)
        with pytest.raises(SettingsError, match=r"search\.quality hidden .* \[0, 0\] links no"):
            check_hidden_quality(settings)
