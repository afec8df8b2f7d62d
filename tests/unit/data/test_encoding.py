from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from stillhouse.data.encoding import EncodedSet, concatenate, encode
from stillhouse.data.examples import Examples
from stillhouse.data.tagging import to_dataset
from stillhouse.data.task import TaskSettings, load_task
from stillhouse.errors import DataError


@pytest.fixture
def pairs():
    return Examples(text_a=["a b", "c"], text_b=["d", "a b c d"], labels=[1, 0]).to_dataset(
        ("no", "yes")
    )


def ragged(*lengths, labels=None, pad_id=0):
    tokens = sum(lengths)
    return EncodedSet(
        input_ids=np.arange(tokens, dtype=np.int32),
        token_type_ids=(np.arange(tokens) % 2).astype(np.int8),
        offsets=np.cumsum([0, *lengths]),
        labels=labels,
        pad_id=pad_id,
    )


def row(encoded, index):
    return encoded.input_ids[encoded.offsets[index] : encoded.offsets[index + 1]].tolist()


def test_pairs_become_flat_tokens(pairs, tokenizer):
    encoded = encode(pairs, tokenizer, max_length=16)
    assert encoded.input_ids.tolist() == [2, 5, 6, 3, 8, 3, 2, 7, 3, 5, 6, 7, 8, 3]
    assert encoded.token_type_ids.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1]
    assert encoded.offsets.tolist() == [0, 6, 14]
    assert encoded.labels.tolist() == [1, 0]
    dtypes = [a.dtype for a in (encoded.input_ids, encoded.token_type_ids, encoded.offsets)]
    assert dtypes == [np.int32, np.int8, np.int64]
    assert encoded.labels.dtype == np.int64
    assert (len(encoded), encoded.longest) == (2, 8)


def test_the_longer_text_is_cut_first(pairs, tokenizer):
    encoded = encode(pairs, tokenizer, max_length=6)
    assert row(encoded, 1) == [2, 7, 3, 5, 6, 3]


def test_the_tokenisers_own_limit_holds(tokenizer):
    tokenizer.model_max_length = 4
    dataset = Examples(text_a=["a b c d"]).to_dataset(())
    encoded = encode(dataset, tokenizer, max_length=128)
    assert encoded.input_ids.tolist() == [2, 5, 6, 3]
    assert encoded.labels is None


def test_regression_labels_are_float32(tokenizer):
    encoded = encode(
        Examples(text_a=["a", "b"], labels=[0.5, 2.0]).to_dataset(()), tokenizer, max_length=8
    )
    assert encoded.labels.dtype == np.float32
    assert encoded.labels.tolist() == [0.5, 2.0]


def test_a_tokeniser_without_token_types_gives_zeros(pairs, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(
        tmp_path, model_input_names=["input_ids", "attention_mask"]
    )
    encoded = encode(pairs, plain, max_length=16)
    assert encoded.input_ids.tolist() == encode(pairs, tokenizer, max_length=16).input_ids.tolist()
    assert not encoded.token_type_ids.any()


def test_many_texts_stay_in_order(tokenizer):
    texts = ["a b c d"[: 1 + 2 * (i % 4)] for i in range(20_000)]
    encoded = encode(Examples(text_a=texts).to_dataset(()), tokenizer, max_length=8)
    assert len(encoded) == 20_000
    assert (encoded.lengths == 3 + np.arange(20_000) % 4).all()
    assert row(encoded, 16_386) == [2, 5, 6, 7, 3]


def test_an_empty_set_is_encoded(pairs, tokenizer):
    encoded = encode(pairs.select([]), tokenizer, max_length=8)
    assert (len(encoded), encoded.longest) == (0, 0)


def test_select_copies_examples_in_the_given_order():
    encoded = ragged(3, 0, 2, 4, labels=np.array([5, 6, 7, 8]))
    chosen = encoded.select([3, 0, 1, 3])
    assert chosen.lengths.tolist() == [4, 3, 0, 4]
    assert chosen.input_ids.tolist() == [5, 6, 7, 8, 0, 1, 2, 5, 6, 7, 8]
    assert chosen.token_type_ids.tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0]
    assert chosen.labels.tolist() == [8, 5, 6, 8]
    assert len(encoded.select([])) == 0


def test_concatenate_fills_missing_labels():
    classes = concatenate([ragged(1, 2, labels=np.array([1, 0])), ragged(3)])
    assert classes.labels.tolist() == [1, 0, -100]
    assert classes.labels.dtype == np.int64
    assert classes.lengths.tolist() == [1, 2, 3]
    numbers = concatenate([ragged(3), ragged(1, labels=np.array([0.5], dtype=np.float32))])
    assert numbers.labels.dtype == np.float32
    np.testing.assert_array_equal(numbers.labels, [np.nan, 0.5])
    assert concatenate([ragged(1), ragged(2)]).labels is None


