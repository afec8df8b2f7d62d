import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from stillhouse.data.metric_names import SPAN_METRICS, TAG_METRICS
from stillhouse.errors import DataError, SettingsError, TrainingError
from stillhouse.evaluate.metrics import (
    best_constant_f1,
    bootstrap,
    constant_quality,
    metric_names,
    paired_bootstrap,
    score,
)


def classified(examples, classes, seed=0, skill=1.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=examples)
    logits = generator.normal(size=(examples, classes))
    logits[np.arange(examples), labels] += skill
    return logits, labels


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_classification_agrees_with_scikit_learn(classes, seed):
    logits, labels = classified(200, classes, seed)
    predicted = logits.argmax(axis=1)
    scores = score(("accuracy", "f1_macro", "mcc"), logits, labels)
    assert scores["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert scores["f1_macro"] == pytest.approx(
        reference.f1_score(labels, predicted, average="macro")
    )
    assert scores["mcc"] == pytest.approx(reference.matthews_corrcoef(labels, predicted))


def test_binary_f1_is_that_of_class_one():
    predicted, labels = np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0])
    # 2 hits, 1 false alarm, 1 miss: 2*2 / (2*2 + 1 + 1)
    assert score(("f1",), np.eye(2)[predicted], labels) == {"f1": pytest.approx(2 / 3)}


def test_macro_f1_leaves_out_classes_that_never_occur():
    labels, predicted = np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2])
    scores = score(("f1_macro",), np.eye(5)[predicted], labels)
    expected = reference.f1_score(labels, predicted, average="macro")
    assert scores["f1_macro"] == pytest.approx(expected)


def class_sets(examples, classes, seed=0, skill=1.0):
    generator = np.random.default_rng(seed)
    labels = (generator.random((examples, classes)) < 0.3).astype(np.float32)
    return generator.normal(size=labels.shape) + skill * (2 * labels - 1), labels


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_agrees_with_counts(seed):
    logits, labels = class_sets(200, 4, seed)
    named, true = logits > 0, labels == 1
    hits, wrong = (named & true).sum(axis=0), (named ^ true).sum(axis=0)
    scores = score(("f1_micro", "f1_macro", "subset_accuracy"), logits, labels)
    assert scores["f1_micro"] == pytest.approx(2 * hits.sum() / (2 * hits.sum() + wrong.sum()))
    assert scores["f1_macro"] == pytest.approx((2 * hits / (2 * hits + wrong)).mean())
    assert scores["subset_accuracy"] == pytest.approx((named == true).all(axis=1).mean())
    assert scores["f1_macro"] == pytest.approx(reference.f1_score(labels, named, average="macro"))


def test_classes_without_examples_count_zero_and_nothing_named_is_no_error():
    labels = np.array([[1, 0, 0], [0, 1, 0]])
    scores = score(("f1_macro", "f1_micro"), np.where(labels, 1.0, -1.0), labels)
    assert scores == {"f1_macro": pytest.approx(2 / 3), "f1_micro": 1.0}
    # A logit of 0 is no yes.
    silent = score(("f1_micro", "f1_macro", "subset_accuracy"), np.zeros((2, 3)), labels)
    assert silent == {"f1_micro": 0.0, "f1_macro": 0.0, "subset_accuracy": 0.0}
    nothing = score(("f1_micro", "subset_accuracy"), -np.ones((1, 3)), np.zeros((1, 3)))
    assert nothing == {"f1_micro": 0.0, "subset_accuracy": 1.0}


def test_the_interval_of_subset_accuracy_is_the_binomial_one():
    labels = np.ones((400, 2))
    logits = np.where(np.arange(400)[:, None] < 320, 1.0, [[1.0, -1.0]])
    interval = bootstrap("subset_accuracy", logits, labels, seed=0, resamples=5_000)
    expected = stats.binom(400, 0.8).ppf([0.025, 0.975]) / 400
    assert interval == pytest.approx(expected, abs=0.005)


