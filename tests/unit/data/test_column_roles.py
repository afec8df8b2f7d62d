import pytest

from stillhouse.data.column_roles import find_roles, wanted_columns
from stillhouse.errors import DataError

WORDS = [["a", "b"], ["c"]]
TAGS = [[1, 2], [3]]
ANSWERS = [{"text": ["a"], "answer_start": [0]}, {"text": [], "answer_start": []}]
LISTED = [[{"text": "a", "answer_start": 0}], []]


def found(columns, text=(), label=None):
    roles = find_roles(columns, text=text, label=label, where="t")
    return roles.kind, roles.text, roles.label


@pytest.mark.parametrize(
    ("columns", "given", "expected"),
    [
        ({"text": ["a"], "label": [1]}, {}, ("texts", ("text",), "label")),
        ({"text": ["a"], "label": TAGS}, {}, ("texts", ("text",), "label")),
        ({"text": ["a"], "tokens": WORDS, "tags": TAGS}, {}, ("texts", ("text",), "label")),
        ({"a": ["a"], "b": ["b"], "y": [1]}, {"text": ("a", "b"), "label": "y"},
         ("texts", ("a", "b"), "y")),
        ({"tokens": WORDS, "ner_tags": TAGS}, {}, ("words", ("tokens",), "ner_tags")),
        ({"words": WORDS, "labels": TAGS, "pos": ["x", "y"]}, {}, ("words", ("words",), "labels")),
        ({"tokens": WORDS, "pos_tags": TAGS, "ner_tags": TAGS}, {"label": "pos_tags"},
         ("words", ("tokens",), "pos_tags")),
        ({"w": WORDS, "t": TAGS}, {"text": ("w",), "label": "t"}, ("words", ("w",), "t")),
        ({"text": WORDS, "tags": TAGS}, {"text": ("text",)}, ("words", ("text",), "tags")),
        ({"question": ["?"], "context": ["a"], "answers": ANSWERS}, {},
         ("questions", ("question", "context"), "answers")),
        ({"q": ["?"], "c": ["a"], "a": LISTED}, {"text": ("q", "c"), "label": "a"},
         ("questions", ("q", "c"), "a")),
        ({"question": ["?"], "context": ["a"], "answers": [["x"], ["y"]]},
         {"text": ("question", "context"), "label": "answers"},
         ("texts", ("question", "context"), "answers")),
    ],
)  # fmt: skip
def test_columns_tell_the_kind_of_task(columns, given, expected):
    assert found(columns, **given) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "tokens": WORDS, "ner_tags": TAGS, "pos_tags": TAGS},
         "several columns of tags: 'ner_tags', 'pos_tags'; its columns are 'id', 'tokens'"),
        ({"tokens": WORDS, "marks": TAGS}, "no column that is known.*are 'tokens', 'marks'. Name"),
    ],
)  # fmt: skip
def test_tags_that_could_be_several_columns_are_asked_for(columns, message):
    with pytest.raises(DataError, match=message):
        found(columns)


def test_all_columns_that_may_be_meant_are_read():
    assert {"text", "label", "tokens", "ner_tags", "answers", "id"} <= wanted_columns((), None)
    assert wanted_columns(("a",), "b") == {"a", "b", "id", "is_impossible"}
