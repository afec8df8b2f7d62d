"""The attack against one written from its description: a text, and a query, at a time."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from stillhouse.errors import TrainingError
from stillhouse.evaluate.attack import Attack, Target, attack_targets
from stillhouse.evaluate.attack_constraints import Verdict
from stillhouse.evaluate.synonyms import Synonym, Synonyms
from stillhouse.recipe.victims import load_victim

BLANK = "[UNK]"
VOCABULARY = [f"w{number}" for number in range(40)]
STOP_WORDS = frozenset({"w3", "w17"})


def best(probabilities):
    return max(range(len(probabilities)), key=lambda one: (probabilities[one], -one))


def attacked_by_hand(texts, label, ask, synonyms, **rules):
    """Gives the words after the attack, the model's last answer and the number of queries."""
    asked = []

    def query(words):
        asked.append(words)
        return ask((*texts[:-1], " ".join(words)))

    words = texts[-1].split()
    first = query(words)
    if best(first) != label:
        return words, best(first), len(asked)
    costs = []
    for place in range(len(words)):
        found = query([*words[:place], BLANK, *words[place + 1 :]])
        cost = first[label] - found[label]
        if best(found) != label:
            cost += found[best(found)] - first[best(found)]
        costs.append(cost)
    now, stop_words = list(words), rules.pop("stop_words", STOP_WORDS)
    for place in sorted(range(len(words)), key=lambda one: (-costs[one], one)):
        near = [] if words[place] in stop_words else synonyms.get(words[place], [])[:50]
        tried = tried_by_hand(query, now, place, near, **rules)
        wins = [one for one in tried if best(one[1]) != label]
        if wins:
            new, found, _ = max(wins, key=lambda one: one[2])  # the first of equals
            return new, best(found), len(asked)
        lowest = min(tried, key=lambda one: one[1][label], default=(now, first, 0))
        now = lowest[0] if lowest[1][label] < first[label] else now
    return now, label, len(asked)


def tried_by_hand(query, now, place, synonyms, *, allowed=None, near=None):
    """Asks about every synonym; gives text, answer and nearness of those that are allowed."""
    tried = []
    for synonym in synonyms:
        new = [*now[:place], synonym, *now[place + 1 :]]
        found = query(new)
        if allowed is None or allowed(now, place, synonym):
            tried.append((new, found, 0 if near is None else near(now, place, synonym)))
    return tried


def bag_of_words(seed, classes=3):
    """A classifier that adds up weights of words and of neighbours; an unknown word weighs 0."""
    draw = np.random.default_rng(seed)
    weights = {word: draw.normal(size=classes) for word in VOCABULARY}
    pairs = {(a, b): draw.normal(size=classes) for a in VOCABULARY for b in VOCABULARY}

    def ask(texts):
        words = " . ".join(texts).split()
        logits = np.zeros(classes)
        for place, word in enumerate(words):
            logits += weights.get(word, 0)
            logits += pairs.get(tuple(words[place : place + 2]), 0)
        return np.exp(logits) / np.exp(logits).sum()

    return ask


def toy_synonyms(seed):
    draw = random.Random(seed)
    return {
        word: draw.sample([one for one in VOCABULARY if one != word], draw.randint(1, 3))
        for word in draw.sample(VOCABULARY, 20)
    }


def as_file(entries):
    return Synonyms(
        path=Path("toy.json"),
        sha256="",
        has_parts=False,
        entries={word: tuple(Synonym(word=one) for one in near) for word, near in entries.items()},
    )


def toy_targets(seed, *, pairs=False, count=150, classes=3):
    draw = random.Random(seed)
    targets = []
    for key in range(count):
        texts = [" ".join(draw.choices(VOCABULARY, k=draw.randint(1, 9))) for _ in range(2)]
        label = draw.randrange(classes)
        targets.append(Target(key=key, texts=tuple(texts if pairs else texts[:1]), label=label))
    return targets