def test_models_of_a_multi_label_task_are_compared_in_pairs():
    good, labels = class_sets(500, 4, skill=2.0)
    worse = good + np.random.default_rng(5).normal(size=good.shape)
    difference, low, high = paired_bootstrap("f1_micro", good, worse, labels, 0, 300)
    ours, theirs = (score(("f1_micro",), logits, labels)["f1_micro"] for logits in (good, worse))
    assert difference == pytest.approx(ours - theirs)
    assert 0 < low < difference < high


@pytest.mark.parametrize("seed", range(5))
def test_the_best_constant_answer_is_the_best_of_all(seed):
    _, labels = class_sets(30, 4, seed)
    answers = itertools.product([1.0, -1.0], repeat=4)
    best = max(score(("f1_micro",), np.tile(each, (30, 1)), labels)["f1_micro"] for each in answers)
    assert best_constant_f1(labels) == pytest.approx(best)
    assert best_constant_f1(np.zeros((3, 2))) == 0


@pytest.mark.parametrize("shape", [(100, 1), (100,)])
def test_regression_agrees_with_scipy(shape):
    generator = np.random.default_rng(0)
    labels = np.round(generator.uniform(0, 5, 100), 1).astype(np.float32)
    logits = (labels + generator.normal(size=100)).astype(np.float32)
    scores = score(("pearson", "spearman"), logits.reshape(shape), labels)
    assert list(scores) == ["pearson", "spearman"]
    assert scores["pearson"] == pytest.approx(stats.pearsonr(logits, labels)[0], abs=1e-6)
    assert scores["spearman"] == pytest.approx(stats.spearmanr(logits, labels)[0], abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e7])
def test_a_constant_prediction_has_no_correlation(value):
    labels = np.arange(30) / 7
    constant = np.full((30, 1), value, dtype=np.float32)
    assert score(("pearson", "spearman"), constant, labels) == {"pearson": 0.0, "spearman": 0.0}
    assert score(("pearson",), labels, np.full(30, 0.3)) == {"pearson": 0.0}
    one_class = np.tile([1.0, 0.0], (30, 1))
    assert score(("mcc", "f1"), one_class, np.arange(30) % 2) == {"mcc": 0.0, "f1": 0.0}


def test_a_single_example_is_scored():
    assert score(("accuracy", "mcc"), [[0.0, 1.0]], [1]) == {"accuracy": 1.0, "mcc": 0.0}
    assert score(("pearson",), [[0.5]], [1.0]) == {"pearson": 0.0}


@pytest.mark.parametrize(
    ("metric", "logits", "labels", "error", "message"),
    [
        ("bleu", [[0.0, 1.0]], [1], SettingsError, "accuracy, f1, f1_macro"),
        ("f1", [[0.0, 1.0, 2.0]], [1], SettingsError, "choose f1_macro"),
        ("accuracy", [[0.0]], [0], SettingsError, "an output for every class"),
        ("pearson", [[0.0, 1.0]], [1], SettingsError, "one output"),
        ("accuracy", [[0.0, 1.0]], [1, 0], DataError, "shape"),
        ("accuracy", np.empty((0, 2)), [], DataError, "N at least 1"),
        ("accuracy", [[0.0, 1.0]], [-100], DataError, "score labelled examples only"),
        ("accuracy", [[0.0, 1.0]], [2], DataError, "0 to 1"),
        ("accuracy", [[0.0, 1.0]], [0.5], DataError, "float64 numbers"),
        ("pearson", [[0.0], [1.0]], [0.5, np.nan], DataError, "labels hold NaN"),
        ("accuracy", [[np.nan, 1.0]], [1], TrainingError, "diverged"),
        ("accuracy", [[0.0, 1.0]], [[0, 1]], SettingsError, "choose one of f1_micro"),
        ("f1_micro", [[1.0]], [[1]], SettingsError, "two or more classes"),
        ("f1_micro", [[0.0, 1.0]], [1], SettingsError, "multi-label"),
        ("tag_accuracy", [[0.0, 1.0]], [1], SettingsError, "needs tags of words"),
        ("answer_f1", [[0.0, 1.0]], [[0, 1]], SettingsError, "needs questions"),
        ("f1_micro", [[0.0, 1.0]], [[0, np.nan]], DataError, "score labelled examples only"),
        ("f1_micro", [[0.0, 1.0]], [[0, 1, 1]], DataError, "shape"),
        ("f1_micro", [[0.0, np.inf]], [[0, 1]], TrainingError, "diverged"),
    ],
)
def test_what_cannot_be_scored_is_refused(metric, logits, labels, error, message):
    with pytest.raises(error, match=message):
        score((metric,), logits, labels)


