"""Masks beside counts, and beside words that a plain loop finds."""

import numpy as np
import pytest
from transformers import BertTokenizer, RobertaTokenizer

from stillhouse.data.masking import Masker, MaskingRule
from stillhouse.errors import DataError, SettingsError

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PLAIN = MaskingRule()
MASK = 4


def bert(words, **more):
    vocabulary = [*SPECIAL, *words]
    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, **more)


@pytest.fixture(scope="module")
def thousand():
    """A tokeniser of 1,000 whole words, numbered from 5."""
    return bert([f"w{number}" for number in range(1_000)])


def framed(rows, length, *, low=5, high=1_005, seed=0):
    """Sequences `[CLS] ... [SEP]` of random words."""
    ids_BT = np.random.default_rng(seed).integers(low, high, (rows, length)).astype(np.int32)
    ids_BT[:, 0], ids_BT[:, -1] = 2, 3
    return ids_BT


def near(found, expected, count):
    """Within four standard deviations of a draw with so many tries."""
    return abs(found - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


@pytest.mark.parametrize("probability", [0.15, 0.4])
def test_shares_are_as_told(thousand, probability):
    ids_BT = framed(400, 130)
    masker = Masker(thousand, MaskingRule(probability=probability))
    masked_BT, labels_BT = masker.mask(ids_BT, seed=0, step=0)
    chosen_BT = labels_BT != -100
    count = chosen_BT.sum()
    assert near(count / (400 * 128), probability, 400 * 128)
    now, before = masked_BT[chosen_BT], ids_BT[chosen_BT]
    assert near((now == MASK).mean(), 0.8, count)
    assert near((now == before).mean(), 0.1 + 0.1 / 1_000, count)
    put_in = now[(now != MASK) & (now != before)]
    assert put_in.min() >= 5
    assert len(np.unique(put_in)) > 0.6 * min(len(put_in), 1_000)


def test_labels_are_what_was_hidden_and_nothing_else_changes(thousand):
    ids_BT = framed(50, 40)
    before_BT = ids_BT.copy()
    masked_BT, labels_BT = Masker(thousand, PLAIN).mask(ids_BT, seed=3, step=8)
    chosen_BT = labels_BT != -100
    assert np.array_equal(ids_BT, before_BT)
    assert np.array_equal(labels_BT[chosen_BT], ids_BT[chosen_BT])
    assert np.array_equal(masked_BT[~chosen_BT], ids_BT[~chosen_BT])
    assert (masked_BT.dtype, labels_BT.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("whole_word", [False, True])
def test_special_tokens_are_neither_chosen_nor_put_in(whole_word):
    tokenizer = bert(["a", "b", "##c"], additional_special_tokens=["[NAME]"])
    name = tokenizer.convert_tokens_to_ids("[NAME]")
    assert name == 8
    ids_BT = np.random.default_rng(0).integers(0, 9, (500, 20))
    masker = Masker(tokenizer, MaskingRule(probability=0.9, whole_word=whole_word))
    masked_BT, labels_BT = masker.mask(ids_BT, seed=0, step=0)
    assert set(labels_BT[labels_BT != -100]) == {5, 6, 7}
    assert set(masked_BT[labels_BT != -100]) == {MASK, 5, 6, 7}


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_sequence_of_any_words_has_a_chosen_one(whole_word):
    tokenizer = bert(["a", "b", "##c"])
    masker = Masker(tokenizer, MaskingRule(probability=1e-9, whole_word=whole_word))
    ids_BT = np.array([[2, 5, 6, 5, 6, 3], [2, 0, 0, 6, 0, 3], [2, 3, 0, 1, 4, 0]])
    places = set()
    for step in range(60):
        _, labels_BT = masker.mask(ids_BT, seed=0, step=step)
        assert (labels_BT != -100).sum(axis=1).tolist() == [1, 1, 0]
        places.add(int(np.argmax(labels_BT[0])))
    assert places == {1, 2, 3, 4}


def test_masks_are_a_matter_of_tokens_seed_and_step(thousand):
    ids_BT = framed(20, 60)
    first = Masker(thousand, PLAIN).mask(ids_BT, seed=1, step=4)
    np.random.default_rng(1).random()
    again = Masker(thousand, PLAIN).mask(ids_BT.copy(), seed=1, step=4)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    for other in ({"seed": 1, "step": 5}, {"seed": 2, "step": 4}, {"seed": 4, "step": 1}):
        _, labels_BT = Masker(thousand, PLAIN).mask(ids_BT, **other)
        assert not np.array_equal(labels_BT, first[1])


def words_of(tokens, special, begins):
    """Splits places into words by a plain loop over the tokens' spelling."""
    words = []
    for place, token in enumerate(tokens):
        if token in special:
            continue
        after_special = place == 0 or tokens[place - 1] in special
        if after_special or begins(token):
            words.append([])
        words[-1].append(place)
    return words


WORDPIECE = bert(["a", "b", "c", "##d", "##e", "##f", "##g"])
BYTES = RobertaTokenizer(
    vocab={
        word: index
        for index, word in enumerate(
            ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", "a", "b", "Ġa", "Ċ", "##"]
        )
    },
    merges=[("Ġ", "a")],
)


@pytest.mark.parametrize(
    ("tokenizer", "begins"),
    [
        (WORDPIECE, lambda token: not token.startswith("##")),
        (BYTES, lambda token: token[0] in "ĠĊ"),
    ],
    ids=["wordpiece", "bytes"],
)
def test_whole_words_are_chosen_together_and_each_piece_has_its_own_fate(tokenizer, begins):
    ids_BT = np.random.default_rng(0).integers(0, len(tokenizer), (400, 30))
    rule = MaskingRule(probability=0.25, whole_word=True)
    masked_BT, labels_BT = Masker(tokenizer, rule).mask(ids_BT, seed=0, step=0)
    mixed, chosen_words, count = 0, 0, 0
    for ids_T, masked_T, labels_T in zip(ids_BT, masked_BT, labels_BT, strict=True):
        tokens = tokenizer.convert_ids_to_tokens(ids_T.tolist())
        words = words_of(tokens, set(tokenizer.all_special_tokens), begins)
        for word in words:
            hidden = [labels_T[place] != -100 for place in word]
            assert all(hidden) or not any(hidden)
            chosen_words += hidden[0]
            count += 1
            is_mask = [masked_T[place] == tokenizer.mask_token_id for place in word]
            mixed += hidden[0] and any(is_mask) and not all(is_mask)
        assert (labels_T != -100).sum() <= sum(map(len, words))
    assert near(chosen_words / count, 0.25, count)
    assert mixed > 20


def test_pieces_are_chosen_apart_where_words_do_not_matter():
    ids_BT = framed(200, 30, high=12)
    _, labels_BT = Masker(WORDPIECE, MaskingRule(probability=0.5)).mask(ids_BT, seed=0, step=0)
    continues_BT = ids_BT[:, 2:-1] >= 8
    chosen_BT = labels_BT != -100
    parted_BT = chosen_BT[:, 1:-2] != chosen_BT[:, 2:-1]
    assert parted_BT[continues_BT].mean() > 0.4


def test_a_tokeniser_without_a_mask_token_is_refused():
    with pytest.raises(DataError, match="masking needs a mask token, but BertTokenizer has none"):
        Masker(bert(["a"], mask_token=None), PLAIN)


def test_a_tokeniser_without_words_is_refused():
    with pytest.raises(DataError, match="masking needs words, but the tokeniser has special"):
        Masker(bert([]), PLAIN)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(SettingsError, match="is above 0 and below 1, but is"):
        MaskingRule(probability=probability)
