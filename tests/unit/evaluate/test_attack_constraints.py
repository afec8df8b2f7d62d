import math

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForTokenClassification

from stillhouse.errors import DataError, SettingsError
from stillhouse.evaluate.attack_constraints import (
    STOP_WORDS,
    CheckpointTagger,
    EncoderSimilarity,
    ListedParts,
    Swap,
    TaggedParts,
    Verdict,
    judge_all,
    read_stop_words,
)
from stillhouse.evaluate.synonyms import Synonym


def swap(text, position, synonym, *, parts="", now=None):
    words = tuple(text.split())
    return Swap(
        original=words,
        words=words if now is None else tuple(now.split()),
        position=position,
        synonym=Synonym(word=synonym, parts=frozenset(parts)),
    )


class Says:
    """A constraint that allows what it is told to, and remembers what it was asked."""

    told = "says"

    def __init__(self, allowed, similarity=None):
        self.allowed, self.similarity, self.asked = allowed, similarity, None

    def judge(self, swaps):
        self.asked = [one.synonym.word for one in swaps]
        near = None
        if self.similarity is not None:
            near = np.array([self.similarity[one] for one in self.asked])
        return Verdict(
            allowed=np.array([one in self.allowed for one in self.asked]), similarity=near
        )


def test_a_swap_keeps_the_marks_and_capitals_of_the_word_and_earlier_replacements():
    one = swap("Good, old days!", 0, "fine", now="Good, ancient days!")
    assert one.swapped == ("Fine,", "ancient", "days!")
    assert swap("Good, old days!", 2, "weeks", now="Fine, ancient days!").swapped == (
        "Fine,", "ancient", "weeks!",
    )  # fmt: skip


def test_constraints_are_asked_about_what_those_before_allow():
    swaps = [swap("a", 0, word) for word in "bcde"]
    first, second = Says("bcd"), Says("ce", {"b": 0.1, "c": 0.2, "d": 0.3})
    never = Says("")
    verdict = judge_all((first, second), swaps)
    assert verdict.allowed.tolist() == [False, True, False, False]
    assert verdict.similarity.tolist() == [0.1, 0.2, 0.3, 0]
    assert (first.asked, second.asked) == ([*"bcde"], [*"bcd"])
    assert not judge_all((never, first), swaps).allowed.any()
    assert judge_all((), swaps).allowed.all()


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "parts.tsv"
    path.write_text(
        "word\tpos\tsynonyms\nrun\tv\tsprint\nrun\tn\tstreak\nquick\ta\tfast\nfast\tr\tswift\n"
    )
    return path


def test_listed_parts_must_be_shared_and_unknown_words_are_allowed(table):
    cases = {
        ("sprint", "streak"): True,  # verb and noun
        ("Quick!", "fast"): True,
        ("quick", "sprint"): False,
        ("swift", "quick"): False,  # an adverb only
        ("swift", "fast"): True,
        ("films", "sprint"): True,
        ("sprint", "films"): True,
    }
    constraint = ListedParts(table)
    found = constraint.judge([swap(word, 0, synonym) for word, synonym in cases])
    assert found.allowed.tolist() == list(cases.values())
    assert found.similarity is None
    assert "parts.tsv" in constraint.told
    assert "NLTK" in constraint.told


TAGS = {"run": "VERB", "race": "NOUN", "fast": "ADV", "red": "ADJ", "Rome": "PROPN", "was": "AUX"}


@pytest.fixture
def noted_tagger():
    """Tags words by a list; notes the texts it was given."""
    given = []

    def tag(texts):
        given.extend(texts)
        return [[TAGS.get(word, "X") for word in words] for words in texts]

    tag.given = given
    return tag


def test_tagged_parts_must_be_the_same_but_for_noun_and_verb(noted_tagger):
    cases = {
        ("run", "race"): True,
        ("race", "Rome"): True,
        ("run", "was"): True,
        ("run", "red"): False,
        ("fast", "red"): False,
        ("unheard", "unknown"): True,
    }
    constraint = TaggedParts(noted_tagger, "a list")
    found = constraint.judge([swap(f"x {word}", 1, synonym) for word, synonym in cases])
    assert found.allowed.tolist() == list(cases.values())
    assert "a list" in constraint.told


def test_parts_of_the_synonym_file_go_before_those_of_the_tagger(noted_tagger):
    cases = {
        ("run", "red", "v"): True,
        ("race", "red", "v"): True,
        ("Rome", "red", "n"): True,
        ("red", "race", "s"): True,
        ("red", "race", "ar"): True,
        ("fast", "red", "a"): False,
        ("unheard", "red", "n"): False,
    }
    constraint = TaggedParts(noted_tagger, "a list")
    swaps = [swap(word, 0, synonym, parts=parts) for word, synonym, parts in cases]
    assert constraint.judge(swaps).allowed.tolist() == list(cases.values())
    assert all(len(words) == 1 and words[0] != "red" for words in noted_tagger.given[:3])


def test_a_long_text_is_tagged_once_and_a_synonym_among_its_neighbours(noted_tagger):
    text = " ".join(f"w{number}" for number in range(12))
    swaps = [swap(text, place, "new") for place in (0, 6, 11)]
    constraint = TaggedParts(noted_tagger, "a list")
    constraint.judge(swaps)
    constraint.judge(swaps[:1])
    assert noted_tagger.given == [
        tuple(text.split()),
        ("new", "w1", "w2", "w3", "w4"),
        ("w2", "w3", "w4", "w5", "new", "w7", "w8", "w9", "w10"),
        ("w7", "w8", "w9", "w10", "new"),
        ("new", "w1", "w2", "w3", "w4"),
    ]