def test_the_interval_of_accuracy_is_the_binomial_one():
    predicted, labels = np.repeat([1, 0], [320, 80]), np.ones(400, dtype=int)
    low, high = bootstrap("accuracy", np.eye(2)[predicted], labels, seed=0, resamples=20_000)
    expected = stats.binom(400, 0.8).ppf([0.025, 0.975]) / 400
    assert (low, high) == pytest.approx(expected, abs=0.003)


def test_the_interval_of_a_correlation_is_fishers():
    generator = np.random.default_rng(1)
    labels = generator.normal(size=500)
    logits = (labels + generator.normal(size=500))[:, None]
    expected = stats.pearsonr(logits[:, 0], labels).confidence_interval()
    assert bootstrap("pearson", logits, labels, 0) == pytest.approx(expected, abs=0.02)
    low, high = bootstrap("spearman", logits, labels, 0, 500)
    assert low < score(("spearman",), logits, labels)["spearman"] < high


def test_the_paired_interval_is_that_of_the_mean_difference():
    logits_a, labels = classified(1_000, 3, seed=0, skill=2.0)
    logits_b = logits_a + np.random.default_rng(5).normal(size=logits_a.shape)
    right_a, right_b = (part.argmax(axis=1) == labels for part in (logits_a, logits_b))
    each = right_a.astype(float) - right_b
    difference, low, high = paired_bootstrap("accuracy", logits_a, logits_b, labels, 0)
    assert difference == pytest.approx(each.mean())
    half = 1.96 * each.std(ddof=1) / np.sqrt(1_000)
    assert (low, high) == pytest.approx((each.mean() - half, each.mean() + half), abs=0.003)


@pytest.mark.parametrize("metric", [name for name in metric_names() if name != "f1"])
def test_equal_models_do_not_differ(metric, tagged, made_up):
    if metric in TAG_METRICS:
        right = [["B-NP", "I-NP", "O"], ["O", "B-NP"], ["I-NP"]] * 10
        logits, labels = tagged(right, right, ["O", "B-NP", "I-NP"])
        logits = np.random.default_rng(0).normal(size=logits.shape)
    elif metric in SPAN_METRICS:
        logits, labels = made_up(50)
    elif metric in ("pearson", "spearman"):
        labels = np.arange(50.0)
        logits = np.sin(labels)[:, None]
    elif metric in ("f1_micro", "subset_accuracy"):
        logits, labels = class_sets(50, 3)
    else:
        logits, labels = classified(50, 3)
    assert paired_bootstrap(metric, logits, logits, labels, 0, 200) == (0.0, 0.0, 0.0)


def test_the_seed_decides():
    logits, labels = classified(100, 3)
    whole = bootstrap("f1_macro", logits, labels, 0, 300)
    assert whole == bootstrap("f1_macro", logits, labels, 0, 300)
    assert whole != bootstrap("f1_macro", logits, labels, 1, 300)


def test_a_bootstrap_needs_resamples():
    with pytest.raises(SettingsError, match="resamples is 0"):
        bootstrap("accuracy", [[0.0, 1.0]], [1], 0, 0)


def test_the_best_constant_answer_is_the_most_frequent_class():
    labels = np.array([0, 1, 1, 2, 1])
    assert constant_quality("accuracy", labels, classes=3) == pytest.approx(0.6)
    assert constant_quality("mcc", labels, classes=3) == 0
    assert constant_quality("f1", np.array([0, 0, 1]), classes=2) == pytest.approx(0.5)
    assert constant_quality("spearman", np.array([0.1, 0.5]), classes=1) == 0
    sets = np.array([[1, 0], [1, 0], [0, 1]])
    assert constant_quality("f1_micro", sets, classes=2) == best_constant_f1(sets)
    assert constant_quality("subset_accuracy", sets, classes=2) == 0