def test_sets_that_do_not_fit_are_not_joined():
    numbers = ragged(1, labels=np.array([0.5], dtype=np.float32))
    with pytest.raises(DataError, match="cannot be joined"):
        concatenate([numbers, ragged(1, labels=np.array([1]))])
    with pytest.raises(DataError, match="cannot be joined"):
        concatenate([ragged(1), ragged(1, pad_id=1)])
    with pytest.raises(DataError, match="at least one"):
        concatenate([])


def test_arrays_that_disagree_are_refused():
    with pytest.raises(DataError, match="2 examples and 3 tokens"):
        ragged(1, 2, labels=np.array([1]))


def test_the_fingerprint_sees_every_array():
    sets = [
        ragged(1, 2),
        ragged(2, 1),
        ragged(1, 2, pad_id=1),
        ragged(1, 2, labels=np.array([0, 1])),
        ragged(1, 2, labels=np.array([1, 1])),
    ]
    prints = {encoded.fingerprint() for encoded in sets}
    assert len(prints) == len(sets)
    assert ragged(1, 2).fingerprint() in prints


@pytest.fixture
def class_sets():
    sets = Examples(text_a=["a b", "c", "d"], labels=[(2, 0), (), (1,)])
    return sets.to_dataset(("x", "y", "z"))


def test_sets_of_classes_become_ones_and_zeros(class_sets, tokenizer):
    encoded = encode(class_sets, tokenizer, max_length=8)
    assert encoded.labels.dtype == np.float32
    assert encoded.labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert encoded.select([2, 0]).labels.tolist() == [[0, 1, 0], [1, 0, 1]]
    assert encode(class_sets.select([]), tokenizer, max_length=8).labels.shape == (0, 3)
    only_empty = encode(class_sets.select([1]), tokenizer, max_length=8)
    assert only_empty.labels.tolist() == [[0, 0, 0]]


def test_unlabelled_examples_have_no_class_known(class_sets, tokenizer):
    encoded = encode(class_sets, tokenizer, max_length=8)
    joined = concatenate([encoded, ragged(2, 1, pad_id=encoded.pad_id)])
    assert joined.labels.dtype == np.float32
    np.testing.assert_array_equal(joined.labels[3:], np.full((2, 3), np.nan))
    assert joined.labels[:3].tolist() == encoded.labels.tolist()
    numbers = ragged(1, labels=np.array([0.5], np.float32), pad_id=encoded.pad_id)
    with pytest.raises(DataError, match="unlike labels"):
        concatenate([encoded, numbers])


def test_the_fingerprint_sees_sets_of_classes():
    labels = [
        np.array([[0, 1], [1, 0]], np.float32),
        np.array([[0, 1], [1, 1]], np.float32),
        np.array([0, 1], np.float32),
    ]
    assert len({ragged(1, 2, labels=each).fingerprint() for each in labels}) == 3


@pytest.fixture
def tagged():
    words = [["a", "b", "c"], ["d"], ["b", "zz"]]
    return to_dataset(words, tags=[[1, 0, 1], [0], [0, 1]], names=("x", "y"))


def test_words_carry_their_tags_at_their_first_piece(tagged, tokenizer, word_pieces):
    encoded = encode(tagged, tokenizer, max_length=16)
    assert encoded.input_ids.tolist() == [2, 5, 6, 7, 3, 2, 8, 3, 2, 6, 1, 3]
    assert encoded.tags.tolist() == [-100, 1, 0, 1, -100, -100, 0, -100, -100, 0, 1, -100]
    assert encoded.tags.dtype == np.int64
    assert (encoded.labels, encoded.classes) == (None, None)
    assert encoded.gold.names == ("x", "y")
    assert len(encoded.gold) == 3
    long = to_dataset([["unbelievable", "cat"]], tags=[[1, 0]], names=("x", "y"))
    pieces = encode(long, word_pieces, max_length=64)
    count = len(word_pieces.tokenize("unbelievable"))
    assert count > 1
    assert pieces.tags[1 : 2 + count].tolist() == [1, *[-100] * (count - 1), 0]


def test_words_beyond_the_length_have_no_tag(tagged, tokenizer, caplog):
    encoded = encode(tagged, tokenizer, max_length=4)
    assert encoded.tags.tolist() == [-100, 1, 0, -100, -100, 0, -100, -100, 0, 1, -100]
    assert "1 words of 1 sentences are beyond task.max_length" in caplog.text


