import json

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from stillhouse.data.table import load_table, load_unlabelled
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError, SettingsError


def rows(count, label=lambda number: number % 2, text="text"):
    return f"{text},label\n" + "".join(f"row {i},{label(i)}\n" for i in range(count))


def test_a_table_becomes_a_task_with_a_stratified_dev_set(write):
    path = write("reviews.csv", rows(200, label=lambda number: "pos" if number % 4 else "neg"))
    task = load_task(TaskSettings(name=str(path)))
    assert task.name == "reviews.csv"
    assert task.label_names == ("neg", "pos")
    assert task.metrics == ("accuracy", "f1_macro")
    assert task.train.column_names == ["text_a", "label"]
    assert (len(task.train), len(task.dev)) == (180, 20)
    assert sum(task.dev["label"]) == 15
    number = int(task.dev[0]["text_a"].removeprefix("row "))
    assert task.dev[0]["label"] == (1 if number % 4 else 0)
    assert not task.is_regression


def test_a_given_dev_set_and_a_pair_of_columns_are_used(write):
    train = write("train.csv", "q,r,y\n" + "".join(f"q{i},r{i},{i % 2}\n" for i in range(6)))
    dev = write("dev.tsv", "y\tr\tq\n1\tR\tQ\n")
    settings = TaskSettings(name=str(train), dev=str(dev), text=("q", "r"), label="y", metric="f1")
    task = load_task(settings)
    assert task.dev[:] == {"text_a": ["Q"], "text_b": ["R"], "label": [1]}
    assert len(task.train) == 6
    assert task.metrics == ("f1", "accuracy", "f1_macro")


def test_decimal_labels_make_a_regression(write):
    path = write("t.csv", rows(40, label=lambda number: number / 8))
    task = load_task(TaskSettings(name=str(path), metric="spearman"))
    assert task.is_regression
    assert task.metrics == ("spearman", "pearson")
    assert set(task.train["label"]) | set(task.dev["label"]) == {i / 8 for i in range(40)}


def test_whole_numbers_with_a_regression_metric_make_a_regression(write):
    task = load_task(TaskSettings(name=str(write("t.csv", rows(40))), metric="pearson"))
    assert task.label_names == ()
    assert set(task.train["label"]) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("train", "dev", "message"),
    [
        ("text;label\na;1\n", None, r"no column 'text'; its columns are 'text;label'"),
        ("text,y\na,1\n", None, r"no column 'label'; its columns are 'text', 'y'"),
        ("text,label\na,1\nb,\n", None, "1 of 2 examples have no label, first example 2"),
        ("text,label\na,1\nb,1\nc,1\n", None, "at least two classes"),
        ("text,label\na,0.5\nb,x\nc,1.5\n", None, "label 'x' of example 2"),
        ("text,label\na,yes\nb,no\n", "text,label\na,maybe\n", r"dev\.csv.*'maybe'"),
        ("text,label\na,0.5\nb,1.5\n", "text,label\na,high\n", r"dev\.csv.*'high'"),
        ("text,label\na,0.5\n", None, "cannot hold 1 of 1"),
    ],
)
def test_unusable_tables_are_refused(write, train, dev, message):
    dev_path = None if dev is None else str(write("dev.csv", dev))
    with pytest.raises(DataError, match=message):
        load_task(TaskSettings(name=str(write("train.csv", train)), dev=dev_path))


def test_a_metric_that_does_not_fit_is_refused(write):
    path = write("t.csv", rows(30, label=lambda number: number % 3))
    with pytest.raises(SettingsError, match="choose 'f1_macro'"):
        load_task(TaskSettings(name=str(path), metric="f1"))


def test_without_a_dev_set_no_dev_text_stays_in_train(write):
    text = "text,label\n" + "".join(f"row {i % 50},{i % 2}\n" for i in range(200))
    source = load_table(write("t.csv", text), dev=None, text=(), label=None, metric=None)
    assert not set(source.dev["text_a"]) & set(source.train["text_a"])


