import json
import os
from pathlib import Path

import pytest

from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.synonyms import (
    MOST_SYNONYMS,
    core_of,
    put_in_place,
    read_parts,
    read_synonyms,
)

REPOSITORY = Path(__file__).resolve().parents[3]
TABLE = "word\tpos\tsynonyms\nfair\ta\tjust,honest\nfair\tn\tcarnival,just\nice_cream\tn\tgelato\n"


@pytest.fixture
def write(tmp_path):
    def write_file(content, name="synonyms.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_file


@pytest.fixture
def words(write):
    """Reads a file; gives the synonyms of a word as plain words."""

    def read(content, word, name="synonyms.json", **options):
        return [one.word for one in read_synonyms(write(content, name), **options).of(word)]

    return read


def test_neighbours_keep_the_order_of_the_file(words):
    assert words({"good": ["fine", "decent", "ok"], "bad": []}, "good") == ["fine", "decent", "ok"]


def test_neighbours_with_cosines_are_sorted_and_far_ones_left_out(words):
    told = {"good": [["poor", 0.49], ["ok", 0.5], ["fine", 0.8], ["decent", 0.8]]}
    assert words(told, "good") == ["fine", "decent", "ok"]
    assert words(told, "good", least_cosine=0.7) == ["fine", "decent"]


def test_no_more_than_fifty_are_kept_and_each_once(words):
    many = [f"w{number}" for number in range(60)]
    assert words({"a": many}, "a") == many[:MOST_SYNONYMS]
    assert words({"a": ["b", "A", "a", "B", "c"]}, "a", most=2) == ["b", "c"]


def test_a_word_is_looked_up_without_its_marks_and_by_its_lower_case(words):
    told = {"good": ["fine"], "US": ["America"]}
    for written in ("good", "Good", '"GOOD!"', "(good),", "good..."):
        assert words(told, written) == ["fine"]
    assert words(told, "US") == ["America"]
    assert words(told, "us") == []
    assert words(told, "...") == []


@pytest.mark.parametrize(
    ("word", "core", "replaced"),
    [
        ("good", "good", "fine"),
        ("Good", "Good", "Fine"),
        ("GOOD!", "GOOD", "FINE!"),
        ('"good",', "good", '"fine",'),
        ("don't", "don't", "fine"),
        ("A", "A", "Fine"),
    ],
)
def test_a_synonym_is_written_as_the_word_was(word, core, replaced):
    assert core_of(word) == core
    assert put_in_place(word, "fine") == replaced


def test_a_table_joins_the_rows_of_a_word_with_their_parts_of_speech(write):
    found = read_synonyms(write(TABLE, "table.tsv"))
    assert found.has_parts
    assert [(one.word, "".join(sorted(one.parts))) for one in found.of("fair")] == [
        ("just", "an"),
        ("honest", "a"),
        ("carnival", "n"),
    ]
    assert found.of("ice cream")[0].word == "gelato"


def test_a_table_tells_the_parts_of_words_and_of_their_synonyms(write):
    parts = read_parts(write(TABLE, "table.tsv"))
    assert {word: "".join(sorted(of)) for word, of in parts.items()} == {
        "fair": "an",
        "just": "an",
        "honest": "a",
        "carnival": "n",
        "ice cream": "n",
        "gelato": "n",
    }
    with pytest.raises(DataError, match="tells no parts of speech"):
        read_parts(write({"a": ["b"]}))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("{", "s.json", "is no JSON"),
        ("[1]", "s.json", "holds a JSON list"),
        ("{}", "s.json", "holds no word with a synonym"),
        ('{"a": ["a"], "b": []}', "s.json", "holds no word with a synonym"),
        ('{"a": "b"}', "s.json", r"synonyms of 'a' are neither .* but b"),
        ('{"a": ["b", ["c", 0.9]]}', "s.json", "synonyms of 'a' are neither"),
        ('{"a": [["c", "near"]]}', "s.json", "synonyms of 'a' are neither"),
        ('{"a": [["c", NaN]]}', "s.json", "synonyms of 'a' are neither"),
        ('{"a": ["b", " "]}', "s.json", "synonyms of 'a' are neither"),
        ("word\tpos\na\tn\n", "s.tsv", "has no column 'synonyms'; its columns are word, pos"),
        ("word\tpos\tsynonyms\na\tn\tb\nc\tnoun\td\n", "s.tsv", "row 2: pos is .* but is 'noun'"),
        ("word\tpos\tsynonyms\n\tn\tb\n", "s.tsv", "row 1"),
        ("word\tpos\tsynonyms\na\tn\n", "s.tsv", "line 2: 2 fields where the header has 3"),
        ("a: b", "s.yaml", "is no synonym file: it is a .json file"),
    ],
)
def test_broken_files_are_refused(write, content, name, said):
    with pytest.raises(DataError, match=said):
        read_synonyms(write(content, name))


def test_a_missing_file_and_no_synonyms_at_all_are_refused(tmp_path, write):
    with pytest.raises(DataError, match="cannot read"):
        read_synonyms(tmp_path / "nothing.json")
    with pytest.raises(SettingsError, match="at least 1 synonym"):
        read_synonyms(write({"a": ["b"]}), most=0)


@pytest.fixture
def synonyms_folder():
    """The folder of real synonym files; skips the test where there is none."""
    named = os.environ.get("STILLHOUSE_DATA")
    candidates = [Path(named)] if named else []
    candidates.append(REPOSITORY.parent / "shared" / "data")
    for root in candidates:
        if (root / "robustness" / "synonyms").is_dir():
            return root / "robustness" / "synonyms"
    pytest.skip(f"no synonyms in $STILLHOUSE_DATA/robustness or {candidates[-1]}/robustness")


@pytest.mark.data
def test_counter_fitted_neighbours_are_read(synonyms_folder):
    path = synonyms_folder / "counterfitted_neighbors.json"
    found = read_synonyms(path)
    told = json.loads(path.read_text())
    assert len(found.entries) == sum(bool(near) for near in told.values()) > 20_000
    assert not found.has_parts
    for word in ("movie", "good", "terrible"):
        assert [one.word for one in found.of(word)] == told[word]


@pytest.mark.data
def test_wordnet_synonyms_are_read(synonyms_folder):
    path = synonyms_folder / "wordnet_synonyms.tsv"
    found, parts = read_synonyms(path), read_parts(path)
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    assert set(found.entries) == {line.split("\t")[0] for line in lines}
    assert found.has_parts
    assert all(len(synonyms) <= MOST_SYNONYMS for synonyms in found.entries.values())
    assert parts["movie"] == {"n"}
    assert {"n", "v"} <= parts["run"]
