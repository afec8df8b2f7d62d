import pytest

from stillhouse.report import fields


@pytest.mark.parametrize(
    ("written", "read"),
    [(1, 1.0), ("2.5", 2.5), ("", None), (True, None), ("nan", None), ([1], None), (10**400, None)],
)
def test_only_finite_numbers_are_numbers(written, read):
    assert fields.number({"key": written}, "key") == read


def test_values_of_another_kind_are_as_good_as_missing():
    damaged = {"a": 1, "b": [{"c": 2}, 3]}

    assert fields.mapping(damaged, "a") == {}
    assert fields.sequence(damaged, "a") == []
    assert fields.truth(damaged, "a") is None
    assert list(fields.mappings(damaged, "b")) == [{"c": 2}]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\udcff"])
def test_a_damaged_file_is_noted_with_its_folder(tmp_path, content):
    path = tmp_path / "run" / "some.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    notes = []

    assert fields.read_json(path, notes) == {}
    assert notes[0].startswith("run/some.json could not be read: ")


def test_an_absent_file_is_no_note(tmp_path):
    notes = []

    assert fields.read_json(tmp_path / "none.json", notes) == {}
    assert notes == []


def test_a_table_is_read_with_empty_cells_where_a_row_is_short(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text("a,b\n1,2\n3\n", encoding="utf-8")

    assert fields.read_table(path, "some.csv", []) == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]


def test_a_table_that_is_no_text_is_noted_and_an_absent_one_is_not(tmp_path):
    path = tmp_path / "some.csv"
    path.write_bytes(b"a\n\xff\xfe")
    notes = []

    assert fields.read_table(tmp_path / "none.csv", "none.csv", notes) == []
    assert fields.read_table(path, "run/some.csv", notes) == []
    assert len(notes) == 1
    assert notes[0].startswith("run/some.csv could not be read: ")


def test_a_chain_is_labelled_by_its_blocks():
    block = {"hidden_size": 64, "operations": ["M", "S3"]}
    chain = {"family": "chain", "embedding_size": 32, "blocks": [block], "head_size": 32}

    label = fields.architecture_label({**chain, "ffn_ratio": 4, "activation": "relu"})

    assert label == "embeddings 32 | 64: M S3, heads of 32, FFN × 4, relu"
    assert fields.architecture_label({"family": "chain", "blocks": 7}) == "family=chain, blocks=7"
