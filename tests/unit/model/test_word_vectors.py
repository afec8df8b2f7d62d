"""Files of word vectors, good ones and bad ones."""

import re

import pytest

from stillhouse.errors import DataError
from stillhouse.model.word_vectors import read_word_vectors


@pytest.fixture
def read(tmp_path):
    def read(text, wanted=(), others=99):
        path = tmp_path / "vectors.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        found = read_word_vectors(path, wanted=wanted, others=others)
        return {word: vector.tolist() for word, vector in found.items()}

    return read


def test_glove_and_word2vec_are_read_alike(read):
    body = "the 0.5 -1e-1\ncat 2 3\n"
    expected = {"the": [0.5, pytest.approx(-0.1)], "cat": [2, 3]}
    assert read(body) == expected
    assert read(f"2 2\n{body}") == expected
    assert read(body.replace("\n", " \r\n")) == expected


def test_of_words_that_are_looked_up_alike_the_first_counts(read):
    assert read("The 1 1\nTHE 2 2\n1987 3 3\n2001 4 4\n") == {"the": [1, 1], "0000": [3, 3]}


def test_wanted_words_are_found_behind_the_first_others(read):
    text = "a 1 1\nb 2 2\nc 3 3\nd 4 4\n"
    assert list(read(text, wanted={"d"}, others=1)) == ["a", "d"]


def test_words_with_blanks_and_broken_characters_are_words(read):
    assert list(read(b"a 1 2\nat home 3 4\n\xff\xfe 5 6\n")) == ["a", "at home", "\ufffd\ufffd"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 2\nb 3\n", "line 2: 1 numbers where the first line has 2"),
        ("a 1 2\nb 3 4 5\n", "line 2: 3 numbers where the first line has 2"),
        ("a 1 2\n\nb 3 x\n", "line 3: could not convert string to float: .*correct the line"),
        ("a 1 nan\n", "line 1: a number is not finite"),
        ("a\nb\n", "line 1: 0 numbers"),
        ("", "holds no word vector; it needs a word and its numbers"),
        ("2 3\n", "holds no word vector"),
    ],
)
def test_bad_files_are_refused_with_the_line(read, text, message):
    with pytest.raises(DataError, match=message):
        read(text)


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "none.txt"
    with pytest.raises(DataError, match=re.escape(f"word vectors {path}: No such file")):
        read_word_vectors(path, wanted=(), others=1)
