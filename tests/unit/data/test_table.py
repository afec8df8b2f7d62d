import pytest

from stillhouse.data.table import load_table, load_unlabelled, read_table
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError, SettingsError


def rows(count, label=lambda number: number % 2, text="text"):
    return f"{text},label\n" + "".join(f"row {i},{label(i)}\n" for i in range(count))


def test_csv_quotes_commas_and_line_breaks(write):
    path = write("t.csv", '\ufefftext,label\r\n"a, ""b""\nc",1\r\n\r\n plain\u2028,0\r\n')
    assert read_table(path) == {"text": ['a, "b"\nc', " plain\u2028"], "label": ["1", "0"]}


def test_tsv_takes_quotes_as_they_are(write):
    path = write("t.tsv", 'text\tlabel\n"half a quote\t1\nNA\t0\n')
    assert read_table(path) == {"text": ['"half a quote', "NA"], "label": ["1", "0"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "text,label\n", "empty below its header"),
        ("t.csv", "text,label\na,1\nb,c,0\n", r"line 3: 3 fields where the header has 2"),
        ("t.csv", 'text,label\n"a" b,1\n', "line 2.*doubled"),
        ("t.csv", 'text,label\n"open,1\nb,0\n', "unexpected end of data"),
        ("t.csv", "text,text\na,1\n", "several columns named 'text'"),
        ("t.tsv", "text\tlabel\na\n", "line 2: 1 fields"),
    ],
)
def test_broken_tables_are_refused(write, name, content, message):
    with pytest.raises(DataError, match=message):
        read_table(write(name, content))


def test_missing_and_undecodable_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv.*No such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_table(tmp_path / "latin.csv")


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