def test_unlabelled_texts_come_from_a_text_file_or_a_table(write):
    lines = load_unlabelled(write("more.txt", "one\r\n\ntwo\n"), text=("text",), pairs=False)
    assert lines[:] == {"text_a": ["one", "two"]}
    table = load_unlabelled(write("more.csv", "b,a,z\n1,2,3\n"), text=("a", "b"), pairs=True)
    assert table[:] == {"text_a": ["2"], "text_b": ["1"]}


def test_unusable_unlabelled_files_are_refused(write):
    with pytest.raises(DataError, match="pairs of texts"):
        load_unlabelled(write("more.txt", "one\n"), text=("a", "b"), pairs=True)
    with pytest.raises(DataError, match="is empty"):
        load_unlabelled(write("none.txt", "\n\n"), text=("a",), pairs=False)
    with pytest.raises(DataError, match="no column 'a'"):
        load_unlabelled(write("more.csv", "b\n1\n"), text=("a",), pairs=False)


def test_empty_texts_are_warned_of(write, caplog):
    path = write("t.csv", rows(30) + ",1\n")
    load_task(TaskSettings(name=str(path)))
    assert "1 of 31 texts are empty" in caplog.text


def json_lines(*rows):
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def test_json_lines_keep_their_types(write):
    numbers = [{"text": f"row {i}", "label": i + 0.5} for i in range(20)]
    assert load_task(TaskSettings(name=str(write("t.jsonl", json_lines(*numbers))))).is_regression
    texts = [{"text": f"row {i}", "label": str(i % 2)} for i in range(20)]
    assert load_task(TaskSettings(name=str(write("t.jsonl", json_lines(*texts))))).label_names == (
        "0",
        "1",
    )
    answers = [{"text": f"row {i}", "label": i % 3 == 0} for i in range(20)]
    task = load_task(TaskSettings(name=str(write("t.jsonl", json_lines(*answers)))))
    assert task.label_names == ("False", "True")


def test_one_number_is_one_class_however_it_is_written(write):
    train = write("t.jsonl", json_lines(*({"text": f"row {i}", "label": i % 2} for i in range(9))))
    dev = json_lines(*({"text": f"dev {n}", "label": n} for n in (1, 1.0, "1", " 1", 0.0)))
    settings = TaskSettings(name=str(train), dev=str(write("dev.jsonl", dev)), metric="accuracy")
    assert load_task(settings).dev[:]["label"] == [1, 1, 1, 1, 0]


def test_a_parquet_file_is_a_task_and_keeps_the_names_of_its_classes(tmp_path):
    features = Features(
        text=Value("string"), label=ClassLabel(names=["no", "yes"]), extra=Value("binary")
    )
    columns = {"text": [f"row {i}" for i in range(20)], "label": [i % 2 for i in range(20)]}
    columns["extra"] = [b"\xff"] * 20
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    task = load_task(TaskSettings(name=path, dev=path))
    assert task.label_names == ("no", "yes")
    assert task.dev[:] == {"text_a": columns["text"], "label": columns["label"]}


def test_unlabelled_texts_come_from_typed_files_too(write, tmp_path):
    lines = json_lines({"a": "1", "b": "2"}, {"a": "3", "b": "4", "c": None})
    table = load_unlabelled(write("more.jsonl", lines), text=("b", "a"), pairs=True)
    assert table[:] == {"text_a": ["2", "4"], "text_b": ["1", "3"]}
    Dataset.from_dict({"a": ["1"]}).to_parquet(tmp_path / "more.parquet")
    assert load_unlabelled(tmp_path / "more.parquet", text=("a",), pairs=False)[:] == {
        "text_a": ["1"]
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 1), (None, 0)], r"t\.jsonl, column 'text', example 2: None is not a text"),
        ([("a", 1), (3, 0)], r"column 'text', example 2: 3 is not a text"),
        ([("a", 1), ("b", None)], r"t\.jsonl, column 'label': 1 of 2.*no label, first example 2"),
        ([("a", 1), ("b", {"x": 1})], r"column 'label': label \{'x': 1\} of example 2 is neither"),
        ([("a", ["x"]), ("b", "y")], r"column 'label', example 2: 'y' is no list"),
        ([("a", "y"), ("b", ["x"])], r"column 'label', example 1: 'y' is no list"),
        ([("a", ["x"]), ("b", None)], r"column 'label', example 2: None is no list"),
        ([("a", ["x"]), ("b", ["y", None])], r"example 2: None in its list of labels"),
        ([("a", ["x"]), ("b", [["y"]])], r"example 2: \['y'\] in its list of labels"),
        ([("a", ["x"]), ("b", [0.5])], r"example 2: 0\.5 in its list of labels"),
        ([("a", ["x"]), ("b", [" "])], r"example 2: ' ' in its list of labels"),
        ([("a", []), ("b", [])], r"column 'label': every list is empty"),
        ([(f"row {i}", ["x"]) for i in range(20)], r"at least two classes.*only one is 'x'"),
    ],
)
def test_unusable_typed_rows_are_named(write, rows, message):
    content = json_lines(*({"text": text, "label": label} for text, label in rows))
    with pytest.raises(DataError, match=message):
        load_task(TaskSettings(name=str(write("t.jsonl", content))))


