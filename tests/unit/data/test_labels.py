import logging

import pytest

from stillhouse.data.labels import (
    are_numbers,
    check_classes,
    check_present,
    class_names,
    encode_classes,
    encode_numbers,
)
from stillhouse.errors import DataError


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "1", "0"], False),
        ([0, 1, 2], False),
        (["good", "bad"], False),
        ([True, False], False),
        ([str(number) for number in range(50)], False),
        ([str(number) for number in range(51)], True),
        (["0.5", "1.25", "3"], True),
        ([0.5, 1.25, 3.0], True),
        (["0.5", "1.25", "oops"], True),
        (["0.5", "oops", "more"], False),
    ],
)
def test_decimals_or_many_numbers_mean_regression(labels, expected):
    assert are_numbers(labels, None) is expected


def test_the_metric_decides_where_it_is_given():
    assert are_numbers(["1", "2", "3"], "pearson")
    assert not are_numbers(["0.0", "1.0"], "accuracy")


def test_few_decimal_values_are_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        assert are_numbers(["0.0", "1.0"], None)
    assert "only 2 distinct" in caplog.text


def test_whole_numbers_sort_by_value_and_words_by_letter():
    assert class_names(["10", "9", "-1", "9"]) == ("-1", "9", "10")
    assert class_names([2, 10, 1]) == ("1", "2", "10")
    assert class_names(["pos", "neg", "10", " neg "]) == ("10", "neg", "pos")


def test_a_number_is_one_class_however_it_is_typed():
    assert class_names([1, 1.0, "1", " 1 ", 2.5, True]) == ("1", "2.5", "True")
    assert encode_classes([1.0, "1", 0], ("0", "1"), where="train") == (1, 1, 0)


def test_classes_are_numbered_by_name():
    assert encode_classes(["b", "a ", "b"], ("a", "b"), where="train") == (1, 0, 1)


def test_an_unseen_class_is_named():
    with pytest.raises(DataError, match=r"dev\.csv: 1 label.*never occur.*'maybe'.*'no', 'yes'"):
        encode_classes(["yes", "maybe"], ("no", "yes"), where="dev.csv")


@pytest.mark.parametrize("label", ["abc", "inf", True])
def test_a_label_that_is_no_number_is_refused_for_regression(label):
    with pytest.raises(DataError, match=r"of example 2 is not a finite number"):
        encode_numbers([1.0, label], where="train")


@pytest.mark.parametrize("label", [None, "", "  ", "NaN", float("nan")])
def test_missing_labels_are_refused(label):
    with pytest.raises(DataError, match=r"1 of 3 examples have no label, first example 2"):
        check_present(["a", label, "b"], where="train")


def test_one_class_is_refused_and_a_single_example_warned_of(caplog):
    with pytest.raises(DataError, match="only class is 'b'"):
        check_classes([1, 1], ("a", "b"), where="train")
    with caplog.at_level(logging.WARNING):
        check_classes([0, 1, 1], ("rare", "b"), where="train")
    assert "'rare'" in caplog.text
