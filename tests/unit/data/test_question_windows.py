import numpy as np
import pytest
from transformers import RobertaTokenizer

from stillhouse.data.question_windows import cut_windows
from stillhouse.errors import DataError

CONTEXT = (
    "The cat sat on the mat in the old town house.  A dog and a cat were looking at the birds in "
    "the garden! Unbelievable things happened to Mary Ann Smith, who lives in New York."
)


def columns(*rows):
    """Rows of question, context and answers; each answer begins where its text first stands."""
    questions, contexts, answers = zip(*rows, strict=True)
    return {
        "key": [str(number) for number in range(len(rows))],
        "question": list(questions),
        "context": list(contexts),
        "answers": [list(texts) for texts in answers],
        "answer_starts": [
            [context.find(text) for text in texts]
            for context, texts in zip(contexts, answers, strict=True)
        ],
    }


def split(windows, values):
    return np.split(values, np.cumsum(windows.lengths)[:-1])


@pytest.mark.parametrize(("limit", "stride"), [(40, 0), (40, 8), (33, 9), (512, 128)])
def test_windows_are_those_of_transformers(any_pieces, limit, stride):
    rows = [("Who sat?", CONTEXT, ["The cat"]), ("When?", CONTEXT[:50], [])]
    windows = cut_windows(columns(*rows), any_pieces, limit, stride)
    expected = any_pieces(
        [row[0] for row in rows],
        [row[1] for row in rows],
        truncation="only_second",
        max_length=limit,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=True,
    )
    assert [row.tolist() for row in split(windows, windows.input_ids)] == expected["input_ids"]
    assert windows.sheet.question_of_N.tolist() == expected["overflow_to_sample_mapping"]
    if "token_type_ids" in any_pieces.model_input_names:
        types = split(windows, windows.token_type_ids)
        assert [row.tolist() for row in types] == expected["token_type_ids"]
    for number, places in enumerate(split(windows, windows.sheet.characters_P2)):
        context = rows[windows.sheet.question_of_N[number]][1]
        for place, span, text in zip(
            places.tolist(),
            expected["offset_mapping"][number],
            expected.sequence_ids(number),
            strict=True,
        ):
            if text != 1:
                assert place == [-1, -1]
                continue
            assert context[slice(*place)] == context[slice(*span)].strip()
            assert span[0] <= place[0] <= place[1] <= span[1]


@pytest.mark.parametrize("answer", ["Mary Ann Smith", "cat", "The", "York.", "the birds in the"])
def test_labels_mark_the_answer_where_a_window_holds_it(any_pieces, answer):
    data = columns(("Who lives in New York?", CONTEXT, [answer]))
    windows = cut_windows(data, any_pieces, 48, 12)
    assert len(windows.lengths) > 1
    held = 0
    for places, (first, last) in zip(
        split(windows, windows.sheet.characters_P2), windows.labels.tolist(), strict=True
    ):
        inside = places[places[:, 0] >= 0]
        start = CONTEXT.find(answer)
        holds_all = inside[0, 0] <= start and start + len(answer) <= inside[-1, 1]
        assert (last > 0) == holds_all
        if holds_all:
            assert CONTEXT[places[first, 0] : places[last, 1]] == answer
            held += 1
    assert held


def test_the_first_answer_that_occurs_is_the_label(word_pieces):
    data = columns(
        ("Who?", CONTEXT, ["nobody", "the garden", "cat"]), ("Who?", CONTEXT, []),
        ("Who?", CONTEXT, ["nobody"]),
    )  # fmt: skip
    windows = cut_windows(data, word_pieces, 512, 128)
    (first, last), *rest = windows.labels.tolist()
    text = CONTEXT[windows.sheet.characters_P2[first, 0] : windows.sheet.characters_P2[last, 1]]
    assert text == "the garden"
    assert rest == [[0, 0], [0, 0]]
    assert windows.sheet.may_lack_answers
    assert [one.answers for one in windows.sheet.questions][2] == ("nobody",)
    assert not cut_windows(columns(("a", "b", ["b"])), word_pieces, 64, 8).sheet.may_lack_answers


def test_answers_that_cut_a_token_take_the_whole_of_it(tokenizer):
    data = {
        "key": ["0"],
        "question": ["a"],
        "context": ["b ccc d"],
        "answers": [["c d"]],
        "answer_starts": [[4]],
    }
    windows = cut_windows(data, tokenizer, 16, 4)
    assert windows.input_ids.tolist() == [2, 5, 3, 6, 1, 8, 3]
    assert windows.labels.tolist() == [[4, 5]]


def test_neighbours_share_at_most_half_of_their_room(tokenizer):
    context = " ".join("abcd" * 5)
    windows = cut_windows(columns(("a", context, ["c"])), tokenizer, 14, 1000)
    firsts = [places[3, 0] for places in split(windows, windows.sheet.characters_P2)]
    assert firsts == [0, 10, 20]  # of 10 tokens, 5 new ones each
    assert windows.lengths.tolist() == [14, 14, 14]
    small = cut_windows(columns(("a b c d", context, ["c"])), tokenizer, 8, 1)
    assert small.lengths.max() == 8  # a question of 2, a context of 3


def test_long_questions_are_cut_and_counted(tokenizer, caplog):
    rows = [(" ".join("ab" * 50), "c d", ["c"]), ("a", "d", ["d"])]
    windows = cut_windows(columns(*rows), tokenizer, 384, 128)
    assert windows.lengths.tolist() == [64 + 3 + 2, 5]
    told = "1 of 2 questions have more than 64 tokens; the rest of each is cut off"
    assert caplog.messages == [told]
    assert windows.sheet.questions[0].text == rows[0][0]


def test_a_limit_without_room_is_refused(tokenizer):
    with pytest.raises(DataError, match="4 tokens have no room for a question and its context"):
        cut_windows(columns(("a", "b", ["b"])), tokenizer, 4, 1)


def test_contexts_of_nothing_and_no_questions_at_all(tokenizer, byte_pieces):
    windows = cut_windows(columns(("a", "\u200b", [])), tokenizer, 16, 4)
    assert windows.input_ids.tolist() == [2, 5, 3, 3]
    assert windows.labels.tolist() == [[0, 0]]
    none = {name: [] for name in ("key", "question", "context", "answers", "answer_starts")}
    empty = cut_windows(none, byte_pieces, 16, 4)
    assert (len(empty.input_ids), empty.labels.shape) == (0, (0, 2))
    assert empty.sheet.characters_P2.shape == (0, 2)


def test_byte_level_questions_have_no_space_before_them(byte_pieces):
    assert isinstance(byte_pieces, RobertaTokenizer)
    windows = cut_windows(columns(("The cat", "the dog", ["dog"])), byte_pieces, 64, 8)
    assert windows.input_ids.tolist() == byte_pieces("The cat", "the dog")["input_ids"]
