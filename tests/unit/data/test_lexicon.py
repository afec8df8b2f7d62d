"""Which words and characters get a row."""

from stillhouse.data.lexicon import (
    MOST_CHARACTERS,
    UNKNOWN,
    Lexicon,
    build_lexicon,
    lookup_form,
    word_counts,
)


def build(labelled, unlabelled=(), vectors=(), most_words=100):
    counts = (word_counts([text.split() for text in part]) for part in (labelled, unlabelled))
    return build_lexicon(*counts, vectors=vectors, most_words=most_words)


def test_words_are_looked_up_in_lower_case_with_digits_as_zero():
    assert lookup_form("In1995-Ärger") == "in0000-ärger"


def test_words_of_two_occurrences_come_first_then_other_text_then_the_file():
    lexicon = build(
        ["The cat sat", "the dog", "cat the"],
        ["dog ran ran ran", "bird"],
        vectors=["whale", "bird", "cat"],
    )
    # "sat" occurs once and has no vector; "dog" occurs once in either.
    assert lexicon.words == ("the", "cat", "dog", "ran", "bird", "whale")
    assert lexicon.word_number("THE") == 2
    assert lexicon.word_number("sat") == UNKNOWN
    assert lexicon.word_count == 8


def test_the_most_words_are_the_first():
    assert build(["a a b b b"], ["c c"], most_words=2).words == ("b", "a")


def test_characters_keep_their_case_and_need_two_occurrences():
    lexicon = build(["Aa aA b"])
    assert lexicon.characters == ("A", "a")
    assert lexicon.spelling("Aba") == [2, UNKNOWN, 3]
    assert len(lexicon.spelling("a" * 99)) == MOST_CHARACTERS


def test_an_empty_lexicon_knows_nothing():
    lexicon = Lexicon(words=(), characters=())
    assert lexicon.word_number("a") == UNKNOWN
    assert lexicon.character_count == 2