LABEL_SETS = (["b", "10"], [], ["9", 9, " b "], ["9"])


@pytest.fixture
def label_set_file(write):
    rows = ({"text": f"row {i}", "label": LABEL_SETS[i % 4]} for i in range(80))
    return write("t.jsonl", json_lines(*rows))


def test_lists_of_labels_make_a_multi_label_task(label_set_file):
    task = load_task(TaskSettings(name=str(label_set_file)))
    assert (task.kind, task.is_regression, task.output_count) == ("multi_label", False, 3)
    assert task.label_names == ("10", "9", "b")
    assert task.metrics == ("f1_micro", "f1_macro", "subset_accuracy")
    expected = ([0, 2], [], [1, 2], [1])
    for example in [*task.train, *task.dev]:
        assert example["label"] == expected[int(example["text_a"].split()[1]) % 4]
    assert sorted(task.dev[:]["label"]) == sorted(2 * expected)
    chosen = load_task(TaskSettings(name=str(label_set_file), metric="f1_macro"))
    assert chosen.metrics == ("f1_macro", "f1_micro", "subset_accuracy")


def test_an_unknown_label_in_a_list_of_the_dev_set_is_named(label_set_file, write):
    dev = json_lines({"text": "a", "label": []}, {"text": "b", "label": ["b", "c"]})
    settings = TaskSettings(name=str(label_set_file), dev=str(write("dev.jsonl", dev)))
    with pytest.raises(DataError, match=r"dev\.jsonl, column 'label', example 2: label 'c' never"):
        load_task(settings)
    with pytest.raises(DataError, match=r"dev\.csv, column 'label', example 1: 'b' is no list"):
        load_task(
            TaskSettings(name=str(label_set_file), dev=str(write("dev.csv", "text,label\na,b\n")))
        )


@pytest.mark.parametrize("metric", ["accuracy", "pearson"])
def test_other_metrics_do_not_fit_lists_of_labels(label_set_file, metric):
    with pytest.raises(SettingsError, match=r"multi-label task; choose one of f1_micro"):
        load_task(TaskSettings(name=str(label_set_file), metric=metric))


def test_a_separator_in_a_csv_field_is_not_guessed(write):
    settings = TaskSettings(
        name=str(write("t.csv", rows(40, label=lambda i: ("x;y", "y")[i % 2]))), metric="f1_micro"
    )
    with pytest.raises(SettingsError, match=r"lists, in a \.jsonl or \.parquet file"):
        load_task(settings)
    assert load_task(TaskSettings(name=settings.name)).label_names == ("x;y", "y")


def test_lists_of_classes_in_parquet_keep_their_names(tmp_path):
    features = Features(text=Value("string"), label=List(ClassLabel(names=["no", "yes", "so"])))
    columns = {"text": [f"row {i}" for i in range(20)], "label": [[1], [0, 1]] * 10}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "t.parquet")
    path = str(tmp_path / "t.parquet")
    task = load_task(TaskSettings(name=path, dev=path))
    assert task.label_names == ("no", "yes")
    assert task.dev[:]["label"] == columns["label"]
