import numpy as np
import pytest
from transformers import RobertaTokenizer

from stillhouse.data.word_pieces import cut_words
from stillhouse.errors import DataError

SENTENCES = [["The", "unbelievable", "cats", "sat"], ["Mary", "looking", "at", "!"]]


def starts(pieces):
    """The first piece of every word, by its number."""
    return {int(word): int(place) for place, word in enumerate(pieces.words) if word >= 0}


def test_every_word_begins_at_its_first_piece(any_pieces):
    pieces = cut_words(SENTENCES, any_pieces, 64)
    places = starts(pieces)
    assert list(places) == list(range(8))
    ends = np.cumsum(pieces.lengths)
    words = [word for sentence in SENTENCES for word in sentence]
    for number, word in enumerate(words):
        end = places.get(number + 1) if number not in (3, 7) else ends[number // 4] - 1
        text = any_pieces.decode(pieces.input_ids[places[number] : end])
        assert text.strip().lower() == word.lower()


def test_pieces_are_those_of_the_whole_sentence(any_pieces):
    """But for the space that byte-level tokenisers want before the first word."""
    pieces = cut_words(SENTENCES, any_pieces, 64)
    lead = " " if isinstance(any_pieces, RobertaTokenizer) else ""
    whole = any_pieces([lead + " ".join(words) for words in SENTENCES])
    expected = [token for row in whole["input_ids"] for token in row]
    assert pieces.input_ids.tolist() == expected
    assert pieces.lengths.tolist() == [len(row) for row in whole["input_ids"]]
    assert not pieces.token_type_ids.any()


def test_words_beyond_the_limit_are_cut_and_counted(tokenizer, caplog):
    sentences = [["a", "b", "c", "d"], ["a"], ["d", "c", "b"]]
    pieces = cut_words(sentences, tokenizer, 4)
    assert pieces.input_ids.tolist() == [2, 5, 6, 3, 2, 5, 3, 2, 8, 7, 3]
    assert pieces.words.tolist() == [-1, 0, 1, -1, -1, 4, -1, -1, 5, 6, -1]
    assert pieces.lengths.tolist() == [4, 3, 4]
    told = "3 words of 2 sentences are beyond task.max_length (4 tokens) and not scored"
    assert caplog.messages == [told]


def test_a_word_that_is_cut_in_two_is_scored(word_pieces, caplog):
    long = word_pieces("unbelievable", add_special_tokens=False)["input_ids"]
    pieces = cut_words([["unbelievable"]], word_pieces, 2 + len(long) - 1)
    assert pieces.input_ids[1:-1].tolist() == long[:-1]
    assert pieces.words.tolist() == [-1, 0, *[-1] * (len(long) - 1)]
    assert not caplog.records


@pytest.mark.parametrize("nothing", ["\u200b", "\u200d\ufeff", " ", ""])
def test_words_of_nothing_are_unknown(tokenizer, nothing, caplog):
    pieces = cut_words([["a", nothing, "b"], [nothing]], tokenizer, 8)
    assert pieces.input_ids.tolist() == [2, 5, 1, 6, 3, 2, 1, 3]
    assert pieces.words.tolist() == [-1, 0, 1, 2, -1, -1, 3, -1]
    assert not caplog.records


def test_words_of_nothing_without_an_unknown_token_are_told(unigram_pieces, byte_pieces, caplog):
    for nothing in ("", " "):
        pieces = cut_words([["the", nothing, "cat"]], unigram_pieces, 32)
        assert list(starts(pieces)) == [0, 1, 2]
    pieces = cut_words([["the", "", "cat"]], byte_pieces, 32)
    assert list(starts(pieces)) == [0, 1, 2]  # a space alone
    assert not caplog.records


def test_many_sentences_stay_in_order(tokenizer):
    sentences = [["a", "b", "c", "d"][: 1 + number % 4] for number in range(9_000)]
    pieces = cut_words(sentences, tokenizer, 8)
    assert (pieces.lengths == 3 + np.arange(9_000) % 4).all()
    assert (pieces.words >= 0).sum() == sum(map(len, sentences))
    assert pieces.words.max() == sum(map(len, sentences)) - 1


def test_a_limit_without_room_is_refused(tokenizer):
    with pytest.raises(DataError, match="2 tokens have no room for a word"):
        cut_words([["a"]], tokenizer, 2)


def test_no_sentences_are_no_tokens(tokenizer):
    assert [len(each) for each in cut_words([], tokenizer, 8)] == [0, 0, 0, 0]
