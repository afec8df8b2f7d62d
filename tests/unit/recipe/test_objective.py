import pytest
from transformers import BertConfig

from stillhouse.distill.terms import HiddenTerm, LabelTerm, LogitTerm
from stillhouse.recipe.objective import distillation_terms, teacher_layers
from stillhouse.run.settings import DistillSettings

STUDENT = BertConfig(num_hidden_layers=2, hidden_size=16)
TEACHER = BertConfig(num_hidden_layers=6, hidden_size=32)


def terms_of(*, kind="classes", **settings):
    made = DistillSettings(**settings)
    return distillation_terms(made, STUDENT, TEACHER, kind=kind, seed=0)


def test_by_default_the_teachers_outputs_alone():
    assert terms_of() == [LogitTerm()]
    assert teacher_layers(terms_of()) == frozenset()


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
    terms = terms_of(hidden_weight=1.0, hidden_map=name)
    assert teacher_layers(terms) == frozenset(read)


@pytest.mark.parametrize("kind", ["multi_label", "scores"])
def test_the_losses_know_what_the_labels_are(kind):
    assert [term.kind for term in terms_of(kind=kind, label_weight=1)] == [kind] * 2
