import itertools
import math

import numpy as np
import pytest

from stillhouse.data.answers import AnswerSheet, Question, SpanGold
from stillhouse.errors import DataError, SettingsError, TrainingError
from stillhouse.evaluate.spans import n_best_answers


def by_brute_force(logits, gold, question, n_best, most_tokens):
    """Every pair of every window, by the rules one after the other; gives texts with scores."""
    sheet, found, none = gold.sheet, [], math.inf
    for window in np.flatnonzero(sheet.question_of_N == question):
        tokens = range(gold.offsets[window], gold.offsets[window + 1])
        none = min(none, logits[tokens[0], 0] + logits[tokens[0], 1])
        starts = sorted(tokens, key=lambda token: -logits[token, 0])[:n_best]
        ends = sorted(tokens, key=lambda token: -logits[token, 1])[:n_best]
        for start, end in itertools.product(starts, ends):
            (first, _), (_, last) = sheet.characters_P2[start], sheet.characters_P2[end]
            if first < 0 or last < 0 or end < start or end - start + 1 > most_tokens:
                continue
            text = sheet.questions[question].context[first:last]
            found.append((text, logits[start, 0] + logits[end, 1]))
    if sheet.may_lack_answers:
        found.append(("", none))
    found.sort(key=lambda pair: -pair[1])
    kept = found[:n_best]
    if sheet.may_lack_answers and ("", none) not in kept:
        kept.append(("", none))
    return kept


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize(("n_best", "most_tokens"), [(20, 30), (20, 3), (4, 3), (1, 1)])
def test_the_best_spans_are_those_of_all_pairs(n_best, most_tokens, lacking, made_up):
    logits, gold = made_up(25, seed=n_best, lacking=lacking)
    ranked = n_best_answers(logits, gold, n_best=n_best, most_tokens=most_tokens)
    assert len(ranked) == 25
    for question, candidates in enumerate(ranked):
        expected = by_brute_force(logits, gold, question, n_best, most_tokens)
        assert [one.text for one in candidates] == [text for text, _ in expected]
        scores = np.array([one.score for one in candidates])
        np.testing.assert_allclose(scores, [score for _, score in expected])
        if len(scores):
            share = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose([one.probability for one in candidates], share)


def test_enough_starts_and_ends_find_the_very_best_span(made_up):
    logits, gold = made_up(40, window=8)
    ranked = n_best_answers(logits, gold, n_best=100, most_tokens=100)
    for question, candidates in enumerate(ranked):
        best = max(
            logits[start, 0] + logits[end, 1]
            for window in np.flatnonzero(gold.sheet.question_of_N == question)
            for start in range(gold.offsets[window], gold.offsets[window + 1])
            for end in range(start, gold.offsets[window + 1])
            if min(gold.sheet.characters_P2[[start, end], 0]) >= 0
        )
        assert candidates[0].score == pytest.approx(best)


def test_windows_of_a_question_need_not_stand_together(made_up):
    logits, gold = made_up(10, lacking=True)
    shuffled = np.random.default_rng(0).permutation(len(gold.offsets) - 1)
    tokens = np.concatenate(
        [np.arange(gold.offsets[one], gold.offsets[one + 1]) for one in shuffled]
    )
    lengths = np.diff(gold.offsets)[shuffled]
    moved = SpanGold(
        offsets=np.concatenate([[0], np.cumsum(lengths)]), sheet=gold.sheet.select(shuffled, tokens)
    )
    assert n_best_answers(logits[tokens], moved) == n_best_answers(logits, gold)


def test_only_questions_with_a_window_are_answered(made_up):
    logits, gold = made_up(6)
    kept = np.flatnonzero(np.isin(gold.sheet.question_of_N, [1, 4]))
    tokens = np.concatenate([np.arange(gold.offsets[one], gold.offsets[one + 1]) for one in kept])
    lengths = np.diff(gold.offsets)[kept]
    part = SpanGold(
        offsets=np.concatenate([[0], np.cumsum(lengths)]), sheet=gold.sheet.select(kept, tokens)
    )
    whole = n_best_answers(logits, gold)
    assert n_best_answers(logits[tokens], part) == [whole[1], whole[4]]


def test_no_pair_may_be_left(asked):
    gold = asked(
        [Question(key="q", text="?", context="one two", answers=())], may_lack_answers=False
    )
    logits = np.zeros((gold.offsets[-1], 2))
    logits[5, 0] = logits[4, 1] = 1.0  # starts at the second word, ends at the first
    assert n_best_answers(logits, gold, n_best=1) == [()]


def test_pieces_of_one_character_are_taken_in_their_order():
    # A tokeniser of bytes may give several tokens the same character.
    sheet = AnswerSheet(
        questions=(Question(key="q", text="?", context="é", answers=("é",)),),
        question_of_N=np.array([0]),
        characters_P2=np.array([[-1, -1], [0, 1], [0, 1]], dtype=np.int32),
        may_lack_answers=False,
    )
    gold = SpanGold(offsets=np.array([0, 3]), sheet=sheet)
    logits = np.array([[0.0, 0.0], [1.0, 3.0], [3.0, 1.0]])
    assert [one.score for one in n_best_answers(logits, gold)[0]] == [4.0, 4.0, 2.0]
    assert n_best_answers(logits, gold, n_best=1) == [()]


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [((3, 2), DataError, "one row for every token"), ((1, 1), DataError, r"shape \[")],
)
def test_logits_of_other_tokens_are_refused(shape, error, message, made_up):
    _, gold = made_up(2)
    with pytest.raises(error, match=message):
        n_best_answers(np.zeros(shape), gold)


def test_what_cannot_be_ranked_is_refused(made_up):
    logits, gold = made_up(2)
    with pytest.raises(TrainingError, match="diverged"):
        n_best_answers(np.full_like(logits, np.nan), gold)
    with pytest.raises(SettingsError, match="are 0 and 30"):
        n_best_answers(logits, gold, n_best=0)
    with_empty = SpanGold(offsets=np.insert(gold.offsets, 1, 0), sheet=gold.sheet)
    with pytest.raises(DataError, match="a token at least"):
        n_best_answers(logits, with_empty)
    none = gold.sheet.select(np.array([], dtype=int), np.array([], dtype=int))
    nothing = SpanGold(offsets=np.array([0]), sheet=none)
    with pytest.raises(DataError, match="give at least one"):
        n_best_answers(np.zeros((0, 2)), nothing)
