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