def allowed_of(words, place, synonym):
    return (len(words) + place + int(synonym[1:])) % 3 != 0


def nearness_of(words, place, synonym):
    return (7 * place + 5 * int(synonym[1:]) + int(words[place][1:])) % 11 / 11


class Picky:
    """The two rules above as a constraint; notes how many swaps it was asked about at once."""

    told = "picky"

    def __init__(self):
        self.turns = []

    def judge(self, swaps):
        self.turns.append(len(swaps))
        asked = [(one.words, one.position, one.synonym.word) for one in swaps]
        return Verdict(
            allowed=np.array([allowed_of(*one) for one in asked]),
            similarity=np.array([nearness_of(*one) for one in asked]),
        )


def run(targets, ask, attack, at_once):
    def answer(texts):
        return np.array([ask(one) for one in texts])

    outcomes = list(attack_targets(targets, answer, attack, at_once=at_once))
    assert {one.key for one in outcomes} == {one.key for one in targets}
    return {one.key: one for one in outcomes}


@pytest.mark.parametrize("at_once", [1, 7, 64])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("is_picky", [False, True])
def test_many_at_once_are_attacked_as_one_text_by_hand(at_once, pairs, is_picky):
    ask, entries = bag_of_words(1), toy_synonyms(2)
    targets = toy_targets(3, pairs=pairs)
    rules = {"allowed": allowed_of, "near": nearness_of} if is_picky else {}
    attack = Attack(
        synonyms=as_file(entries),
        unknown=BLANK,
        constraints=(Picky(),) if is_picky else (),
        stop_words=STOP_WORDS,
    )
    found = run(targets, ask, attack, at_once)
    for target in targets:
        outcome = found[target.key]
        by_hand = attacked_by_hand(target.texts, target.label, ask, entries, **rules)
        assert (list(outcome.words), outcome.final, outcome.queries) == by_hand
        assert outcome.original == tuple(target.texts[-1].split())
        assert outcome.is_correct == (best(ask(target.texts)) == target.label)
    kinds = [(one.is_correct, one.is_robust, one.is_fooled) for one in found.values()]
    assert {(False, False, False), (True, True, False), (True, False, True)} == set(kinds)
    assert any(one.is_robust and one.changed for one in found.values())


def test_queries_of_different_texts_are_asked_together():
    entries, targets, sizes = toy_synonyms(2), toy_targets(3), []
    ask = bag_of_words(1)

    def answer(texts):
        sizes.append(len(texts))
        return np.array([ask(one) for one in texts])

    attack = Attack(synonyms=as_file(entries), unknown=BLANK, stop_words=STOP_WORDS)
    list(attack_targets(targets, answer, attack, at_once=150))
    together, asked = len(sizes), sum(sizes)
    assert sizes[0] == 150
    sizes.clear()
    list(attack_targets(targets, answer, attack, at_once=1))
    assert sum(sizes) == asked
    assert together < len(sizes) / 10
    picky = Picky()
    attack = Attack(synonyms=as_file(entries), unknown=BLANK, constraints=(picky,))
    list(attack_targets(targets, answer, attack, at_once=150))
    assert max(picky.turns) > 60


def test_a_wrong_answer_is_not_attacked_and_a_text_without_synonyms_is_robust():
    ask = bag_of_words(1)
    attack = Attack(synonyms=as_file({"w1": ["w2"]}), unknown=BLANK, stop_words=STOP_WORDS)
    text = "w5 w6 w7"
    right = best(ask((text,)))
    wrong = Target(key=0, texts=(text,), label=(right + 1) % 3)
    hopeless = Target(key=1, texts=(text,), label=right)
    empty = Target(key=2, texts=("  ",), label=best(ask(("",))))
    found = run([wrong, hopeless, empty], ask, attack, 2)
    assert (found[0].queries, found[0].final, found[0].is_correct) == (1, right, False)
    assert (found[1].queries, found[1].final, found[1].is_robust) == (4, right, True)
    assert (found[2].queries, found[2].words, found[2].is_robust) == (1, (), True)
    assert not attack.can_change(hopeless)
    assert attack.can_change(Target(key=3, texts=("w5 w1",), label=0))


