import pytest

from stillhouse.data.metric_names import USUAL_METRICS, metric_name, order_metrics
from stillhouse.errors import SettingsError


def test_without_a_choice_the_usual_order_stays():
    assert order_metrics(("accuracy", "f1"), None, kind="classes", classes=2) == ("accuracy", "f1")


def test_the_chosen_metric_comes_first_and_only_once():
    assert order_metrics(("accuracy", "f1"), "f1", kind="classes", classes=2) == ("f1", "accuracy")
    assert order_metrics(("accuracy",), "mcc", kind="classes", classes=3) == ("mcc", "accuracy")


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(
        SettingsError,
        match=r"'bleu'.*accuracy, f1, f1_macro, mcc, f1_micro, subset_accuracy, pearson",
    ):
        metric_name("bleu")


@pytest.mark.parametrize(
    ("metric", "kind", "classes", "message"),
    [
        ("pearson", "classes", 2, "classification task; choose one of accuracy"),
        ("accuracy", "scores", 0, "regression task; choose one of pearson, spearman"),
        ("f1", "classes", 3, "needs two classes, but the task has 3"),
        ("f1_micro", "classes", 3, "of a multi-label task are lists"),
        ("accuracy", "tags", 2, "tagging task; choose one of entity_f1"),
        ("f1", "spans", 0, "question-answering task; choose one of exact_match, answer_f1"),
        ("entity_f1", "tags", 2, "for tags of chunks such as 'B-NP', .* choose 'tag_accuracy'"),
        ("f1", "multi_label", 2, "choose one of f1_micro, f1_macro, subset_accuracy$"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric, kind, classes, message):
    with pytest.raises(SettingsError, match=message):
        order_metrics((), metric, kind=kind, classes=classes)


def test_tags_of_chunks_have_metrics_of_chunks():
    usual = USUAL_METRICS["tags"]
    assert order_metrics(usual, "entity_recall", kind="tags", classes=3)[0] == "entity_recall"
    assert order_metrics(usual, "tag_accuracy", kind="tags", classes=3)[:2] == (
        "tag_accuracy",
        "entity_f1",
    )
    assert order_metrics(("tag_accuracy",), "tag_accuracy", kind="tags", classes=3) == (
        "tag_accuracy",
    )