def test_unlabelled_words_have_unknown_tags(tagged, tokenizer):
    plain = encode(tagged.remove_columns("tags").select([0]), tokenizer, max_length=16)
    assert plain.tags.tolist() == [-100, -1, -1, -1, -100]
    with pytest.raises(DataError, match="without labels cannot be scored"):
        _ = plain.gold
    labelled = encode(tagged, tokenizer, max_length=16)
    joined = concatenate([plain, labelled])
    assert joined.tags.tolist() == [*plain.tags, *labelled.tags]
    assert joined.tag_names == ("x", "y")
    chosen = joined.select([2, 0])
    assert chosen.tags.tolist() == [-100, 0, -100, -100, -1, -1, -1, -100]
    assert chosen.tag_names == ("x", "y")


@pytest.fixture
def questions():
    return Dataset.from_dict(
        {
            "key": ["k0", "k1"],
            "question": ["a b", "c"],
            "context": ["a b c d a b c d a b c d", "d"],
            "answers": [["d a"], []],
            "answer_starts": [[14], []],
        }
    )


def test_questions_become_windows(questions, tokenizer):
    encoded = encode(questions, tokenizer, max_length=11, stride=2)
    assert encoded.lengths.tolist() == [11, 11, 9, 5]
    assert row(encoded, 1) == [2, 5, 6, 3, 5, 6, 7, 8, 5, 6, 3]
    assert encoded.sheet.question_of_N.tolist() == [0, 0, 0, 1]
    # The seventh letter is the fourth of the second window, and the last but one of the first.
    assert encoded.labels.tolist() == [[0, 0], [7, 8], [0, 0], [0, 0]]
    assert encoded.labels.dtype == np.int64
    assert encoded.classes is None
    assert (len(encoded.gold), encoded.gold.threshold) == (2, None)
    chosen = encoded.select([3, 1])
    assert chosen.labels.tolist() == [[0, 0], [7, 8]]
    assert chosen.sheet.question_of_N.tolist() == [1, 0]
    assert len(chosen.sheet.characters_P2) == 16
    assert chosen.sheet.characters_P2[5 + 7].tolist() == [14, 15]
    assert len(encode(questions.select([]), tokenizer, max_length=11)) == 0


def test_joined_questions_count_on(questions, tokenizer):
    first = encode(questions, tokenizer, max_length=11, stride=2)
    second = encode(questions.select([1]), tokenizer, max_length=11, stride=2)
    joined = concatenate([first, second])
    assert joined.sheet.question_of_N.tolist() == [0, 0, 0, 1, 2]
    assert [one.key for one in joined.sheet.questions] == ["k0", "k1", "k1"]
    assert joined.labels.tolist() == [*first.labels.tolist(), [0, 0]]


def test_sets_of_different_kinds_are_not_joined(pairs, tagged, questions, tokenizer):
    texts, words, asked = (
        encode(each, tokenizer, max_length=16) for each in (pairs, tagged, questions)
    )
    other = encode(to_dataset([["a"]], tags=[[0]], names=("x", "z")), tokenizer, max_length=16)
    for sets in ([texts, words], [words, asked], [texts, asked], [words, other]):
        with pytest.raises(DataError, match="cannot be joined"):
            concatenate(sets)


def test_the_fingerprint_sees_tags_and_questions(tagged, questions, tokenizer):
    renamed = to_dataset(tagged["words"], tags=tagged["tags"], names=("x", "z"))
    asked = questions.to_dict()
    other = Dataset.from_dict({**asked, "answers": [["D a"], []]})
    sets = [tagged, renamed, tagged.remove_columns("tags"), questions, other]
    prints = {encode(each, tokenizer, max_length=16).fingerprint() for each in sets}
    assert len(prints) == 5


def test_sheets_that_disagree_are_refused(questions, tokenizer):
    encoded = encode(questions, tokenizer, max_length=11, stride=2)
    with pytest.raises(DataError, match="4 examples and 36 tokens"):
        replace(encoded, sheet=encoded.select([0, 1]).sheet)


@pytest.mark.data
@pytest.mark.parametrize("length", [128, 16])
def test_every_word_of_conll_2000_is_scored_or_counted(data_folder, bert_tokenizer, length, caplog):
    path = f"conll:{data_folder('tagging/conll2000') / 'test.txt'}"
    dev = load_task(TaskSettings(name=path, dev=path)).dev
    caplog.clear()
    encoded = encode(dev, bert_tokenizer, max_length=length)
    scored = encoded.tags >= 0
    assert (len(encoded), encoded.longest <= length) == (2_012, True)
    lost = 0 if not caplog.messages else int(caplog.messages[0].split()[0])
    assert scored.sum() + lost == 47_377
    assert (lost == 0) == (length == 128)
    if not lost:
        tags = [tag for row in dev["tags"] for tag in row]
        assert encoded.tags[scored].tolist() == tags
