from stillhouse.report.measures import loyalty_note, read_measures

FIELDS = {
    "loyalty": {
        "label": 0.95,
        "label_low": 0.9,
        "label_high": 0.99,
        "probability": 0.8,
        "probability_low": None,
        "probability_high": None,
        "base": "e",
        "count": 872,
        "reason": "",
    },
    "labels": [{"label": "NP", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 4}],
}


def test_what_is_known_is_read():
    told = read_measures(FIELDS)
    assert told.has_loyalty
    assert (told.label_loyalty.value, told.label_loyalty.interval) == (0.95, "0.900 to 0.990")
    assert (told.probability_loyalty.value, told.probability_loyalty.interval) == (0.8, "")
    [row] = told.labels
    assert (row.label, row.recall, row.support) == ("NP", 0.5, 4)
    assert "by natural logarithms" in loyalty_note([told])


def test_of_a_student_without_a_task_nothing_is_told():
    told = read_measures({})
    assert not told.has_loyalty
    assert told.labels == ()
    assert loyalty_note([told]) == ""


def test_a_regression_has_no_loyalty():
    told = read_measures({"loyalty": {"label": None, "probability": None, "base": "e"}})
    assert not told.has_loyalty


def test_bases_are_named():
    two = read_measures({"loyalty": {"label": 0.5, "base": "2"}})
    assert "by natural logarithms and logarithms to base 2" in loyalty_note(
        [read_measures(FIELDS), two]
    )
