"""Sentences as numbers, and their batches."""

import numpy as np
import pytest

from stillhouse.data.lexicon import Lexicon
from stillhouse.data.word_batches import collate_words, encode_words, usable_text
from stillhouse.errors import DataError

LEXICON = Lexicon(words=("a", "bee"), characters=("a", "b", "e"))


def test_a_batch_spells_each_form_once():
    encoded = encode_words(
        [["a", "bee", "a"], ["A"], ["bee", "x"]], LEXICON, tags=[[5, 6, 7], [8], [9, 4]]
    )
    batch = collate_words(encoded, np.array([2, 0]))
    assert batch.words_BT.tolist() == [[3, 1, 0], [2, 3, 2]]
    assert batch.mask_BT.tolist() == [[True, True, False], [True, True, True]]
    assert batch.lengths_B.tolist() == [2, 3]
    assert batch.tags_BT.tolist() == [[9, 4, -100], [5, 6, 7]]
    spelt = batch.spellings_UJ[batch.forms_BT]
    assert spelt[0, :2].tolist() == [[3, 4, 4], [1, 0, 0]]
    assert spelt[1].tolist() == [[2, 0, 0], [3, 4, 4], [2, 0, 0]]
    assert len(batch.spellings_UJ) == 3


def test_a_batch_is_no_wider_than_its_longest_word():
    encoded = encode_words([["a"], ["bee" * 5]], LEXICON)
    assert collate_words(encoded, np.array([0])).spellings_UJ.shape == (1, 1)
    assert collate_words(encoded, np.array([0])).tags_BT is None


def test_a_word_without_a_character_is_a_word():
    batch = collate_words(encode_words([[""]], LEXICON), np.array([0]))
    assert (batch.words_BT.tolist(), batch.spellings_UJ.tolist()) == ([[1]], [[0]])


def test_long_and_empty_sentences_are_left_out_and_counted():
    usable = usable_text([["a"] * 100, [], ["b"], ["a"] * 101, []])
    assert [len(words) for words in usable.sentences] == [100, 1]
    assert (usable.too_long, usable.empty) == (1, 2)


@pytest.mark.parametrize(
    ("sentences", "message"), [([], "0 of 0 have none"), ([["a"], []], "1 of 2 have none")]
)
def test_empty_sentences_are_refused(sentences, message):
    with pytest.raises(DataError, match=f"at least one word, but {message}"):
        encode_words(sentences, LEXICON)


def test_as_many_tags_as_words_are_asked_for():
    with pytest.raises(DataError, match="need a tag for each of their words"):
        encode_words([["a", "a"]], LEXICON, tags=[[1]])
