"""Folders of word taggers."""

import json

import numpy as np
import pytest
import torch

import stillhouse
from stillhouse.data.bioes import TagCode
from stillhouse.data.lexicon import Lexicon
from stillhouse.data.word_batches import encode_words
from stillhouse.errors import DataError
from stillhouse.export.word_tagger import (
    SentenceTagger,
    load_word_tagger,
    refuse_word_tagger,
    save_word_tagger,
)
from stillhouse.model.word_tagger import TaggerSizes, WordTagger, word_logits

SIZES = TaggerSizes(
    word=4, character=3, filters=2, windows=(2,), first_units=6, first=4, second=3, module=5
)
LEXICON = Lexicon(words=("a", "b"), characters=("a", "b"))
CODE = TagCode(task_names=("O", "B-X", "I-X"), scheme="IOB2")
SENTENCES = [["a", "b", "b"], [], ["ab"]]


@pytest.fixture
def tagger():
    torch.manual_seed(0)
    network = WordTagger(SIZES, words=4, characters=4, tags=len(CODE.names))
    with torch.no_grad():
        network.primary.tell.weight.mul_(50)  # so that words have different tags
    return SentenceTagger(network=network, sizes=SIZES, lexicon=LEXICON, code=CODE)


@pytest.fixture
def folder(tagger, tmp_path):
    save_word_tagger(tmp_path / "model", tagger, metrics={"quality": 0.5}, card="# Card\n")
    return tmp_path / "model"


def test_a_written_tagger_gives_the_same_tags(tagger, folder):
    loaded = stillhouse.load_word_tagger(str(folder))
    assert loaded.lexicon == LEXICON
    assert loaded.code == CODE
    assert loaded.tag(SENTENCES) == tagger.tag(SENTENCES)
    encoded = encode_words([["a", "b"]], LEXICON)
    np.testing.assert_array_equal(
        word_logits(loaded.network, encoded), word_logits(tagger.network, encoded)
    )
    assert json.loads((folder / "metrics.json").read_text()) == {"quality": 0.5}
    assert (folder / "README.md").read_text() == "# Card\n"


def test_tags_are_those_of_the_highest_logits_in_the_names_of_the_task(tagger):
    names = {"O": "O", "B-X": "B-X", "S-X": "B-X", "I-X": "I-X", "E-X": "I-X"}
    expected = []
    for words in SENTENCES:
        row = []
        if words:
            best = word_logits(tagger.network, encode_words([words], LEXICON)).argmax(axis=1)
            row = [names[CODE.names[tag]] for tag in best]
        expected.append(row)
    assert tagger.tag(SENTENCES) == expected
    assert tagger.tag([]) == []
    assert tagger.tag([[]]) == [[]]


def test_votes_are_one_at_the_tag(tagger):
    encoded = encode_words([["a", "b", "b"]], LEXICON)
    votes = tagger.votes(encoded)
    assert votes.shape == (3, 3)
    assert votes.sum() == 3
    np.testing.assert_array_equal(votes.argmax(axis=1), tagger.numbers(encoded))


def test_no_folder_is_no_tagger(tmp_path):
    with pytest.raises(DataError, match=r"holds no word tagger \(word_tagger.json\): give RUN"):
        load_word_tagger(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("word_tagger.json", b"{"),
        ("word_tagger.json", b"{}"),
        ("word_tagger.json", b'{"sizes": {"windows": [2], "depth": 3}}'),
        ("model.safetensors", b"nonsense"),
    ],
)
def test_a_damaged_tagger_is_told(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .* in another run directory"):
        load_word_tagger(folder)


def test_weights_of_other_sizes_are_told(folder):
    facts = json.loads((folder / "word_tagger.json").read_text())
    facts["words"].append("c")
    (folder / "word_tagger.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"is damaged \(Error\(s\) in loading state_dict"):
        load_word_tagger(folder)


def test_a_tagger_is_refused_where_a_transformer_is_wanted(folder, tmp_path):
    refuse_word_tagger(tmp_path)
    with pytest.raises(DataError, match="holds a BiLSTM tagger of `stillhouse cross-view`"):
        stillhouse.evaluate(folder, "embedded")
    with pytest.raises(DataError, match="load_word_tagger"):
        stillhouse.evaluate(tmp_path, "embedded", teacher=folder)