def test_stop_words_are_kept_whatever_stands_around_them():
    attack = Attack(
        synonyms=as_file({"w3": ["w4"], "w1": ["w2"]}), unknown=BLANK, stop_words=STOP_WORDS
    )
    assert attack.synonyms_of("W3,") == ()
    assert [one.word for one in attack.synonyms_of("W1,")] == ["w2"]


def test_what_decides_nothing_counts_as_a_query_but_is_not_asked():
    class Forbid:
        told = "forbid"

        def judge(self, swaps):
            return Verdict(allowed=np.zeros(len(swaps), dtype=bool))

    ask, asked = bag_of_words(1), []

    def answer(texts):
        asked.extend(texts)
        return np.array([ask(one) for one in texts])

    label = best(ask(("w1 w9 w2",)))
    attack = Attack(
        synonyms=as_file({"w1": ["w4", "w5"], "w2": ["w6"]}), unknown=BLANK, constraints=(Forbid(),)
    )
    target = Target(key=0, texts=("w1 w9 w2",), label=label)
    (outcome,) = attack_targets([target], answer, attack)
    assert outcome.queries == 1 + 3 + 3
    assert asked == [("w1 w9 w2",), (f"{BLANK} w9 w2",), (f"w1 w9 {BLANK}",)]
    assert outcome.is_robust


def test_answers_that_are_no_numbers_are_refused():
    attack = Attack(synonyms=as_file({"w1": ["w2"]}), unknown=BLANK)
    targets = [Target(key=0, texts=("w1",), label=0)]
    with pytest.raises(TrainingError, match="NaN or infinity"):
        list(attack_targets(targets, lambda texts: np.full((len(texts), 2), np.nan), attack))


@pytest.fixture
def shaky_folder(weather_tokenizer, tmp_path):
    """A classifier with random weights, so large that a word may well change its answer."""
    config = BertConfig(
        vocab_size=len(weather_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.4,
        id2label={0: "bad", 1: "good"},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(tmp_path)
    weather_tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("at_once", [1, 64])
def test_a_transformer_is_attacked_as_by_hand(shaky_folder, weather_rows, at_once):
    model = AutoModelForSequenceClassification.from_pretrained(shaky_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(shaky_folder)

    @torch.inference_mode()
    def ask(texts):
        inputs = tokenizer(texts[0], return_tensors="pt")
        return model(**inputs).logits.double().softmax(dim=-1)[0].tolist()

    victim = load_victim(shaky_folder, ("bad", "good"), max_length=128)
    assert victim.unknown == BLANK
    targets = [
        Target(key=key, texts=(text,), label=abs(best(ask((text,))) - (key % 6 == 5)))
        for key, (text, _) in enumerate(weather_rows[:40])
    ]
    words = sorted({word for text, _ in weather_rows for word in text.split()})
    draw = random.Random(0)
    entries = {word: [*draw.sample(words, 2), "unheard", "unknown"] for word in words[::2]}
    attack = Attack(synonyms=as_file(entries), unknown=BLANK, stop_words=frozenset({"the"}))
    outcomes = list(attack_targets(targets, victim.answer, attack, at_once=at_once))
    assert any(one.is_fooled for one in outcomes)
    assert any(one.is_robust and one.changed for one in outcomes)
    assert any(not one.is_correct for one in outcomes)
    for outcome in outcomes:
        target = targets[outcome.key]
        by_hand = attacked_by_hand(target.texts, target.label, ask, entries, stop_words={"the"})
        assert (list(outcome.words), outcome.final, outcome.queries) == by_hand
