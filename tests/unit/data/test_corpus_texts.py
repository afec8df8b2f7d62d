import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stillhouse.data import corpus_texts
from stillhouse.data.corpus_texts import read_documents
from stillhouse.errors import DataError


@pytest.fixture
def read():
    """Reads a corpus; gives its documents, with one space wherever there is white space."""

    def read_it(name, column="text"):
        return [" ".join("".join(parts).split()) for parts, _ in read_documents(str(name), column)]

    return read_it


@pytest.mark.parametrize(
    "text",
    [
        "a b\nc\n\nd a\n \nb\n",
        "\n\na b\nc\n\n\n\nd a\n\nb",
        "\ufeffa b\r\nc\r\n\r\nd a\r\n\r\nb\r\n\r\n",
    ],
)
def test_blank_lines_part_documents(read, write, text):
    assert read(write("a.txt", text)) == ["a b c", "d a", "b"]


@pytest.mark.parametrize("text", ["a b\nc\nd a", "\na b\r\nc\r\nd a\r\n\r\n", "a b\nc\nd a\n\n\n"])
def test_a_file_without_blank_lines_inside_holds_a_document_a_line(read, write, text):
    assert read(write("a.txt", text)) == ["a b", "c", "d a"]


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(read, write, tmp_path):
    write("texts/b.txt", "b b\n")
    write("texts/a.jsonl", '{"text": "a"}\n')
    write("texts/deep/c.TXT", "c")
    write("texts/notes.md", "d d d")
    write("texts/.hidden.txt", "d d d")
    assert read(tmp_path / "texts") == ["a", "b b", "c"]
    assert read(tmp_path / "texts" / "*.txt") == ["b b"]
    assert read(tmp_path / "texts" / "**" / "[bc].*") == ["b b", "c"]


def test_rows_of_json_lines_are_documents(read, write):
    path = write("a.jsonl", '{"t": "a\\nb", "x": 1}\n\n{"t": null}\n{"t": ""}\n{"x": [], "t": "c"}')
    assert read(path, "t") == ["a b", "", "", "c"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary("int8", "string")])
def test_rows_of_parquet_are_documents(read, tmp_path, kind):
    table = pa.table({"x": [1, 2, 3], "t": pa.array(["a b", None, "c"]).cast(kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert read(tmp_path / "a.parquet", "t") == ["a b", "", "c"]


def test_a_table_without_rows_holds_no_documents(read, tmp_path):
    pq.write_table(pa.table({"text": pa.array([], "string")}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == []


def test_a_dataset_in_a_folder_is_read(read, write, tmp_path):
    write("set/train.jsonl", '{"t": "a b", "x": 1}\n{"t": "c", "x": 2}\n')
    assert read(f"hf:{tmp_path / 'set'}", "t") == ["a b", "c"]


def test_unusable_datasets_are_refused(hub, read, monkeypatch):
    hub(test=[{"text": "a"}])
    with pytest.raises(DataError, match="hf:name has no split 'train', only 'test'"):
        read("hf:name")
    hub(train=[{"words": "a", "id": 3}])
    with pytest.raises(DataError, match=r"hf:name, row 1 has no column 'text', only 'words', 'id'"):
        read("hf:name")

    def fail(*arguments, **options):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"cannot read hf:name \(offline\)"):
        read("hf:name")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a b\nc\0d", r"a\.txt is no text: byte 5 is NUL"),
        (b"a b\nc\xffd", r"a\.txt is not UTF-8 text: byte 5 does not.*invalid start byte"),
        (b"a\n\xe6\xbc", r"a\.txt is not UTF-8 text: byte 2 .*unexpected end"),
    ],
)
def test_files_without_usable_text_are_refused(read, tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("line_bytes", [1, 3, 4])
def test_the_position_of_a_bad_byte_counts_from_the_files_beginning(
    read, tmp_path, monkeypatch, line_bytes
):
    monkeypatch.setattr(corpus_texts, "LINE_BYTES", line_bytes)
    (tmp_path / "a.txt").write_bytes("a ä\n漢".encode() + b"\xe6\xbc\x41")
    with pytest.raises(DataError, match="byte 8 does not belong"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"id": 1, "body": "a"}', r"line 1 has no column 'text', only 'id', 'body'"),
        ("a.jsonl", b'{"text": "a"}\n{"id": 1}', r"line 2 has no column 'text'"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}', r"line 2: column 'text' holds '3', which is no"),
        ("a.jsonl", b'{"text": "a"}\n{"text":', r"line 2: Expecting value.*one whole JSON object"),
        ("a.jsonl", b'{"text": "\\ud800"}', r"line 1: .*surrogates"),
        ("a.jsonl", b'[{"text": "a"}]', r"line 1 holds no JSON object"),
        ("a.jsonl", b'{"text": "a\xff"}', r"byte 11 does not belong"),
        ("a.parquet", b"no table", r"no Parquet file that can be read"),
    ],
)
def test_broken_tables_are_refused(read, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "body": ["a"]}, r"a\.parquet has no column 'text', only 'id', 'body'"),
        ({"text": [1]}, r"a\.parquet, row 1: column 'text' holds '1'"),
    ],
)
def test_parquet_files_without_texts_are_refused(read, tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.parquet")


def test_missing_and_strange_files_are_refused(read, write, tmp_path):
    with pytest.raises(DataError, match=r"there is no corpus .*none\.txt; give such a file"):
        read(tmp_path / "none.txt")
    with pytest.raises(DataError, match="there is no corpus"):
        read(tmp_path / "*.txt")
    write("texts/a.csv", "text\na")
    with pytest.raises(DataError, match=r"texts holds no file of the kinds \.txt, \.jsonl"):
        read(tmp_path / "texts")
    with pytest.raises(DataError, match=r"a\.csv is none of the kinds"):
        read(tmp_path / "texts" / "*")
