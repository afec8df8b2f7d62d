import pytest

from stillhouse.data.metric_names import metric_name, order_metrics
from stillhouse.errors import SettingsError


def test_without_a_choice_the_usual_order_stays():
    assert order_metrics(("accuracy", "f1"), None, classes=2) == ("accuracy", "f1")


def test_the_chosen_metric_comes_first_and_only_once():
    assert order_metrics(("accuracy", "f1"), "f1", classes=2) == ("f1", "accuracy")
    assert order_metrics(("accuracy",), "mcc", classes=3) == ("mcc", "accuracy")


def test_an_unknown_metric_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"'bleu'.*accuracy, f1, f1_macro, mcc, pearson"):
        metric_name("bleu")


@pytest.mark.parametrize(
    ("metric", "classes", "message"),
    [
        ("pearson", 2, "classification task; choose one of accuracy"),
        ("accuracy", 0, "regression task; choose one of pearson, spearman"),
        ("f1", 3, "needs two classes, but the task has 3"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(metric, classes, message):
    with pytest.raises(SettingsError, match=message):
        order_metrics((), metric, classes=classes)