@pytest.fixture
def tagger_folder(weather_tokenizer, tmp_path):
    """A tagger that reads nothing but the token: `sunny` is ADJ, `day` NOUN, others VERB."""

    def make(labels=("ADJ", "NOUN", "VERB", "ADV"), positions=32):
        config = BertConfig(
            vocab_size=len(weather_tokenizer),
            hidden_size=16,
            num_hidden_layers=0,
            num_attention_heads=2,
            max_position_embeddings=positions,
            id2label=dict(enumerate(labels)),
        )
        model = BertForTokenClassification(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()
            model.bert.embeddings.LayerNorm.weight.fill_(1.0)
            words = model.bert.embeddings.word_embeddings.weight
            words[:, 2] = 1.0
            for place, word in enumerate(("sunny", "day")):
                words[weather_tokenizer.vocab[word]] = 0
                words[weather_tokenizer.vocab[word], place] = 1.0
            model.classifier.weight[:, : len(labels)] = torch.eye(len(labels))
        model.save_pretrained(tmp_path / "tagger")
        weather_tokenizer.save_pretrained(tmp_path / "tagger")
        return str(tmp_path / "tagger")

    return make


def test_a_checkpoint_tags_every_word_by_its_first_token(tagger_folder):
    tagger = CheckpointTagger(tagger_folder())
    texts = [("the", "sunny", "day"), ("sunny",), (), ("day", "sunny!", "walk")]
    assert tagger(texts) == [["VERB", "ADJ", "NOUN"], ["ADJ"], [], ["NOUN", "ADJ", "VERB"]]


def test_words_that_a_tagger_does_not_reach_have_no_part(tagger_folder):
    tagger = CheckpointTagger(tagger_folder(positions=8))
    (tags,) = tagger([("sunny",) * 10])
    assert tags == ["ADJ"] * 6 + ["X"] * 4


def test_a_model_that_tags_something_else_is_refused(tagger_folder, weather_teacher_folder):
    with pytest.raises(SettingsError, match=r"no universal parts of speech .*\['B-NP', 'O'\]"):
        CheckpointTagger(tagger_folder(labels=("B-NP", "O")))
    with pytest.raises(SettingsError, match="it has a classifier"):
        CheckpointTagger(str(weather_teacher_folder))


def test_similarity_is_one_less_the_angle_of_mean_encodings(weather_encoder_folder):
    texts = {
        "the sunny day": "the rainy day",
        "a mild morning walk": "a mild morning look",
    }
    folder = str(weather_encoder_folder)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def encoded(text):
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        return hidden.mean(dim=0).double().numpy()

    expected = []
    for old, new in texts.items():
        one, other = encoded(old), encoded(new)
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        expected.append(1 - math.acos(cosine))
    constraint = EncoderSimilarity(folder)
    swaps = [swap("the sunny day", 1, "rainy"), swap("a mild morning walk", 3, "look")]
    found = constraint.judge(swaps)
    assert found.similarity == pytest.approx(expected, abs=1e-3)
    assert found.allowed.all()
    alone = [float(constraint.judge([one]).similarity[0]) for one in swaps]
    assert found.similarity.tolist() == alone
    assert folder in constraint.told


def test_the_threshold_is_that_of_texts_of_a_window_or_more(weather_encoder_folder):
    constraint = EncoderSimilarity(str(weather_encoder_folder), threshold=1.0, window=3)
    short = swap("sunny day", 0, "icy")
    long = swap("the sunny day", 1, "icy")
    assert constraint.judge([short, long]).allowed.tolist() == [True, False]
    same = swap("the sunny day", 1, "Sunny")  # read as the same token
    assert constraint.judge([same]).allowed.tolist() == [True]
    lax = EncoderSimilarity(str(weather_encoder_folder), threshold=-3.0, window=3)
    assert lax.judge([short, long]).allowed.all()


def test_the_window_lies_around_the_word_as_far_as_the_text_goes(weather_encoder_folder):
    constraint = EncoderSimilarity(str(weather_encoder_folder), window=3)
    seen = []
    encode = constraint._encode
    constraint._encode = lambda texts: seen.extend(texts) or encode(texts)
    text = "the sunny day a long road"
    constraint.judge([swap(text, 0, "icy"), swap(text, 3, "icy"), swap(text, 5, "icy")])
    assert seen == [
        "the sunny day", "icy sunny day",
        "day a long", "day icy long",
        "a long road", "a long icy",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [({"threshold": 1.2}, "at most 1"), ({"window": 4}, "odd number"), ({"window": 0}, "odd")],
)
def test_impossible_numbers_are_refused(weather_encoder_folder, options, said):
    with pytest.raises(SettingsError, match=said):
        EncoderSimilarity(str(weather_encoder_folder), **options)


def test_stop_words_are_those_of_the_library_or_of_a_file(tmp_path):
    assert {"the", "not", "is"} <= STOP_WORDS
    assert len(STOP_WORDS) == 318
    path = tmp_path / "stop.txt"
    path.write_text("The\n\n of \n")
    assert read_stop_words(path) == {"the", "of"}
    path.write_text("\n")
    with pytest.raises(DataError, match="holds no stop word"):
        read_stop_words(path)
