import pytest
from datasets import Dataset

from stillhouse.data.table_files import read_table
from stillhouse.errors import DataError


def test_csv_quotes_commas_and_line_breaks(write):
    path = write("t.csv", '\ufefftext,label\r\n"a, ""b""\nc",1\r\n\r\n plain\u2028,0\r\n')
    assert read_table(path, ()) == {"text": ['a, "b"\nc', " plain\u2028"], "label": ["1", "0"]}


def test_tsv_takes_quotes_as_they_are(write):
    path = write("t.tsv", 'text\tlabel\n"half a quote\t1\nNA\t0\n')
    assert read_table(path, ()) == {"text": ['"half a quote', "NA"], "label": ["1", "0"]}


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
        ("t.jsonl", "\n\n", "is empty; it needs one JSON object a line"),
        ("t.jsonl", '{"a": 1}\n{"a": ', "line 2: .*one whole JSON object a line"),
        ("t.jsonl", '[{"a": 1}]\n', "line 1 holds no JSON object.*no array"),
        ("t.jsonl", '[\n{"a": 1}\n]\n', "line 1"),
        ("t.jsonl", '{"a": "cut \\ud83d"}\n', "line 1: .*surrogates not allowed"),
        ("t.jsonl", "[" * 100_000, "line 1"),
        ("t.parquet", "PAR1", "t.parquet is no Parquet file"),
    ],
)
def test_broken_tables_are_refused(write, name, content, message):
    with pytest.raises(DataError, match=message):
        read_table(write(name, content), ())


def test_missing_and_undecodable_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv.*No such file"):
        read_table(tmp_path / "none.csv", ())
    (tmp_path / "latin.csv").write_bytes("text,label\ncafé,1\n".encode("latin-1"))
    with pytest.raises(DataError, match="save it as UTF-8"):
        read_table(tmp_path / "latin.csv", ())
    with pytest.raises(DataError, match=r"none\.parquet"):
        read_table(tmp_path / "none.parquet", ())
    with pytest.raises(DataError, match=r"none\.jsonl.*No such file"):
        read_table(tmp_path / "none.jsonl", ())


def test_json_lines_are_typed_and_what_an_object_lacks_is_none(write):
    path = write(
        "t.jsonl", '\ufeff{"a": "\\u00e9\u2028", "b": 1}\r\n\n{"b": 1.0, "c": [true, "x"]}\n'
    )
    columns = read_table(path, ())
    assert columns == {"a": ["é\u2028", None], "b": [1, 1.0], "c": [None, [True, "x"]]}
    assert [type(value) for value in columns["b"]] == [int, float]


def test_columns_of_parquet_that_nobody_wants_come_empty(tmp_path):
    path = tmp_path / "t.PARQUET"
    Dataset.from_dict({"a": ["x", None], "b": [[1], []], "c": [1.5, 2]}).to_parquet(path)
    assert read_table(path, ("b", "a", "z")) == {"a": ["x", None], "b": [[1], []], "c": []}
    assert read_table(path, ("z",)) == {"a": [], "b": [], "c": []}


def test_parquet_without_rows_is_refused(tmp_path):
    Dataset.from_dict({"a": []}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="is empty; it needs examples"):
        read_table(tmp_path / "t.parquet", ("a",))
